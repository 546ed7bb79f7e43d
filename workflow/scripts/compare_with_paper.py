"""Set every number that the paper prints beside the one recomputed here."""

from provenance.job import Job
from experiment.claims.comparison import compared, recomputed, summary
from experiment.reported import read_reported
from experiment.tables.layout import write_table
from experiment.tables.scores import read_results

if __name__ == "__main__":
    with Job.from_command_line() as job:
        reported = read_reported(job.input.reported)
        ours = recomputed(job, read_results(job), reported["models"])
        table = compared(reported, ours)
        write_table(job, table, text=summary(table))
