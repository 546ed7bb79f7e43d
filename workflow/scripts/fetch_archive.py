"""Download the archive of a data set; a killed download is resumed."""

from provenance.job import Job
from experiment.inputs.download import download

if __name__ == "__main__":
    with Job.from_command_line() as job:
        download(
            job.params.url,
            job.output.archive,
            job.checkpoints,
            job.params.sha256,
            progress=job.progress,
        )
