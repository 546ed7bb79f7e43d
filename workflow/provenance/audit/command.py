"""Make a random sample of the numbers again, from data and base model, and say what follows.

A draw takes one of all jobs, each with the same chance, and then a number that comes from it, more
often one that few jobs make. The numbers are made again in a folder of their own, with nothing
reused, and judged as `ffmerge reproduce` judges them. The report says how many of all numbers may
still be wrong. The same seed draws the same numbers.

    ffmerge audit --sample 5 --seed 1
    ffmerge audit --sample 5 --seed 1 --resume     go on after a kill

What follows `--` is for Snakemake: `ffmerge audit --sample 5 --seed 1 -- --cores 1`.
"""

import argparse
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import fill
from typing import Any

from provenance.hashing import is_collected
from provenance.numbers import Number, numbers_of, read_ledgers
from provenance.project import find_configuration
from provenance.record import as_text, write_atomically
from provenance.records import Records
from provenance.reproduce.agreement import Agreement, Compared, Remade, made_files, remade
from provenance.reproduce.command import MARKS, add_run_arguments, make_again, say, seconds
from provenance.text_format import WIDTH, counted, duration
from provenance.verify.findings import natural

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Made:
    """Numbers that the same files, and so the same jobs, give. jobs: their record files."""

    targets: tuple[str, ...]
    jobs: frozenset[Path]
    numbers: Sequence[Number]


class Population:
    """All numbers of a run that recorded jobs make. others: ids of those that none makes."""

    def __init__(self, records: Records) -> None:
        self._records = records
        by_targets: dict[tuple[str, ...], list[Number]] = defaultdict(list)
        ledgers, _ = read_ledgers(records.results, records.root)
        every = numbers_of(ledgers)
        for number in every:
            with suppress(ValueError):  # no job makes it
                by_targets[tuple(made_files(number, records))].append(number)
        self.made = [
            Made(targets, jobs, sorted(numbers, key=lambda number: natural(number.id)))
            for targets, numbers in sorted(by_targets.items())
            if (jobs := frozenset(record.file for record in records.ancestry(*targets)))
        ]
        self.numbers = [number.id for made in self.made for number in made.numbers]
        self.others = sorted({number.id for number in every} - {*self.numbers})

    @cached_property
    def by_job(self) -> dict[Path, list[Made]]:
        """Record file -> what comes from its job."""
        by_job: dict[Path, list[Made]] = defaultdict(list)
        for made in self.made:
            for job in made.jobs:
                by_job[job].append(made)
        return dict(sorted(by_job.items()))

    def draw(self, n: int, seed: int) -> list[tuple[Made, Number]]:
        """Draw numbers, independently of each other, so that one may come twice."""
        generator, jobs = random.Random(seed), list(self.by_job)
        drawn = []
        for _ in range(n):
            made = self.by_job[generator.choice(jobs)]
            [chosen] = generator.choices(made, [1 / len(each.jobs) for each in made])
            drawn.append((chosen, generator.choice(chosen.numbers)))
        return drawn

    def seconds(self, jobs: Iterable[Path]) -> float:
        """Sum up the processor time of some jobs."""
        return seconds(self._records.by_file[job] for job in jobs)


