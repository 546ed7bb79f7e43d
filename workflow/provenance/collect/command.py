"""Copy tables and figures with all that answers for them into one new folder: an RO-Crate.

The folder mirrors the repository: records of the whole ancestry, ledgers, tables, figures, the
files that numbers stand in, patches, the workflow, its configuration and locks. Weights, features
and data stay where they are and are named by their digests. ro-crate-metadata.json tells the same
as a Provenance Run Crate (Workflow Run RO-Crate), for other people's tools.

    ffmerge collect --to demo-crate             all tables and figures of results/demo
    ffmerge collect table5 --to table5-crate    one, with what it comes from
    ffmerge collect --to DIR --sign KEY         signed by an SSH key (see `ffmerge sign`)
    ffmerge collect --paper --to run.zip --sign KEY    one archive for readers of a paper
    cd demo-crate && ffmerge verify             what is in it; `trace` works there, too
"""

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

from provenance.collect.collection import Collection, collection
from provenance.collect.crate import write_crate
from provenance.collect.paper import add_paper_parts
from provenance.digest import sha256_of
from provenance.hashing import OMITTED
from provenance.progress import progress
from provenance.project import PROJECT, add_results_argument, recorded_name
from provenance.records import Records, split_targets
from provenance.seal import sign
from provenance.text_format import counted, printable
from provenance.verify.command import require_unbroken

CHUNK_BYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge collect`."""
    help = "tables or figures; or all"
    parser.add_argument("targets", metavar="TARGET", nargs="*", type=recorded_name, help=help)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder to make")
    add_results_argument(parser)
    parser.add_argument(
        "--weights", action="store_true", help="copy models, features and data, too"
    )
    text = "make one .zip, with a README of one page and a dictionary of the tables' columns"
    parser.add_argument("--paper", action="store_true", help=text)
    text = "an SSH key to sign the digests of all files with"
    parser.add_argument("--sign", type=Path, metavar="KEY", help=text)


def run(options: argparse.Namespace) -> int:
    """Collect; return 1 if something is missing or is not what its record says."""
    results, targets = split_targets(options.targets, options.results)
    if options.paper and not (options.sign and options.to.suffix == ".zip"):
        raise ValueError("--paper makes a signed archive: it needs --to NAME.zip and --sign KEY")
    records = Records(results)
    chosen = collection(records, targets, options.weights)
    digests = collect(chosen, options.to, options.sign, options.paper)
    wrong = [f"missing: {name}" for name in chosen.missing]
    wrong += [f"not a record: {name}" for name in records.broken]
    wrong += [f"altered: {record.file}" for record in chosen.ancestry if record.altered]
    recorded = chosen.recorded
    wrong += [
        f"altered: {path}" for path in digests if recorded.get(path) not in (None, digests[path])
    ]
    kept = [f"outside the repository, not copied: {path}" for path in sorted(chosen.outside)]
    for line in kept + wrong:
        print(printable(line), file=sys.stderr)
    copied = [file for file in (options.to, *options.to.rglob("*")) if file.is_file()]
    size = f"{sum(file.stat().st_size for file in copied) / 1e6:.1f} MB"
    print(f"{len(chosen.ancestry)} jobs, {counted(len(copied), 'file')}, {size} in {options.to}")
    return 1 if wrong else 0


def collect(
    chosen: Collection, folder: Path, key: Path | None = None, paper: bool = False
) -> dict[str, str]:
    """Copy a collection into a new folder, as an RO-Crate. Return path -> sha256 of its content.

    key: an SSH key to sign all of it with. paper: make a zip archive instead, for readers of the
    paper.
    Raises ValueError if the folder exists or is in one that is collected from, or cannot be signed.
    If anything fails, no folder is left.
    """
    _require_new(chosen, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".partial.{os.getpid()}.{folder.name}")
    archive = partial.with_name(f"{partial.name}.zip")
    try:
        digests = {
            path: _copy(chosen.records.root / path, partial / path)
            for path in progress(chosen.files, desc="collecting")
        }
        omitted = sorted(chosen.recorded.items() - digests.items())
        lines = [f"{digest}  {path}\n" for path, digest in omitted if path not in digests]
        (partial / OMITTED).write_text("".join(lines))
        digests[str(OMITTED)] = sha256_of(partial / OMITTED)
        if paper:
            digests |= add_paper_parts(chosen, partial)
        write_crate(chosen, partial, digests)
        if key:
            require_unbroken(chosen.records.results, partial)
            sign(key, Records(chosen.records.results, partial))
        _require_new(chosen, folder)  # os.replace would take an empty folder made meanwhile
        if paper:
            shutil.make_archive(str(partial), "zip", partial)
        os.replace(archive if paper else partial, folder)
    except ValueError as error:  # of a copy: name the file itself
        raise ValueError(str(error).replace(f"{partial}/", "")) from None
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    return digests


def _require_new(chosen: Collection, folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"{folder} is there already; name a folder that is not")
    for name in (chosen.records.results, *PROJECT.collected):
        if folder.resolve().is_relative_to((chosen.records.root / name).resolve()):
            raise ValueError(f"{folder} is in {name}, which is collected from; name one elsewhere")


def _copy(source: Path, copy: Path) -> str:
    """Copy a file or a directory; return the digest of the bytes that were copied.

    Never opens a file that is there already: it was copied with its directory.
    """
    if copy.exists():
        return sha256_of(copy)
    if source.is_dir():
        shutil.copytree(source, copy)
        return sha256_of(copy)
    copy.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as read, copy.open("xb") as written:
        while chunk := read.read(CHUNK_BYTES):
            digest.update(chunk)
            written.write(chunk)
    shutil.copymode(source, copy)
    return digest.hexdigest()
