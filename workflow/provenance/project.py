"""Name what is particular to this repository: its folders, files and configurations.

Only the jobs that plan and report a run import this module, so editing it reruns no others. The
image's own paths, which all jobs need, are in provenance.image.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from provenance import image
from provenance.hashing import read_bounded
from provenance.sources import REPOSITORY

MAX_KEYS = 1000  # of a mapping in a configuration
IMAGE_LOCK = image.LOCK.relative_to(REPOSITORY)


@dataclass(frozen=True)
class Project:
    """Names of this repository. All paths are relative to its root."""

    results: Path = Path("results/demo")  # of the default configuration
    snakefile: Path = Path("workflow/Snakefile")
    scripts: Path = Path("workflow/scripts")
    profile: Path = Path("workflow/profiles/default")
    page_template: Path = Path("workflow/report/page")
    columns: Path = Path("workflow/report/columns.yaml")  # what the columns of tables hold
    discrepancies: Path = Path("docs/discrepancies.md")
    citation: Path = Path("CITATION.cff")
    data_sources: Path = Path("resources/demo/sources.yaml")  # licences of the embedded data
    image_lock: Path = IMAGE_LOCK
    reproductions: Path = Path(".cache/reproduced")
    configurations: tuple[str, ...] = ("config/*.yaml", "config/examples/*.yaml")
    embedded_roots: tuple[str, ...] = ("resources/", "config/", "docs/")
    collected: tuple[str, ...] = (
        *("Snakefile", "workflow", "config", "envs", "containers", "docs", "Makefile"),
        *("pyproject.toml", "README.md", "LICENSE", "CITATION.cff"),
        *(".snakemake-workflow-catalog.yml", "resources/demo/README.md"),
        "resources/demo/sources.yaml",
    )
    page: str = "report.html"  # within a folder of results
    page_sections: tuple[str, ...] = ("claims", "comparison")  # ledgers with their own section
    further_tables: tuple[str, ...] = ("seeds", "sizes")  # on the page, after the numbered ones
    extra_targets: tuple[str, ...] = (  # not made by `everything`
        "tables/strategies.csv",
        "tables/sizes.csv",
    )
    run_parameters: tuple[str, ...] = ("seed", "device")  # of a task's jobs, but not the task's
    origins: tuple[tuple[str, str], ...] = (  # part of an embedded path -> kind of origin
        ("/models/", "base model"),
        ("/data/", "data"),
        ("/paper_reported/", "paper's numbers"),
    )

    def embeds(self, path: str) -> bool:
        """Return whether an input is part of the repository, and so needs no record."""
        return path.startswith(self.embedded_roots)

    def kind_of_origin(self, path: str) -> str:
        """Return what kind of input this is, by its path."""
        if not self.embeds(path):
            return "from outside"
        return next((kind for part, kind in self.origins if part in path), "settings")


PROJECT = Project()


def configuration_files(root: Path = Path()) -> list[Path]:
    """List the configurations of a repository, and the files beside them with the same ending."""
    return [file for pattern in PROJECT.configurations for file in sorted(root.glob(pattern))]


def configurations_of(results: Path, root: Path = Path()) -> list[Path]:
    """List the configurations that write to a folder of results, leaving out unreadable files."""
    found = []
    for file in configuration_files(root):
        with suppress(ValueError):
            if Path(read_mapping(file).get("results", "")) == results:
                found.append(file)
    return found


class _Loader(yaml.SafeLoader):
    """Limits what `<<` merges, which can double with every line."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            raise ValueError(f"a mapping has more than {MAX_KEYS} keys")


def read_mapping(file: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values. Raises ValueError naming the file if it is none."""
    text = read_bounded(file)
    try:
        content = yaml.load(text, _Loader)
        if not isinstance(content, dict) or not isinstance(content.get("results", ""), str):
            raise ValueError("it holds no keys and values")
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    return content


def recorded_name(name: str) -> str:
    """Return what a user names as records name it: a path relative to the repository."""
    path = Path(name)
    for root in (Path.cwd(), Path(os.environ.get("PWD", "."))):  # a link may lead here
        if path.is_absolute() and path.is_relative_to(root):
            path = path.relative_to(root)
    return os.path.normpath(path) if name else name


def recorded_folder(name: str) -> Path:
    """Return a folder that a user names as records name it."""
    return Path(recorded_name(name))


def add_results_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a folder of results."""
    text = f"results, or {PROJECT.results}"
    parser.add_argument("--results", type=recorded_folder, metavar="DIR", help=text)


def add_configuration_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the results and configuration a command is about."""
    parser.add_argument(
        "--results",
        type=recorded_folder,
        help=f"folder of results (default: the target's, or {PROJECT.results})",
    )
    parser.add_argument(
        "--configfile", type=Path, help="its configuration (default: the one in config/ that is)"
    )


def find_configuration(
    results: Path | None, file: Path | None, targets: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]]:
    """Return file and content of the configuration that made some targets or results.

    Raises ValueError if no file in config/ writes there, if several different ones do, if the file
    named writes elsewhere, and for a file that cannot be read.
    """
    if not PROJECT.snakefile.exists():
        raise ValueError("this has to run at the top of the repository, beside workflow/")
    if file:
        content = {"results": str(PROJECT.results)} | read_mapping(file)
        if results and recorded_folder(content["results"]) != results:
            other = content["results"]
            raise ValueError(f"{file} writes to {other}, not to {results}: name one with --results")
        return file, content
    known = {each: read_mapping(each) for each in configuration_files()}
    known = {each: content for each, content in known.items() if {"tasks", "results"} <= {*content}}
    results = results or _innermost(targets, [Path(each["results"]) for each in known.values()])
    fitting = {each: known[each] for each in known if Path(known[each]["results"]) == results}
    first = next(iter(fitting.items()), None)
    if first and all(content == first[1] for content in fitting.values()):
        return first
    others = f"none of {', '.join(map(str, known))}" if known else "no configuration here"
    names = ", ".join(map(str, fitting)) or others
    raise ValueError(f"{names} may write to {results}: name the one with --configfile")


def _innermost(targets: Sequence[str], folders: Iterable[Path]) -> Path:
    """Return the innermost folder of results with a target: results/demo lies in results."""
    holding = [
        folder for folder in folders if any(folder in Path(target).parents for target in targets)
    ]
    return max(holding, key=lambda folder: len(folder.parts), default=PROJECT.results)
