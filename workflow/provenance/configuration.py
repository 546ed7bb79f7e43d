"""The configuration that a folder of results was made with, and what a target means in it."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from provenance.records import RESULTS, Evidence, configuration_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which commands that ask Snakemake know what they are about."""
    parser.add_argument(
        "--results", type=Path, help=f"folder of results (default: the target's, or {RESULTS})"
    )
    parser.add_argument(
        "--configfile", type=Path, help="its configuration (default: the one in config/ that is)"
    )


def find(
    results: Path | None, file: Path | None, targets: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]]:
    """File and content of the configuration that targets, or a folder of results, belong to.

    Raises ValueError if none in config/ writes there, or several different ones do.
    """
    if not Path("workflow/Snakefile").exists():
        raise ValueError("this has to run at the top of the repository, beside workflow/")
    if file:
        return file, yaml.safe_load(file.read_text())
    known = {each: yaml.safe_load(each.read_text()) for each in configuration_files()}
    known = {each: content for each, content in known.items() if "tasks" in content}
    results = results or _results_of(targets, [Path(each["results"]) for each in known.values()])
    found = {each: known[each] for each in known if Path(known[each]["results"]) == results}
    different = [content for content in found.values() if content != next(iter(found.values()))]
    if found and not different:
        return next(iter(found.items()))
    names = ", ".join(map(str, found)) or f"none of {', '.join(map(str, known))}"
    raise ValueError(f"{names} may write to {results}: name the one with --configfile")


def _results_of(targets: Sequence[str], folders: Iterable[Path]) -> Path:
    """The innermost folder of results that holds the targets: `results/demo` is in `results`."""
    holding = [
        folder for folder in folders if any(folder in Path(target).parents for target in targets)
    ]
    return max(holding, key=lambda folder: len(folder.parts), default=RESULTS)


def deployment(evidence: Evidence) -> list[str]:
    """Snakemake's options to run jobs where those of the records ran: in an image, or not.

    With the other choice every job would count as changed.
    """
    images = [
        (record.content.get("environment") or {}).get("image")
        for record in evidence.records.values()
    ]
    return ["--software-deployment-method", "apptainer"] if any(images) else []
