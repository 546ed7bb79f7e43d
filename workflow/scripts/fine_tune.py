"""Recovery fine-tuning of a compressed model (Section 3.4, Tables 6-8)."""

from provenance.job import Job
from experiment.tasks import task_of
from ffmerge.models import checkpoint
from ffmerge.training.processes import leave, run_on
from ffmerge.training.trainer import train, write_curve

if __name__ == "__main__":
    job = Job.from_command_line()
    devices = job.params.task["fine_tuning"]["devices"]
    run_on(devices, job.params.device)  # before anything is written
    with job:
        task = task_of(job)
        model = checkpoint.load(job.input.model)  # the trainer moves it to this process's device
        curve = train(
            model,
            task,
            task.settings.fine_tuning,
            job.checkpoints,
            seed=job.params.seed,
            device=job.params.device,
            workers=job.workers,
        )
        if job.writes:
            checkpoint.save(model, job.output.model)
            write_curve(curve, job.output.curve)
    leave()
