"""Make Table 3: the same window merged towards each of three anchors."""

from ffmerge.job import Job
from ffmerge.tables.by_column import table3
from ffmerge.tables.layout import write_table
from ffmerge.tables.printing import printing_of
from ffmerge.tables.results import results_of, write_results

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        write_table(job, table3(results, printing_of(job, table=3)))
