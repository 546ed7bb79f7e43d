"""Convert a split of one's own, such as text or a table, to the Parquet that jobs read."""

from itertools import chain

from provenance.job import Job
from experiment.inputs.own_data import rows, schema
from experiment.inputs.parquet import write_shards

ROWS_A_GROUP, ROWS_A_FILE = 1000, 1_000_000

if __name__ == "__main__":
    with Job.from_command_line() as job:
        columns = job.params.columns
        found = rows(job.input.data, columns, job.params.classes)
        first = next(found)  # there is one, or an error
        made = schema(columns, first)
        found = job.progress(chain([first], found))
        write_shards(found, made, job.output.files, ROWS_A_GROUP, ROWS_A_FILE)
