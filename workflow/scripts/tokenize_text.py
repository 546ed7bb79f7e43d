"""Tokenize the training text once for all models that are fine-tuned on it (Section 4.1)."""

from ffmerge.job import Job
from ffmerge.tasks import task_for

if __name__ == "__main__":
    with Job.from_command_line() as job:
        task = task_for(job.task, job.input.base_model, {"train": job.input.train})
        task.store_tokens("train", job.output.tokens)
