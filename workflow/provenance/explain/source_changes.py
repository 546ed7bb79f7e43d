"""Which source files of a job are others than they were when it ran, as far as it matters."""

import difflib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from provenance.records import Record
from provenance.sources import closure, code_digest

SCRIPTS = Path("workflow/scripts")


@dataclass(frozen=True)
class SourceChange:
    """A file whose code is another. hint: how much, and how to see it."""

    file: str
    hint: str


def changed_sources(record: Record) -> list[SourceChange]:
    """The files that ran in a job and whose code is another now; not those with new comments."""
    git = record.content.get("git") or {}
    commit, patch = git.get("commit", ""), git.get("patch", "")
    changes = [
        _change(file, digest, now, commit, patch)
        for file, digest in record.content["code"]["files"].items()
        if (now := _digest(file)) != digest
    ]
    found = [change for change in changes if change]
    return found or list(_not_loaded(record, commit))


def _digest(file: str) -> str | None:
    path = Path(file)
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@cache
def _change(
    file: str, digest: str, now: str | None, commit: str, patch: str
) -> SourceChange | None:
    """digest, now: of the file's bytes, then and now. Many jobs ask for the same."""
    if now is None:
        return SourceChange(file, "is gone")
    old = _as_it_was(file, digest, commit)
    if old is None:
        where = f"it was not in a commit ({patch})" if patch else "no commit has it as it was"
        return SourceChange(file, where)
    text, found_in = old
    new = Path(file).read_text()
    if _code(file, text) == _code(file, new):
        return None
    lines = list(difflib.ndiff(text.splitlines(), new.splitlines()))
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    return SourceChange(file, f"+{added} -{removed} lines: git diff {found_in[:10]} -- {file}")


def _as_it_was(file: str, digest: str, commit: str) -> tuple[str, str] | None:
    """Text of a file with a digest, and a commit that has it: the recorded one, or a later one."""
    later = _git("log", "--format=%H", "-50", "--", file) or b""
    for each in [commit, *later.decode().split()]:
        text = _git("show", f"{each}:{file}") if each else None
        if text is not None and sha256(text).hexdigest() == digest:
            return text.decode(), each
    return None


def _code(file: str, text: str) -> str:
    """Digest of its code alone, without comments and formatting."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(file).name)
        path.write_text(text)
        try:
            return code_digest([path])
        except SyntaxError:
            return text


def _not_loaded(record: Record, commit: str) -> Iterator[SourceChange]:
    """Changed files that the job could have reached, and did not load when it ran."""
    script = SCRIPTS / f"{record.content['rule']}.py"
    for path in closure(script, record.content.get("imports", [])):
        file = os.path.relpath(path)
        if file in record.content["code"]["files"] or file.startswith(".."):
            continue
        old = _git("show", f"{commit}:{file}") if commit else None
        if old is None:
            yield SourceChange(file, "is new")
        elif _code(file, old.decode()) != _code(file, path.read_text()):
            yield SourceChange(file, f"git diff {commit[:10]} -- {file}")


def _git(*arguments: str) -> bytes | None:
    # a clone may be another user's, such as a group's
    command = ["git", "-c", "safe.directory=*", *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
