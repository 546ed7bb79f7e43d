"""Compare what a finished rehearsal took with the plan's rates, and list limits that it exceeded.

    python benchmarks/rehearsal_rates.py results/rehearsal            # beside config/rates.yaml
    python benchmarks/rehearsal_rates.py results/rehearsal --write    # and put there

The rehearsal runs the paper's models on a processor. Jobs of the paper that need a GPU are not
among what it measures. The exit status is 1 if a stage exceeded its limit, 2 without a rehearsal.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiment.plan import RATES, Rate, Rates, find_rate, read_rates
from experiment.rehearsal import GB, Stage
from provenance.csv_files import read_csv
from provenance.record import read_record

PART = "paper"  # of config/rates.yaml
ALONE = "alignment_alone.json"

SAME_WORK = ("align_feed_forwards", "compute_cka", "compress")
"""Rules that do the same work on the same machine in the rehearsal and in config/paper.yaml."""


def broken(files: Iterable[Path]) -> list[str]:
    """List the rows of written tables that exceed their limit, each as a line."""
    return [
        " ".join(value for value in row.values() if value)
        for file in files
        for row in read_csv(file)
        if row["within"] == "no"
    ]


def measured_rates(results: Path) -> Rates:
    """Read rates of the rules in SAME_WORK from the records of a finished run.

    Raises FileNotFoundError if the run did not measure its alignment.
    """
    alone = {file.parent.name: json.loads(file.read_text()) for file in results.glob(f"*/{ALONE}")}
    if not alone:
        raise FileNotFoundError(f"{results} has no */{ALONE}: `make rehearsal` makes it")
    steps = "seconds a pair (centring + product + assignment): " + ", ".join(
        f"{task} {' + '.join(f'{step:.3g}' for step in times['seconds_a_pair'].values())}"
        for task, times in sorted(alone.items())
    )
    rates = {}
    for file in sorted(results.rglob("*.record.json")):
        record = read_record(file)
        if record["rule"] in SAME_WORK:
            stage, machine = Stage.of(record), record["machine"]
            threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
            source = f"measured; {threads} of {machine['cpu'] or 'a processor'}"
            if record["rule"] == "align_feed_forwards":
                source = f"{source}, {steps}"
            seconds = stage.start_up_seconds + stage.seconds + stage.record_seconds
            rate = Rate(round(seconds, 1), round(stage.disk / GB, 4), source)
            rates[stage.rule, stage.task] = rate
    return rates


def replaced(content: str, rates: Rates) -> str:
    """Put measured rates into the file of rates; every other line stays as it is.

    Raises ValueError naming a rate that the file lacks.
    """
    before, heading, part = content.partition(f"{PART}:\n")
    for (rule, task), rate in rates.items():
        row = f"{{seconds: {rate.seconds}, gb: {rate.gb}}}"
        quoted = json.dumps(rate.source, ensure_ascii=False)  # JSON is YAML
        for key, value in (("source", quoted), (task, row)):
            pattern = rf"(?m)(^    {rule}:\n(?:      .*\n)*?      {key}: ).*$"
            part, n = re.subn(pattern, lambda line, v=value: line[1] + v, part, count=1)
            if n != 1:
                raise ValueError(f"{RATES} has no rate {rule}, {key} in its part {PART}")
    return before + heading + part


def main(arguments: Sequence[str] | None = None) -> int:
    """Print planned and measured seconds, and the stages that exceed their limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="directory of a finished rehearsal's results")
    parser.add_argument("--rates", type=Path, default=RATES, help=f"by default {RATES}")
    parser.add_argument("--write", action="store_true", help="put what was measured into the file")
    options = parser.parse_args(arguments)
    try:
        rates, planned = measured_rates(options.results), read_rates(options.rates, PART)
        before = {key: find_rate(planned, *key) for key in rates}
        content = replaced(options.rates.read_text(), rates)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for (rule, task), old in before.items():
        seconds = f"{old.seconds:g} s ({old.basis}), here {rates[rule, task].seconds:g} s"
        print(f"{rule} {task}: planned {seconds}")
    if options.write:
        options.rates.write_text(content)
        print(f"{options.rates}: {len(rates)} rates replaced by measured ones.")
    lines = broken(options.results / name for name in ("stages.csv", "stages_alignment.csv"))
    print("\n".join(f"broken: {line}" for line in lines) or "Every bar is kept.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
