"""Make Table 4: our method at 1/3, without and with LLM.int8()."""

from ffmerge.job import Job
from ffmerge.tables.layout import write_table
from ffmerge.tables.printing import printing_of
from ffmerge.tables.results import results_of, write_results
from ffmerge.tables.table4 import table4

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        storage = dict(zip(job.params.tasks, job.input.storage, strict=True))
        write_table(job, table4(results, storage, printing_of(job, table=4)))