def upper_bound(failures: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Return the largest share that so few failures in n draws leave possible (Clopper-Pearson).

    It is exact and one-sided: the share at which so few failures or fewer have the probability
    1 - confidence. Without failures it is 1 - (1 - confidence)^(1/n).
    """
    if failures == n:
        return 1.0

    def so_few(share: float) -> float:
        terms = (
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(share)
            + (n - k) * math.log1p(-share)
            for k in range(failures + 1)
        )
        return sum(map(math.exp, terms))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if so_few(middle) > 1 - confidence else (low, middle)
    return high


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge audit`."""
    text = "how many numbers to draw"
    parser.add_argument("--sample", type=_positive, required=True, metavar="N", help=text)
    text = "any whole number: decides which are drawn, so let somebody else choose it"
    parser.add_argument("--seed", type=int, required=True, help=text)
    add_run_arguments(parser)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number of draws")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Make the sample again and write the report; return 1 if a number is not as promised."""
    if is_collected():
        raise ValueError("this folder was collected, and an audit would execute it: use a clone")
    _, configuration = find_configuration(options.results, options.configfile)
    records = Records(Path(configuration["results"]))
    population = Population(records)
    if not population.made:
        old = configuration["results"]
        raise ValueError(f"{old} has no number that a recorded job makes: nothing to draw from")
    drawn = population.draw(options.sample, options.seed)
    targets = list(dict.fromkeys(target for made, _ in drawn for target in made.targets))
    name = f"audit-{options.sample}-{options.seed}"
    told = f"Drawn: {', '.join(number.id for _, number in drawn)}."
    again = make_again(options, configuration, records, name, targets, told)
    if isinstance(again, int):
        return again
    report = _report(options, population, drawn, *again)
    lines = "\n".join(_lines(report)) + "\n"
    folder = again[0].results
    write_atomically(folder / "audit.json", as_text(report).encode())
    write_atomically(folder / "audit.txt", lines.encode())
    print(as_text(report) if options.json else lines, end="")
    say(f"The report is {folder}/audit.txt; what was made again is beside it.")
    return int(report["failures"] > 0)


def _report(
    options: argparse.Namespace,
    population: Population,
    drawn: Sequence[tuple[Made, Number]],
    new: Records,
    compared: Compared,
    folders: tuple[str, str],
) -> dict[str, Any]:
    """Judge the drawn numbers. One that cannot be judged counts as not made again."""
    draws = [_draw(number, made, compared, folders) for made, number in drawn]
    failures = sum(draw["holds"] is not True for draw in draws)
    jobs = set().union(*(made.jobs for made, _ in drawn))
    first, every = population.seconds(jobs), population.seconds(population.by_job)
    again = new.by_file.values()
    took = seconds(again)
    return {
        "results": folders[0],
        "seed": options.seed,
        "draws": draws,
        "failures": failures,
        "confidence": CONFIDENCE,
        "at_most_wrong": upper_bound(failures, len(draws)),
        "numbers": len(population.numbers),
        "not_drawn": len(population.others),
        "jobs": {"made_again": len(new.by_file), "all": len(population.by_job)},
        "seconds": round(seconds(again, "seconds"), 1),
        "processor_seconds": {
            "now": round(took, 1),
            "in_the_first_run": round(first, 1),
            "for_all_numbers": round(every * took / first, 1) if first else None,
        },
    }


def _draw(
    number: Number, made: Made, compared: Compared, folders: tuple[str, str]
) -> dict[str, Any]:
    own = [each for each in compared if each[0] is None or each[0].old.file in made.jobs]
    verdicts = [agreement.holds for _, agreement in own]
    named = ((pair.new if pair else "a job", agreement) for pair, agreement in own)
    other = [f"{job}: {agreement.reason}" for job, agreement in named if not agreement.holds]
    try:
        result = remade(number, own, folders)
    except (OSError, ValueError) as error:
        result = Remade(None, None, number.cell["shown"], "–", Agreement(None, str(error)))
    verdicts.append(result.agreement.holds)
    return {
        "number": number.id,
        "shown": {"before": result.shown_before, "after": result.shown_after},
        "raw": {"before": repr(result.before), "after": repr(result.after)},
        "holds": False if False in verdicts else None if None in verdicts else True,
        "said": "; ".join([result.agreement.reason, *other]),
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Format the report: each draw, what follows, and the time."""
    draws, failures = report["draws"], report["failures"]
    n, seed = len(draws), report["seed"]
    yield f"Audit of {report['results']}: {counted(n, 'draw')} with seed {seed}"
    yield ""
    for draw in draws:
        texts = draw["shown"]["before"], draw["shown"]["after"]
        yield f"{MARKS[draw['holds']]:<4} {draw['number']}: {texts[0]} then, {texts[1]} now"
        yield f"     {draw['said']}"
    yield ""
    yield f"{n - failures} of {n} came out again as their rules promise."
    share, sure = f"{report['at_most_wrong']:.0%}", f"{report['confidence']:.0%} confidence"
    yield fill(
        f"At {sure}, at most {share} of the {report['numbers']} numbers that jobs make are not "
        "what the jobs give, each counted by its chance of being drawn: a job at random, then a "
        "number that comes from it, more often one that few jobs make (Clopper-Pearson bound of "
        "independent draws).",
        WIDTH,
    )
    if report["not_drawn"]:
        others = counted(report["not_drawn"], "number")
        yield f"Not drawn: {others} that no recorded job makes, such as copies of the paper's."
    jobs, times = report["jobs"], report["processor_seconds"]
    took, first = duration(times["now"]), duration(times["in_the_first_run"])
    made, elapsed = counted(jobs["made_again"], "job"), duration(report["seconds"])
    yield f"This took {made} {elapsed}: {took} of processor time, {first} in the first run."
    if times["for_all_numbers"] is not None:
        whole = duration(times["for_all_numbers"])
        yield f"All numbers would take {jobs['all']} jobs about {whole} of processor time."
