"""Make Table 6, 7 or 8: the hyperparameters that fine-tuning ran with, from its records."""

import json

from ffmerge.job import Job
from ffmerge.tables.hyperparameters import hyperparameters
from ffmerge.tables.layout import read_csv, write_table

if __name__ == "__main__":
    with Job.from_command_line() as job:
        records = [json.loads(file.read_text()) for file in job.input.records]
        curves = [read_csv(file) for file in job.input.curves]
        write_table(hyperparameters(records, curves), job.output.table, job.output.text)
