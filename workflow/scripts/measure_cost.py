"""Measure run time and memory of compressed models against the base model's (Table 1)."""

from dataclasses import asdict
from importlib import import_module

from provenance.job import Job
from experiment.tasks import task_of
from ffmerge.evaluation.cost import measure
from provenance.csv_files import write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_of(job)
        models = {
            name: import_module(loader).load(directory, job.params.device)
            for (name, loader), directory in zip(
                job.params.loaders.items(), job.input.models, strict=True
            )
        }
        batch = next(task.feature_batches())
        costs = measure(models, batch, job.params.rounds, job.params.device)
        rows = [{"model": name, **asdict(cost)} for name, cost in costs.items()]
        write_csv(rows, job.output.cost)
