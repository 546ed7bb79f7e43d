"""Plot Figure 2: performance against compression, with and without alignment."""

import pandas

from ffmerge import figures
from ffmerge.evaluation import METRICS
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = pandas.read_csv(job.input.table5)
        figure, axes = figures.panels(len(job.params.tasks))
        for axis, (name, task) in zip(axes, job.params.tasks.items(), strict=True):
            own = results[results["task"] == name]
            base = own[own["method"].isna()].iloc[0]
            axis.axhline(base["score"], label="Uncompressed", **figures.BASE)
            for method, style in figures.METHODS.items():
                of_method = own[own["method"] == method].sort_values("reduction_percent")
                axis.errorbar(
                    of_method["reduction_percent"],
                    of_method["score"],
                    yerr=[
                        of_method["score"] - of_method["low"],
                        of_method["high"] - of_method["score"],
                    ],
                    capsize=3,
                    markersize=5,
                    **style,
                )
            axis.set_title(task["label"])
            axis.set_xlabel("parameters removed (%)")
            metric = METRICS[task["kind"]]
            axis.set_ylabel(f"test {metric.unit} {'↑' if metric.higher_is_better else '↓'}")
            axis.set_xlim(left=0)
        axes[0].legend(frameon=False)
        figures.save(figure, job.output.pdf, job.output.png)
