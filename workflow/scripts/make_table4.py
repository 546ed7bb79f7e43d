"""Make Table 4: our method at 1/3, without and with LLM.int8()."""

from experiment.tables.layout import write_table
from experiment.tables.printing import printing_of
from experiment.tables.scores import results_of, write_results
from experiment.tables.table4 import table4
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        storage = dict(zip(job.params.tasks, job.input.storage, strict=True))
        write_table(job, table4(results, storage, printing_of(job, table=4)))
