"""Store a pretrained model as the project's own: float32 safetensors, names of transformers 5."""

from ffmerge.inputs.pretrained import convert
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        source = {key: value for key, value in vars(job.params).items() if key != "n_layers"}
        convert(
            job.input.files,
            job.params.n_layers,
            job.output.model,
            job.checkpoints / "unpickled",
            source,
        )
