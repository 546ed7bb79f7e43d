"""Convert a split of one's own, such as text or a table, to the Parquet that jobs read."""

from provenance.job import Job
from experiment.inputs.own_data import rows, schema
from experiment.inputs.parquet import write_shards

ROWS_A_GROUP, ROWS_A_FILE = 1000, 1_000_000

if __name__ == "__main__":
    with Job.from_command_line() as job:
        columns = job.params.columns
        found = job.progress(rows(job.input.data, columns))
        write_shards(found, schema(columns), job.output.files, ROWS_A_GROUP, ROWS_A_FILE)
