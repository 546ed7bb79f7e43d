"""Make the report page: all tables and figures in one file, each number with its lineage."""

from pathlib import Path

from provenance.job import Job
from provenance.page.command import checked_on_disk, write_page

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = Path(job.wildcards.results)
        write_page(job.output.page, results, checked_on_disk(results))
