"""Collect the outputs of every feed-forward and attention sublayer (Section 5.5, Appendix C)."""

from provenance.job import Job
from experiment.tasks import task_of
from ffmerge.method.features import SUBLAYERS, collect_outputs
from ffmerge.models import checkpoint

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_of(job)
        model = checkpoint.load(job.input.base_model, job.params.device)
        checkpoint.check_layers(model, job.params.n_layers)
        collect_outputs(
            model,
            job.progress(task.feature_batches()),
            SUBLAYERS,
            task.settings.features.n_tokens,
            job.output.outputs,
            job.params.device,
        )
