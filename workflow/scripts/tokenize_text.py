"""Tokenize the training text once for all models fine-tuned on it (Section 4.1)."""

from provenance.job import Job
from experiment.tasks import task_of

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_of(job)
        task.store_tokens("train", job.output.tokens)
