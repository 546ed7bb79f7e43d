"""Make Table 5: full numerical results at varying compression ratios."""

from ffmerge.job import Job
from ffmerge.tables.layout import write_table
from ffmerge.tables.printing import printing_of
from ffmerge.tables.results import results_of, write_results
from ffmerge.tables.table5 import table5

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        write_table(job, table5(results, printing_of(job, table=5)))
