"""Copy tables and figures with all that answers for them into one new folder: an RO-Crate.

The folder mirrors the repository: records of the whole ancestry, ledgers, tables, figures, the
files that numbers stand in, patches, the workflow, its configuration and locks. Weights, features
and data stay where they are and are named by their digests. ro-crate-metadata.json tells the same
as a Provenance Run Crate (Workflow Run RO-Crate), for other people's tools.

    ffmerge collect --to demo-crate             all tables and figures of results/demo
    ffmerge collect table5 --to table5-crate    one, with what it comes from
    cd demo-crate && ffmerge verify             what is in it; `trace` works there, too
"""

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

from provenance import omitted_files
from provenance.collect.collection import WORKFLOW, Collection, collection
from provenance.collect.crate import write_crate
from provenance.digest import sha256_of
from provenance.progress import progress
from provenance.records import RESULTS, Evidence, results_of

CHUNK_BYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge collect`."""
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="tables or figures; or all")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder to make")
    parser.add_argument("--results", type=Path, metavar="DIR", help=f"results, or {RESULTS}")
    parser.add_argument(
        "--weights", action="store_true", help="copy models, features and data, too"
    )


def run(options: argparse.Namespace) -> int:
    """Collect; 1 if something is missing or is not what its record says."""
    results = options.results or next(filter(None, map(results_of, options.targets)), RESULTS)
    targets = [each for each in options.targets if Path(each) != results]
    evidence = Evidence(results)
    chosen = collection(evidence, targets, options.weights)
    digests = collect(chosen, options.to)
    wrong = [f"missing: {name}" for name in chosen.missing]
    wrong += [f"not a record: {name}" for name in evidence.broken]
    wrong += [f"altered: {record.file}" for record in chosen.records if record.altered]
    wrong += [f"altered: {path}" for path in altered(chosen, digests)]
    for line in wrong:
        print(line, file=sys.stderr)
    copied = [file for file in options.to.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in copied)
    print(f"{len(chosen.records)} jobs, {len(copied)} files, {size / 1e6:.1f} MB in {options.to}")
    return 1 if wrong else 0


def collect(chosen: Collection, folder: Path) -> dict[str, str]:
    """Copy a collection into a folder that this makes, as an RO-Crate.

    Returns path -> sha256 of what is in it.
    Raises ValueError if the folder is there already or is in one that is collected from. If
    anything fails, no folder is left.
    """
    _require_new(chosen, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".partial.{os.getpid()}.{folder.name}")
    try:
        digests = {
            path: _copy(chosen.evidence.root / path, partial / path)
            for path in progress(chosen.files, desc="collecting")
        }
        left = {path: of for path, of in chosen.recorded.items() if path not in digests}
        omitted_files.write(partial, left)
        digests[str(omitted_files.LIST)] = sha256_of(partial / omitted_files.LIST)
        write_crate(chosen, partial, digests)
        _require_new(chosen, folder)  # os.replace would take an empty folder that came meanwhile
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digests


def altered(chosen: Collection, digests: dict[str, str]) -> list[str]:
    """The files that are not what their job left or found."""
    return [
        path
        for path, digest in digests.items()
        if path in chosen.recorded and digest != chosen.recorded[path]
    ]


def _require_new(chosen: Collection, folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"{folder} is there already; name a folder that is not")
    for name in (chosen.evidence.results, *WORKFLOW):
        if folder.resolve().is_relative_to((chosen.evidence.root / name).resolve()):
            raise ValueError(f"{folder} is in {name}, which is collected from; name one elsewhere")


def _copy(source: Path, copy: Path) -> str:
    """Copy a file or a directory, and give the digest of the bytes that were copied."""
    if source.is_dir():
        shutil.copytree(source, copy)
        return sha256_of(copy)
    copy.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as read, copy.open("wb") as written:
        while chunk := read.read(CHUNK_BYTES):
            digest.update(chunk)
            written.write(chunk)
    shutil.copymode(source, copy)
    return digest.hexdigest()
