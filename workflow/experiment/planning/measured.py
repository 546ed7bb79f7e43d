"""The plan's rates, as a finished run measured them on this machine's processor.

    python -m experiment.planning.measured results/rehearsal            # beside those in rates.yaml
    python -m experiment.planning.measured results/rehearsal --write    # and put there

What a run on a processor cannot tell, all that is of a GPU above all, stays as it is and is listed.
The exit status is 1 where a stage of the run broke one of its bars (experiment.planning.stages).
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment.planning.rates import Rates
from experiment.planning.stages import broken, paths_of, size_on_disk
from experiment.tables.layout import as_text
from provenance.record import read_record

RATES = Path("config/planning/rates.yaml")
ALONE, TABLES = "alignment_alone.json", ("stages.csv", "stages_alignment.csv")
INT32 = 4  # bytes of a token
Value = float | dict[int, float]


def measured(results: Path) -> dict[str, tuple[Value, str]]:
    """Name of a rate -> its value and how it was measured.

    Of the products and of centring, those of the widest features. Raises FileNotFoundError where
    the run did not measure its alignment.
    """
    files = sorted(results.glob(f"*/{ALONE}"))
    if not files:
        raise FileNotFoundError(f"{results} has no */{ALONE}: `make rehearsal` makes it")
    alone = sorted((json.loads(file.read_text()) for file in files), key=lambda of: of["d_ff"])
    record = read_record(files[0].with_suffix(".record.json"))
    where = f"{alone[-1]['threads']} threads of {record['machine']['cpu'] or 'a processor'}"
    widest, seconds = alone[-1], alone[-1]["seconds_a_pair"]
    n_tokens, d_ff = widest["n_tokens"], widest["d_ff"]
    features = f"{n_tokens:,} × {d_ff} features, {where}, float32"
    found: dict[str, tuple[Value, str]] = {
        "matrix_product": (
            2 * n_tokens * d_ff**2 / seconds["product"],
            f"correlation of {features}",
        ),
        "centring": (n_tokens * d_ff / seconds["centring"], f"centred and scaled, {features}"),
        "assignment": (
            # of those that are solved at once, each had its share of the time
            {of["d_ff"]: of["seconds_a_pair"]["assignment"] * of["threads"] for of in alone},
            f"scipy on one core, as many at once as {where}",
        ),
    }
    for file in results.glob("*/dataset/train_tokens.record.json"):
        record = read_record(file)
        (tokens,) = paths_of(record["output"])
        work = record["time"]["seconds"] - record["time"]["record_seconds"]
        found["text_tokens"] = (
            size_on_disk(tokens) / INT32 / work,
            "a byte-level BPE's fast tokenizer on one core, with reading the text",
        )
    if rates := _digested(results):
        found["read"] = (
            statistics.median(rates),
            "inputs and outputs of over 1 GB, read with their sha256, most of them from memory",
        )
    return found


def _digested(results: Path) -> list[float]:
    """Bytes a second at which the large files of each job were read for its record."""
    rates = []
    for file in results.rglob("*.record.json"):
        record = read_record(file)
        paths = [path for files in ("input", "output") for path in paths_of(record[files])]
        size = sum(size_on_disk(path) for path in paths if path.exists())
        if size > 1e9:
            rates.append(size / record["time"]["record_seconds"])
    return rates


def compared(found: Mapping[str, tuple[Value, str]], rates: Rates) -> list[dict[str, str]]:
    """A row a rate: what the plan reckons with, and what was measured, if anything."""
    return [
        {
            "rate": name,
            "unit": entry["unit"],
            "planned with": _number(entry["value"]),
            "which is": entry["source"].split(";")[0],
            "measured here": _number(found[name][0]) if name in found else "",
        }
        for name, entry in rates.entries.items()
    ]


def replaced(content: str, found: Mapping[str, tuple[Value, str]]) -> str:
    """The file of rates with the measured ones in it; every other line is as it was."""
    for name, (value, how) in found.items():
        pattern = rf"(?m)^(  {name}:\n    value: ).*(\n    unit: .*\n    source: ).*$"
        content, n = re.subn(pattern, rf"\g<1>{_number(value)}\g<2>measured; {how}", content)
        if n != 1:
            raise ValueError(f"{RATES} has no rate {name} of the usual form")
    return content


def _number(value: Any) -> str:
    """A value with three digits, as YAML reads it: `2.1e+11` has a point."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_number(each)}" for key, each in value.items()) + "}"
    if 0.01 <= value < 1e4:
        return f"{value:.3g}"
    return f"{value:.2e}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="directory of a finished rehearsal's results")
    parser.add_argument("--rates", type=Path, default=RATES, help=f"by default {RATES}")
    parser.add_argument("--write", action="store_true", help="put what was measured into the file")
    options = parser.parse_args(arguments)
    try:
        found = measured(options.results)
        rows = compared(found, Rates(options.rates))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_text(rows))
    if options.write:
        options.rates.write_text(replaced(options.rates.read_text(), found))
        print(f"{options.rates}: {len(found)} rates are now those that were measured.")
    lines = broken(options.results / name for name in TABLES)
    print("\n".join(f"broken: {line}" for line in lines) or "Every bar is kept.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
