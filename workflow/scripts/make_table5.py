"""Make Table 5: full numerical results at varying compression ratios."""

from ffmerge.job import Job
from ffmerge.tables.layout import write_table
from ffmerge.tables.results import results_of, write_results
from ffmerge.tables.table5 import table5

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_table(table5(results), job.output.table, job.output.text)
        write_results(results, job.output.tidy)
