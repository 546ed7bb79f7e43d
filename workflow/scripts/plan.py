"""Plan a whole run: jobs, hours, disk and memory of each rule, and the time on some GPUs."""

from ffmerge.config.faults import validated
from ffmerge.job import Job
from ffmerge.planning.dag import dry_run
from ffmerge.planning.plan import Plan, costed
from ffmerge.planning.rates import Rates, read_shapes
from ffmerge.planning.report import rows, text, write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        rates = Rates(job.input.rates)
        settings = validated(job.params.configuration)
        jobs = dry_run(job.params.configuration)
        plan = Plan(costed(jobs, settings, read_shapes(job.input.shapes), rates), rates)
        write_csv(rows(plan), job.output.table)
        job.output.text.write_text(text(plan))
