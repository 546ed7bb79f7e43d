"""Make Table 4: our method at 1/3, without and with LLM.int8()."""

import json

from ffmerge.job import Job
from ffmerge.tables.layout import write_table
from ffmerge.tables.results import results_of, write_results
from ffmerge.tables.table4 import table4

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        storage = {
            task: json.loads(file.read_text())
            for task, file in zip(job.params.tasks, job.input.storage, strict=True)
        }
        write_table(table4(results, storage), job.output.table, job.output.text)
        write_results(results, job.output.tidy)
