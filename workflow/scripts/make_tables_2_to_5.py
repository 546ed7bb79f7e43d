"""Make Table 2, 3, 4 or 5: test scores of models, as the paper lays them out."""

from provenance.job import Job
from experiment.tables.layout import write_table
from experiment.tables.scores import read_results, write_results
from experiment.tables.tables_2_to_5 import score_table

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = read_results(job)
        write_results(results, job.output.tidy)
        write_table(job, score_table(job, results))
