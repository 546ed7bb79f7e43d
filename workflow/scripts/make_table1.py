"""Make Table 1: what each kind of compression needs and saves, with what was measured."""

from experiment.tables.layout import write_table
from experiment.tables.table1 import Measured, table1
from experiment.tables.tested import by_model
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        tests, curves = by_model(job.input.tests), by_model(job.input.curves)
        files = zip(job.input.costs, job.input.windows, job.input.layer_drops, strict=True)
        tasks = [
            Measured(task["label"], task["models"], *of_task, tests[name], curves[name])
            for (name, task), of_task in zip(job.params.tasks.items(), files, strict=True)
        ]
        write_table(job, table1(tasks))
