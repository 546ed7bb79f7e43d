"""Test which of the paper's findings hold in this run, on per-example scores."""

from provenance.job import Job
from experiment.claims.statements import about_run, as_report, judged
from experiment.tables.layout import write_table

if __name__ == "__main__":
    with Job.from_command_line() as job:
        table = judged(list(about_run(job)), job.params.confidence)
        write_table(job, table, text=as_report(table, job.params.confidence))
