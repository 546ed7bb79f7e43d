"""Set every number that the paper prints beside the one recomputed here."""

from ffmerge.against_paper.comparison import compared, summary
from ffmerge.against_paper.paper_reported import read_reported
from ffmerge.against_paper.recomputed import Files, recomputed
from ffmerge.csv_files import write_csv
from ffmerge.job import Job
from ffmerge.provenance.ledger import write_ledger
from ffmerge.tables.results import results_of
from ffmerge.tables.tested import by_model

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
