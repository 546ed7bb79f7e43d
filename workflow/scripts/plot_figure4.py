"""Plot Figure 4: the score of every window of the 1/3 setting before tuning."""

import pandas

from ffmerge.evaluation import METRICS
from ffmerge.figures import look
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        figure, axes = look.panels(len(job.params.tasks))
        for axis, file, task in zip(
            axes, job.input.windows, job.params.tasks.values(), strict=True
        ):
            metric = METRICS[task["kind"]]
            windows = pandas.read_csv(file)
            windows = windows[windows["k"] == task["k"]]
            # the paper shows the language model's loss "for visibility"
            shown = "loss" if metric.name == "perplexity" else "score"
            for method in [name for name in look.METHODS if name in set(windows["method"])]:
                of_method = windows[windows["method"] == method].sort_values("start")
                axis.plot(
                    of_method["start"], of_method[shown], markersize=5, **look.METHODS[method]
                )
            starts = sorted(windows["start"].unique())
            labels = [f"{start}-{start + task['k'] - 1}" for start in starts]
            axis.set_xticks(starts, labels, rotation=45 if len(starts) > 5 else 0)
            axis.set_title(task["label"])
            axis.set_xlabel("merged FF sublayers")
            unit = "loss (nats)" if shown == "loss" else metric.unit
            better_up = metric.higher_is_better and shown == "score"
            axis.set_ylabel(f"validation {unit} {'↑' if better_up else '↓'}")
        axes[0].legend(frameon=False)
        look.save(figure, job.output.pdf, job.output.png)
