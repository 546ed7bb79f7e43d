"""Where a number comes from: the chain of jobs from data and base model to it.

    ffmerge trace results/demo/tables/table5.csv --row "ViT 4/12" --column Permute
    ffmerge trace table5:7:permute                 the same by its short name
    ffmerge trace results/demo/tables/table5.csv   the names of all numbers of a table or figure

Digests are sha256. Files up to 1 MB are hashed again on the way, `ffmerge verify` hashes all.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from provenance.numbers import Ledger, named, read_ledgers
from provenance.records import RESULTS, Evidence, configuration_files, results_of
from provenance.trace.chain import Chain
from provenance.trace.chain_text import as_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge trace`."""
    parser.add_argument("target", metavar="TARGET", help="a number's name, or a table or a figure")
    parser.add_argument("--row", help="its number, or words that stand in no other row")
    parser.add_argument("--column", help="its name")
    parser.add_argument("--results", type=Path, metavar="DIR", help=f"results, or {RESULTS}")
    parser.add_argument("--commands", action="store_true", help="each job's command line, too")
    parser.add_argument("--json", action="store_true", help="everything, for machines")


def run(options: argparse.Namespace) -> int:
    """Print the chain, or a table's numbers; 1 if any of the evidence is missing or altered."""
    results = options.results or results_of(options.target) or RESULTS
    ledgers, broken = read_ledgers(results)
    ledger = next((each for each in ledgers if _is(each, options.target)), None)
    if not ledgers or (ledger is None and ":" not in options.target):
        raise ValueError(_unanswered(options.target, results, ledgers, broken))
    if ledger and options.row is None and options.column is None:
        print(_listed(ledger, options.json))
        return 0
    chain = Chain(named(ledgers, options.target, options.row, options.column), Evidence(results))
    if options.json:
        print(json.dumps(chain.as_json(), indent=2, ensure_ascii=False))
    else:
        print(as_text(chain, options.commands))
    return 1 if chain.missing else 0


def _is(ledger: Ledger, target: str) -> bool:
    return str(Path(target)) in {ledger.name, str(ledger.file), *ledger.about}


def _listed(ledger: Ledger, as_json: bool) -> str:
    if as_json:
        names = [number.id for number in ledger.numbers]
        return json.dumps({"ledger": str(ledger.file), "numbers": names}, indent=2)
    return "\n".join(map(str, ledger.numbers))


def _unanswered(
    target: str, results: Path, ledgers: Sequence[Ledger], broken: Sequence[Path]
) -> str:
    """Why nothing answers for a target, and what to run so that something does."""
    path, known = Path(target), ", ".join(ledger.name for ledger in ledgers)
    name = path.name.partition(".")[0].removesuffix("_tidy").partition(":")[0]
    if unreadable := [file for file in broken if file.name.startswith(f"{name}.")]:
        why, made = f"{unreadable[0]} cannot be read", str(unreadable[0])
    elif path.is_file() and path.parent.name in ("tables", "figures"):
        wanted = [path.with_name(f"{name}.{kind}.json") for kind in ("ledger", "record")]
        gone = [str(file) for file in wanted if not file.is_file()]
        why = f"{target} was made without {' and '.join(gone) or 'a ledger that is about it'}"
        made = gone[0] if gone else target  # asked for the table, Snakemake would not miss these
    elif ledgers:
        return f"{target} is no table or figure with a ledger in {results}; these are: {known}"
    else:
        why, made = f"{results} has no ledgers, so nothing answers for any number", target
    if ":" in made:
        made = "everything"
    return f"{why}; made again with: {_command(made, results)}"


def _command(made: str, results: Path) -> str:
    """What makes a file, with the configuration whose results it is among."""
    said = re.compile(rf"^results:\s*['\"]?{re.escape(str(results))}/?['\"]?\s*$", re.MULTILINE)
    files = [file for file in configuration_files() if said.search(_text(file))]
    configuration = f" --configfile {files[0]}" if files else ""
    return f"snakemake {made} --cores all{configuration}"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
