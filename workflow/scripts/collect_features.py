"""Collect the feed-forward features of every layer in one forward pass (Section 3.3)."""

from provenance.job import Job
from experiment.tasks import task_of
from ffmerge.method.features import collect_features
from ffmerge.models import checkpoint

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_of(job)
        model = checkpoint.load(job.input.base_model, job.params.device)
        checkpoint.check_layers(model, job.params.n_layers)
        collect_features(
            model,
            job.progress(task.feature_batches()),
            task.settings.features.n_tokens,
            job.output.features,
            job.params.device,
            task.settings.features.aligned,
        )
