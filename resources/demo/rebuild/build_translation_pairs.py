"""Build the demo's sentence pairs from their packages, and check them against the shipped files."""

from corpora import REBUILD_ADVICE, write_split
from corpora.translation import build_splits, features
from experiment.inputs.packages import check_sha256
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        splits = build_splits(job.input.libreoffice_help_zh_cn, job.input.libreoffice_help_en_us)
        for split, rows in job.progress(splits.items(), description="write splits"):
            path = getattr(job.output, split)
            write_split(rows, features(), path)
            check_sha256(
                path, job.params.sha256[split], f"translation/{split}.parquet", REBUILD_ADVICE
            )
