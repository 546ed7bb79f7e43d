"""Score the groups that each strategy selects, before tuning, at the same number removed."""

import json

from provenance.job import Job
from experiment.tasks import task_of
from ffmerge.method import groups
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import load_permutations
from ffmerge.method.tie import temporary_changes
from ffmerge.models import checkpoint
from provenance.csv_files import write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        device = job.params.device
        task = task_of(job)
        model = checkpoint.load(job.input.base_model, device)
        aligned = job.params.method == "permute"
        permutations = load_permutations(*job.input.permutations) if aligned else None
        proposals = json.loads(job.input.groups.read_text())
        candidates = [(k, name) for k, strategies in proposals.items() for name in strategies]
        rows = []
        for k, strategy in job.progress(candidates):
            chosen = groups.from_layers(proposals[k][strategy], job.params.anchor)
            with temporary_changes(model):
                merge_in_model(model, chosen, permutations)
                result = task.evaluate(model, "validation", device)
            rows.append({"strategy": strategy, "k": k, "score": result.score, "loss": result.loss})
        write_csv(rows, job.output.scores)
