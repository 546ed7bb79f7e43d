"""Measure run time and memory of compressed models against the base model's (Table 1)."""

from dataclasses import asdict

from ffmerge import checkpoint
from ffmerge.cost import measure
from ffmerge.csv_files import write_csv
from ffmerge.job import Job
from ffmerge.tasks import task_for

if __name__ == "__main__":
    with Job.from_command_line() as job:
        data = {"validation": job.input.validation}
        task = task_for(job.task, job.input.base_model, data)
        batch = next(task.feature_batches())
        models = {
            name: checkpoint.load(directory, job.params.device)
            for name, directory in zip(job.params.models, job.input.models, strict=True)
        }
        costs = measure(models, batch, job.params.rounds, job.params.device)
        rows = [{"model": name, **asdict(cost)} for name, cost in costs.items()]
        write_csv(rows, job.output.cost)
