"""Make Table 2: the best window of 1/3 beside random ones."""

from experiment.tables.layout import write_table
from experiment.tables.printing import printing_of
from experiment.tables.scores import results_of, write_results
from experiment.tables.tables_2_3 import table2
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        write_table(job, table2(results, printing_of(job, table=2)))
