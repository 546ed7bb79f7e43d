"""Make the table of sizes: merging beside dropping layers at each ratio, untuned and tuned."""

from provenance.job import Job
from experiment.tables.layout import write_table
from experiment.tables.scores import read_results, write_results
from experiment.tables.sizes import read_untuned, sizes

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = read_results(job)
        write_results(results, job.output.tidy)
        write_table(job, sizes(read_untuned(job), results))
