"""Fetch the Parquet files of one split from a hub repository, at its pinned commit."""

from provenance.job import Job, check_digest
from experiment.inputs.fetch import fetch_files, list_files, matching

if __name__ == "__main__":
    with Job.from_command_line() as job:
        repository, revision = job.params.repository, job.params.revision
        names = list_files(repository, revision, "dataset")
        chosen = matching(names, [job.params.path], f"{repository} at {revision}")
        files = fetch_files(
            repository, revision, "dataset", chosen, job.checkpoints, progress=job.progress
        )
        for name, file in files.items():
            target = job.output.files / name
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        if job.params.sha256 is not None:
            check_digest(job.output.files, job.params.sha256)
