"""Make Table 1: the costs and savings of each kind of compression, with measurements."""

from provenance.job import Job
from experiment.tables.layout import write_table
from experiment.tables.table1 import measured_tasks, table1

if __name__ == "__main__":
    with Job.from_command_line() as job:
        write_table(job, table1(measured_tasks(job)))
