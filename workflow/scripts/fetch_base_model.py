"""Fetch the files of a pretrained model from a hub repository, at its pinned commit."""

from provenance.job import Job
from experiment.inputs.fetch import fetch_files, list_files
from experiment.inputs.model_files import model_files

if __name__ == "__main__":
    with Job.from_command_line() as job:
        repository, revision = job.params.repository, job.params.revision
        names = list_files(repository, revision, "model")
        chosen = model_files(names, f"{repository} at {revision}")
        files = fetch_files(
            repository, revision, "model", chosen, job.checkpoints, progress=job.progress
        )
        job.output.files.mkdir()
        for name, file in files.items():
            file.replace(job.output.files / name)
