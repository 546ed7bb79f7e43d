"""Score windows of merged feed-forward sublayers before tuning (Section 3.4, Algorithm 1)."""

from provenance.job import Job
from experiment.tasks import task_of
from experiment.tasks.task import joined
from experiment.variants import Candidate
from ffmerge.method.candidates import CandidateScorer
from ffmerge.method.declared import check_declared, logits_or_states
from ffmerge.method.permutation import load_permutations
from ffmerge.method.windows import window
from ffmerge.models import checkpoint
from provenance.csv_files import write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        device = job.params.device
        task = task_of(job)
        model = checkpoint.load(job.input.base_model, device)
        check_declared(model, lambda: logits_or_states(model, next(task.feature_batches()), device))
        permutations = load_permutations(job.input.permutations)
        candidates = [Candidate(*c) for c in job.params.candidates]
        merged = [
            (
                window(permutations, c.start, c.k, job.params.anchor),
                permutations if c.method == "permute" else None,
            )
            for c in candidates
        ]
        scores = CandidateScorer(model, one_pass=task.one_pass).scores(
            merged, task.to_score("validation"), lambda batch: task.scores(model, batch, device)
        )
        rows = []
        for candidate, of_batches in zip(candidates, scores, strict=True):
            result = task.evaluation("validation", joined(of_batches))
            rows.append({**candidate._asdict(), "score": result.score, "loss": result.loss})
        write_csv(rows, job.output.scores)
