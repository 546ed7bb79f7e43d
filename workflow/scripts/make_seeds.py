"""Make the table of seeds: our method beside vanilla averaging, tuned with several seeds."""

from provenance.job import Job
from experiment.tables.layout import write_table
from experiment.tables.scores import read_results, write_results
from experiment.tables.seeds import seeds

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results, params = read_results(job), job.params
        write_results(results, job.output.tidy)
        ratios = {name: task["ratios"] for name, task in params.tasks.items()}
        write_table(job, seeds(results, ratios, params.seed, params.intervals["confidence"]))
