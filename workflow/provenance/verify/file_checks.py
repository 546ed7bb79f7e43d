"""Whether the files on disk are what the jobs wrote and read, by the records."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from provenance.hashing import Digests
from provenance.reach import Reach
from provenance.records import Evidence, Record, embedded
from provenance.verify.findings import BROKEN, MISSING, Findings

NOT_OUTPUTS = {"logs", "patches"}  # folders in a folder of results that no job's outputs are in


def check_output(
    record: Record,
    path: str,
    digests: Digests,
    temporary: Collection[str],
    reaches: Iterable[str],
    findings: Findings,
) -> None:
    """A file that a job wrote. temporary: those that Snakemake removes when they were used."""
    made, found = record.outputs[path], digests.of[path]
    about = {"reaches": reaches, "record": record.file}
    if found is None and path in temporary:
        findings.remark(path, "removed after use, as the configuration says")
    elif found is None:
        findings.fault(path, f"what {record} wrote is gone", made, None, MISSING, **about)
    elif found != made:
        findings.fault(path, f"not what {record} wrote", made, found, **about)


def check_input(
    record: Record,
    path: str,
    evidence: Evidence,
    digests: Digests,
    reach: Reach,
    findings: Findings,
) -> None:
    """A file that a job read: what its maker wrote, or what the repository has."""
    read, found, maker = record.inputs[path], digests.of[path], evidence.maker(path)
    # of a table's job, only those numbers that the file has a part in
    about = {"reaches": reach.of(record.file) & reach.of(path), "record": record.file}
    if maker and path in maker.outputs:
        if maker.outputs[path] != read:
            why = f"{maker} wrote another version than {record} read"
            findings.fault(path, why, read, maker.outputs[path], **about)
    elif found is None:
        findings.fault(path, "what jobs read is gone", read, None, MISSING, **about)
    elif found != read:
        why = "not what jobs read" if not maker else f"not the record that {record} read"
        findings.fault(path, why, read, found, BROKEN, **about)
    if maker is None and not embedded(path):
        findings.fault(path, "no record says what made it", "a record", None, MISSING, **about)


def unanswered(results: Path, evidence: Evidence) -> Iterator[str]:
    """Files in a folder of results that no record speaks of, though a job must have made them."""
    made = {path for record in evidence.records.values() for path in record.outputs}
    known = evidence.records.keys() | set(evidence.broken)
    for path in _files(results):
        if path in known or str(path) in made:
            continue
        if not any(str(folder) in made for folder in path.parents):
            yield str(path)


def _files(results: Path) -> Iterator[Path]:
    """The files of outputs; hidden ones are those of a job that runs, or was killed."""
    others = _of_others(results)
    for path in sorted(results.rglob("*")):
        parts = path.relative_to(results).parts
        hidden = any(part.startswith(".") for part in parts) or NOT_OUTPUTS.intersection(parts)
        if path.is_file() and not hidden and not any(o in path.parents for o in others):
            yield path


def _of_others(results: Path) -> set[Path]:
    """Folders in this one that are results of their own, as results/demo is in results."""
    return {tables.parent for tables in results.glob("*/tables") if tables.is_dir()}


def beside(path: Path, files: Iterable[str]) -> list[str]:
    """Those of some files that lie in the folder of another."""
    return [file for file in files if Path(file).parent == path.parent]
