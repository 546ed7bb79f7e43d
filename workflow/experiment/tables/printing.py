"""What the paper's tables of scores print for a result of ours."""

from collections.abc import Callable

from experiment.reported import printed_score, read_reported
from experiment.tables.scores import Result
from experiment.variants import BASE
from provenance.cells import Printed
from provenance.job import Job

Printing = Callable[[Result, str], Printed | None]  # for a result's quantity of scores.csv


def printing_of(job: Job, table: int) -> Printing:
    """What the paper's table prints for the results of a job that makes it."""
    reported, tasks = read_reported(job.input.reported), job.params.tasks

    def printing(result: Result, quantity: str) -> Printed | None:
        ratios = {k: name for name, k in tasks[result.task]["ratios"].items()}
        return printed_score(
            reported,
            table,
            quantity,
            task=result.task,
            method=result.method or BASE,
            ratio=ratios.get(result.k, ""),
            anchor=result.anchor or "",
            window=result.role or "",
            int8="yes" if result.int8 else "no",
        )

    return printing
