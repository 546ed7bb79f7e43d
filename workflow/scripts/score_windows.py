"""Score windows of merged feed-forward sublayers before tuning (Section 3.4, Algorithm 1)."""

from provenance.job import Job
from experiment.tasks import task_for
from experiment.variants import Candidate
from ffmerge.method import groups
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import load_permutations
from ffmerge.method.tie import temporary_changes
from ffmerge.models import checkpoint
from provenance.csv_files import write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        device = job.params.device
        task = task_for(job.params.task, job.input.base_model, {"validation": job.input.validation})
        model = checkpoint.load(job.input.base_model, device)
        permutations = load_permutations(job.input.permutations)
        rows = []
        for candidate in job.progress([Candidate(*c) for c in job.params.candidates]):
            window = groups.window(permutations, candidate.start, candidate.k, job.params.anchor)
            aligned = permutations if candidate.method == "permute" else None
            with temporary_changes(model):
                merge_in_model(model, window, aligned)
                result = task.evaluate(model, "validation", device)
            rows.append({**candidate._asdict(), "score": result.score, "loss": result.loss})
        write_csv(rows, job.output.scores)
