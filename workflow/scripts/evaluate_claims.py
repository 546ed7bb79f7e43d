"""Test the paper's findings on the per-example scores of this run, and say which hold."""

from experiment.claims.evidence import Settings
from experiment.claims.run import about_run
from experiment.claims.statements import as_report, judged
from experiment.reported import read_reported
from experiment.tables.tested import read_tests
from provenance.csv_files import write_csv
from provenance.job import Job
from provenance.ledger import write_ledger

if __name__ == "__main__":
    with Job.from_command_line() as job:
        tasks = job.params.tasks
        evidence = about_run(
            read_tests(job.input.scores, job.input.per_example),
            tasks,
            windows=dict(zip(tasks, job.input.windows, strict=True)),
            cka=dict(zip(tasks, job.input.cka, strict=True)),
            reported=read_reported(job.input.reported),
            settings=Settings(job.params.draws, job.params.confidence, job.params.seed),
        )
        rows = judged(list(evidence), job.params.confidence)
        write_csv(rows, job.output.table)
        job.output.text.write_text(as_report(rows, job.params.confidence))
        write_ledger(job, rows)
