"""Plan a whole run: jobs, hours and disk of each rule and task, and the longest path."""

from provenance.job import Job
from experiment.plan import job_table, plan_text, rates_for, summarize
from provenance.dag import dry_run

if __name__ == "__main__":
    with Job.from_command_line() as job:
        rates = rates_for(job.params.configuration, job.input.rates)
        jobs = dry_run(job.params.configuration)
        table = summarize(job_table(jobs, rates), ["rule", "task"])
        table.to_csv(job.output.table, index=False)
        job.output.text.write_text(plan_text(jobs, rates))
