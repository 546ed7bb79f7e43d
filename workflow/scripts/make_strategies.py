"""Make the table of strategies: searched windows beside groups proposed from features."""

from provenance.job import Job
from experiment.tables.layout import write_table
from experiment.tables.scores import read_results, write_results
from experiment.tables.strategies import strategies

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results, tasks = read_results(job), job.params.tasks
        write_results(results, job.output.tidy)
        groups = zip(job.input.groups, job.input.untuned, strict=True)
        ratios = {name: task["ratios"] for name, task in tasks.items()}
        write_table(job, strategies(results, dict(zip(tasks, groups, strict=True)), ratios))
