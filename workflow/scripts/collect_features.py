"""Collect the feed-forward features of every layer in one forward pass (Section 3.3)."""

from ffmerge import checkpoint
from ffmerge.features import collect_features
from ffmerge.job import Job
from ffmerge.tasks import task_for

if __name__ == "__main__":
    with Job.from_command_line() as job:
        data = {"validation": job.input.validation}
        task = task_for(job.task, job.input.base_model, data)
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
