"""Plot Figure 2: performance against compression, with and without alignment."""

import pandas

from ffmerge.figures import look
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = pandas.read_csv(job.input.results)
        tasks = results["task"].unique()
        figure, axes = look.panels(len(tasks))
        for axis, task in zip(axes, tasks, strict=True):
            look.scores_by_reduction(axis, results[results["task"] == task])
        axes[0].legend(frameon=False)
        look.save(figure, job.output.pdf, job.output.png)
