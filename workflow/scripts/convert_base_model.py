"""Store a pretrained model as the project's own: float32 safetensors, names of transformers 5."""

from ffmerge.models.pretrained import convert
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        given = dict(vars(job.params))
        n_layers, architecture = given.pop("n_layers"), given.pop("architecture", None)
        convert(
            job.input.files,
            n_layers,
            job.output.model,
            job.checkpoints / "unpickled",
            given,
            architecture,
        )
