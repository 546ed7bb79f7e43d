"""Plot Figure 2: performance against compression, with and without alignment."""

import pandas

from ffmerge import figures
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = pandas.read_csv(job.input.results)
        tasks = results["task"].unique()
        figure, axes = figures.panels(len(tasks))
        for axis, task in zip(axes, tasks, strict=True):
            figures.scores_by_reduction(axis, results[results["task"] == task])
        axes[0].legend(frameon=False)
        figures.save(figure, job.output.pdf, job.output.png)
