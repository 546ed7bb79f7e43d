"""Convert a pretrained model to float32 safetensors with the tensor names of transformers 5."""

from provenance.job import Job
from ffmerge.models.pretrained import convert

if __name__ == "__main__":
    with Job.from_command_line() as job:
        source = dict(vars(job.params))
        n_layers, architecture = source.pop("n_layers"), source.pop("architecture", None)
        convert(
            job.input.files,
            n_layers,
            job.output.model,
            job.checkpoints / "unpickled",
            source,
            architecture,
        )
