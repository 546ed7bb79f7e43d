"""Score the base model without each window of layers, before tuning (Section 4.4)."""

from provenance.job import Job
from experiment.tasks import task_of
from experiment.variants import UNCOMPRESSED, Candidate
from ffmerge.method.layer_drop import without_layers
from ffmerge.method.windows import layers_of
from ffmerge.models import checkpoint
from provenance.csv_files import write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_of(job)
        model = checkpoint.load(job.input.base_model, job.params.device)
        rows = []
        for candidate in job.progress([Candidate(*c) for c in job.params.candidates]):
            layers = layers_of(candidate.start, candidate.k)
            scored = model if candidate == UNCOMPRESSED else without_layers(model, layers)
            result = task.evaluate(scored, "validation", job.params.device)
            rows.append({**candidate._asdict(), "score": result.score, "loss": result.loss})
        write_csv(rows, job.output.scores)
