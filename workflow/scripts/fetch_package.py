"""Download a package file by name, with the registry's ordinary client, and check its digest."""

from provenance.job import Job
from experiment.inputs.packages import fetch_package

if __name__ == "__main__":
    with Job.from_command_line() as job:
        fetch_package(**vars(job.params), destination=job.output.package)
