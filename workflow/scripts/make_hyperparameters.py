"""Make Table 6, 7 or 8: the hyperparameters that fine-tuning ran with, from its records."""

import csv
import json

from ffmerge.job import Job
from ffmerge.tables.hyperparameters import hyperparameters
from ffmerge.tables.layout import write_table

if __name__ == "__main__":
    with Job.from_command_line() as job:
        records = [json.loads(file.read_text()) for file in job.input.records]
        curves = []
        for file in job.input.curves:
            with file.open(newline="") as stream:
                curves.append(list(csv.DictReader(stream)))
        write_table(hyperparameters(records, curves), job.output.table, job.output.text)
