"""Score the base model without each window of layers, before tuning (Section 4.4)."""

import csv

from ffmerge import checkpoint
from ffmerge.job import Job
from ffmerge.layer_drop import without_layers
from ffmerge.tasks import task_for
from ffmerge.variants import UNCOMPRESSED, Candidate
from ffmerge.windows import layers_of

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_for(job.task, job.input.base_model, {"validation": job.input.validation})
        model = checkpoint.load(job.input.base_model, job.params.device)
        rows = []
        for candidate in job.progress([Candidate(*c) for c in job.params.candidates]):
            layers = layers_of(candidate.start, candidate.k)
            scored = model if candidate == UNCOMPRESSED else without_layers(model, layers)
            result = task.evaluate(scored, "validation", job.params.device)
            rows.append([*candidate, result.score, result.loss])
        with job.output.scores.open("w", newline="") as file:
            csv.writer(file).writerows([["method", "k", "start", "score", "loss"], *rows])
