"""Plot Figure 3: merging at 1/3 and 1/2 against dropping 1/6 and 1/3 of the layers."""

import pandas

from ffmerge.figures import look
from ffmerge.job import Job
from ffmerge.tables.results import results_of, write_results

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        table = pandas.read_csv(job.output.tidy)
        figure, axes = look.panels(len(job.params.tasks))
        for axis, task in zip(axes, job.params.tasks, strict=True):
            look.scores_by_reduction(axis, table[table["task"] == task])
        axes[0].legend(frameon=False)
        look.save(figure, job.output.pdf, job.output.png)
