"""Make Table 5: full numerical results at varying compression ratios."""

from experiment.tables.layout import write_table
from experiment.tables.printing import printing_of
from experiment.tables.scores import results_of, write_results
from experiment.tables.table5 import table5
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        write_table(job, table5(results, printing_of(job, table=5)))
