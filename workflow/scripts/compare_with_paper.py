"""Set every number that the paper prints beside the one recomputed here."""

from experiment.claims.comparison import compared, summary
from experiment.claims.recomputed import Files, recomputed
from experiment.reported import read_reported
from experiment.tables.scores import results_of
from experiment.tables.tested import by_model
from provenance.csv_files import write_csv
from provenance.job import Job
from provenance.ledger import write_ledger

if __name__ == "__main__":
    with Job.from_command_line() as job:
        reported, given, tasks = read_reported(job.input.reported), job.input, job.params.tasks
        tuned = by_model(given.tuned)
        files = {
            task: Files(*of_task, tuned=list(tuned[task].values()))
            for task, *of_task in zip(
                tasks, given.base_models, given.storage, given.collected, given.tested, strict=True
            )
        }
        ours = recomputed(tasks, reported["models"], results_of(job), files)
        rows = list(compared(reported, ours))
        write_csv(rows, job.output.table)
        job.output.text.write_text(summary(rows))
        write_ledger(job, rows)
