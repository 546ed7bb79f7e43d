"""Score a model on the test split, and keep the values of every example (Section 5)."""

import json
from importlib import import_module

from provenance.job import Job
from experiment.evaluation.clusters import clusters
from experiment.tasks import task_of
from ffmerge.models.format import DROPPED, GROUPS
from ffmerge.models.size import count_parameters, count_sublayers
from provenance.csv_files import write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_of(job)
        model = import_module(job.params.loader).load(job.input.model, job.params.device)
        result = task.evaluate(model, "test", job.params.device)
        computed, stored = count_sublayers(model)
        summary = {
            "metric": task.metric.name,
            "score": result.score,
            "loss": result.loss,
            "n_parameters": count_parameters(model),
            "n_sublayers": computed,
            "n_sublayers_removed": computed - stored,
            "merged": [
                {"tower": group["tower"], "layers": group["layers"]}
                for group in getattr(model.config, GROUPS, [])
            ],
            "dropped": getattr(model.config, DROPPED, []),
            **result.details,
        }
        job.output.score.write_text(json.dumps(summary, indent=2) + "\n")
        columns = {**result.per_example, **clusters(task, "test")}
        examples = zip(*columns.values(), strict=True)
        rows = (dict(zip(columns, values, strict=True)) for values in examples)
        write_csv(rows, job.output.per_example)
