"""Make the report page: all tables and figures in one file, each number with its lineage."""

from pathlib import Path

from provenance.job import Job
from provenance.page.command import write_page
from provenance.verify.command import on_disk

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = Path(job.wildcards.results)
        # Snakemake has just made again what was out of date, and knows better than an edited file.
        write_page(job.output.page, results, on_disk(results))
