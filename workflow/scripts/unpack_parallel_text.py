"""Extract the sentence pairs of one split from an archive of line-aligned text."""

from provenance.job import Job
from experiment.inputs.parallel_text import pairs, schema
from experiment.inputs.parquet import write_shards

ROWS_A_GROUP, ROWS_A_FILE = 100_000, 10_000_000

if __name__ == "__main__":
    with Job.from_command_line() as job:
        sides = job.params.sides
        rows = job.progress(pairs(job.input.archive, job.params.member, sides))
        write_shards(rows, schema(sides), job.output.files, ROWS_A_GROUP, ROWS_A_FILE)
