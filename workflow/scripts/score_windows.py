"""Score windows of merged feed-forward sublayers before tuning (Section 3.4, Algorithm 1)."""

import csv

from experiment.tasks import task_for
from experiment.variants import Candidate
from ffmerge.method import groups
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import load_permutations
from ffmerge.method.tie import untouched
from ffmerge.models import checkpoint
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        device = job.params.device
        task = task_for(job.params.task, job.input.base_model, {"validation": job.input.validation})
        model = checkpoint.load(job.input.base_model, device)
        permutations = load_permutations(job.input.permutations)
        rows = []
        for method, k, start in job.progress([Candidate(*c) for c in job.params.candidates]):
            window = groups.window(permutations, start, k, job.params.anchor)
            aligned = permutations if method == "permute" else None
            with untouched(model):
                merge_in_model(model, window, aligned)
                result = task.evaluate(model, "validation", device)
            rows.append([method, k, start, result.score, result.loss])
        with job.output.scores.open("w", newline="") as file:
            csv.writer(file).writerows([["method", "k", "start", "score", "loss"], *rows])
