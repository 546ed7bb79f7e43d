"""Train an embedded base model from scratch, with its tokenizer or image processor."""

from provenance.job import Job
from experiment.base_model import train_base_model
from experiment.config.tasks import TrainedFromScratch
from ffmerge.training.trainer import write_curve

if __name__ == "__main__":
    with Job.from_command_line() as job:
        curve = train_base_model(
            job.params.task,
            TrainedFromScratch.model_validate(job.params.recipe),
            {"train": job.input.train, "validation": job.input.validation},
            job.output.model,
            job.checkpoints,
            seed=job.params.seed,
            device=job.params.device,
        )
        write_curve(curve, job.output.curve)
