"""Make Table 6, 7 or 8: the hyperparameters of fine-tuning, from the records of its jobs."""

from functools import partial

from provenance.job import Job
from experiment.reported import printed_number, read_reported
from experiment.tables.layout import write_table
from experiment.tables.tables_6_to_8 import hyperparameters

if __name__ == "__main__":
    with Job.from_command_line() as job:
        where = read_reported(job.input.reported), "hyperparameters", job.wildcards.n
        printing = partial(printed_number, *where)
        write_table(job, hyperparameters(job.input.records, job.input.curves, printing))
