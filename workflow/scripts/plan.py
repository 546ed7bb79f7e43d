"""Plan a whole run: jobs, hours, disk and memory of each rule, and the time on some GPUs."""

from experiment.config.run import validated
from experiment.planning.plan import Plan, costed
from experiment.planning.rates import Rates, read_shapes
from experiment.planning.report import rows, text, write_csv
from provenance.dag import dry_run
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        rates = Rates(job.input.rates)
        settings = validated(job.params.configuration)
        jobs = dry_run(job.params.configuration)
        plan = Plan(costed(jobs, settings, read_shapes(job.input.shapes), rates), rates)
        write_csv(rows(plan), job.output.table)
        job.output.text.write_text(text(plan))
