"""Set every number that the paper prints beside the one recomputed here."""

from ffmerge.against_paper.comparison import compared, summary
from ffmerge.against_paper.paper_reported import read_reported
from ffmerge.against_paper.recomputed import recomputed
from ffmerge.csv_files import write_csv
from ffmerge.job import Job
from ffmerge.tables.results import results_of

if __name__ == "__main__":
    with Job.from_command_line() as job:
        reported, tasks = read_reported(job.input.reported), job.params.tasks
        ours = recomputed(
            tasks,
            reported["models"],
            results_of(job),
            base_models=dict(zip(tasks, job.input.base_models, strict=True)),
            storage=dict(zip(tasks, job.input.storage, strict=True)),
            records=job.input.records,
        )
        rows = list(compared(reported, ours))
        write_csv(rows, job.output.table)
        job.output.text.write_text(summary(rows))
