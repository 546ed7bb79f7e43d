"""Seal the records, ledgers and tables of a run, and check the signatures of the seal.

The seal is a list of digests in the format of sha256sum. Signatures are OpenSSH's own, as git's
are, and a file of allowed signers says whose key is whose:

    sha256sum --check results/demo/seal.txt
    ssh-keygen -Y verify -f FILE -I NAME -n ffmerge -s results/demo/seal.txt.1.sig < …/seal.txt
"""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path

from provenance.hashing import OMITTED, digests, read_bounded
from provenance.numbers import Ledger, read_ledgers
from provenance.project import PROJECT
from provenance.record import write_atomically
from provenance.records import Records, a_source_file
from provenance.text_format import counted

SEAL = "seal.txt"  # in a folder of results
NAMESPACE = "ffmerge"  # of the signatures; git's have another
MADE = "# sealed at "
MAX_FILES = 50_000  # of a seal; that of the collected demo has about 1,400
MOST_SIGNATURES, SIGNATURE_BYTES = 100, 1 << 16  # of a seal; ssh-keygen reads each three times
NOT_SEALED = {"__pycache__", ".snakemake", ".cache", ".git"}  # folders that later work leaves


@dataclass(frozen=True)
class Signature:
    """A signature of a seal. who: the signer's name; None if it is not good, for `reason`.

    reason: the key in ssh-keygen's words, or what is wrong.
    """

    file: Path
    who: str | None
    reason: str


@dataclass(frozen=True)
class Seal:
    """What was signed. made: when, in UTC by the signer's clock. files: path -> sha256."""

    made: datetime
    files: dict[str, str]

    @property
    def summary(self) -> str:
        """Count what it holds."""
        n_records = sum(path.endswith(".record.json") for path in self.files)
        n_ledgers = sum(path.endswith(".ledger.json") for path in self.files)
        others = counted(len(self.files) - n_records - n_ledgers, "other file")
        return f"{counted(n_records, 'record')}, {counted(n_ledgers, 'ledger')}, {others}"

    @property
    def on(self) -> str:
        """Format when it was made."""
        return f"{self.made:%Y-%m-%d %H:%M} UTC"


def sealed_files(records: Records, ledgers: Iterable[Ledger]) -> set[str]:
    """Return the paths that everything else follows from: records, ledgers, tables and figures.

    Records hold the digests of all inputs, outputs and code.
    """
    shown = {path for ledger in ledgers for path in (str(ledger.file), *ledger.about)}
    return {*shown, *map(str, records.by_file)}


def digest_of_records(recorded: Iterable[str | None]) -> str:
    """Return the digest over all records' digests, which the report page shows."""
    return sha256("\n".join(sorted(map(str, recorded))).encode()).hexdigest()


def sign(key: Path, records: Records) -> tuple[Seal, Path]:
    """Seal a run and sign the seal; in a collected folder, all its files.

    A seal that still holds gets one more signature; another is replaced, with its signatures.
    key: a private SSH key, or a public one whose private one an agent has.
    Raises ValueError in ssh-keygen's words if it cannot sign, and leaves the old seal.
    """
    root, file = records.root, records.root / records.results / SEAL
    paths = sealed_files(records, read_ledgers(records.results, root)[0])
    whole = paths | _all_files(root) if (root / OMITTED).is_file() else paths
    text = read_bounded(file) if os.path.lexists(file) else b""
    old = read(text) if text else None
    again = old is not None and paths <= old.files.keys() and not _differing(old, root)
    if not again:
        text = _seal(records, sorted(whole)).encode()
    signature = ssh_keygen("sign", "-n", NAMESPACE, "-f", key, reads=text)
    if not again:
        for signed in signature_files(file):
            signed.unlink()
        write_atomically(file, text)
    known = {signed.read_bytes(): signed for signed in signature_files(file)}
    names = (file.with_name(f"{SEAL}.{n}.sig") for n in count(1))
    new = next(name for name in names if not os.path.lexists(name))
    if signature not in known:
        write_atomically(new, signature)
    return read(text), known.get(signature, new)


def _seal(records: Records, paths: Sequence[str]) -> str:
    own = records.maker(records.results / PROJECT.page)  # the page shows what was before it
    digest = digest_of_records(
        record.content.get("digest") for record in records.by_file.values() if record is not own
    )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    hashed = digests(str(records.root / path) for path in paths).of
    lines = [f"{hashed[str(records.root / path)]}  {path}" for path in paths]
    for path, line in zip(paths, lines, strict=True):
        if not _pair(line):
            raise ValueError(f"{path!r} is no file that can be listed, so nothing is signed")
    head = [f"{MADE}{now}", f"# seal on the report page: {digest}"]
    return "\n".join([*head, *lines, ""])


def _pair(line: str) -> tuple[str, str] | None:
    """Return path and sha256 of a line; None if it has another form."""
    digest, _, path = line.partition("  ")
    fits = re.fullmatch(r"[0-9a-f]{64}", digest) and a_source_file(path)
    return (path, digest) if fits else None


def _all_files(root: Path) -> set[str]:
    found = set()
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if each not in NOT_SEALED]
        found |= {str((Path(folder) / file).relative_to(root)) for file in files}
    return {path for path in found if not Path(path).name.startswith(SEAL)}


def _differing(seal: Seal, root: Path) -> bool:
    if not all((root / path).exists() for path in seal.files):  # before a long list is hashed
        return True
    found = digests(str(root / path) for path in seal.files).of
    return any(found[str(root / path)] != digest for path, digest in seal.files.items())


def read(text: bytes) -> Seal:
    """Parse a seal. Raises ValueError if it has a line of another form, or too many."""
    first, *lines = text.decode().rstrip("\n").split("\n")
    if len(lines) > MAX_FILES:
        raise ValueError(f"the seal {SEAL} has more than {MAX_FILES:,} lines")
    pairs = [_pair(line) for line in lines if not line.startswith("#")]
    if not all(pairs):
        raise ValueError("the seal has a line that is not a digest and a path")
    return Seal(_made(first), dict(pairs))


def _made(line: str) -> datetime:
    with suppress(ValueError, OverflowError):
        if line.startswith(MADE):
            return datetime.fromisoformat(line.removeprefix(MADE)).astimezone(UTC)
    raise ValueError("the seal does not begin with when it was made")


def signature_files(seal: Path) -> list[Path]:
    """List the files with signatures of a seal. Raises ValueError if they are too many or large."""
    files = sorted(file for file in seal.parent.glob(f"{SEAL}.*.sig") if file.is_file())
    if len(files) > MOST_SIGNATURES:
        raise ValueError(f"{seal} has more than {MOST_SIGNATURES} signatures: remove some")
    if large := [file for file in files if file.stat().st_size > SIGNATURE_BYTES]:
        raise ValueError(f"{large[0]} is too large to be a signature: remove it")
    return files


def signatures(seal: Path, signers: Path) -> list[Signature]:
    """Check the signatures of a seal. signers: a file in OpenSSH's format of allowed signers.

    A key counts if the file allows it at the time that the seal names, as in git.
    Raises ValueError if the file of signers is not there, or there is no ssh-keygen.
    """
    if not signers.is_file():
        raise ValueError(f"{signers} is not there: name a file of allowed signers (man ssh-keygen)")
    if not os.path.lexists(seal):
        return []
    text = read_bounded(seal)
    return [_checked(file, text, signers) for file in signature_files(seal)]


def _checked(file: Path, text: bytes, signers: Path) -> Signature:
    common = ("-n", NAMESPACE, "-s", file)
    try:
        key = ssh_keygen("check-novalidate", *common, reads=text).decode().strip()
        key = key.partition("signature ")[2]  # with ED25519 key SHA256:…
        when = _made(text.partition(b"\n")[0].decode()).astimezone()
    except (ValueError, OverflowError):
        return Signature(file, None, "no signature of this seal")
    allowed = ("-f", signers, f"-Overify-time={when:%Y%m%d%H%M%S}")
    with suppress(ValueError):
        for who in ssh_keygen("find-principals", *allowed, *common[2:]).decode().splitlines():
            with suppress(ValueError):
                ssh_keygen("verify", *allowed, "-I", who, *common, reads=text)
                return Signature(file, who, key)
    return Signature(file, None, f"signed {key}, whom {signers} does not name for that time")


def ssh_keygen(action: str, *options: str | Path, reads: bytes = b"") -> bytes:
    """Run `ssh-keygen -Y` and return what it prints. Raises ValueError in its words if it fails."""
    command = ["ssh-keygen", "-Y", action, *map(str, options)]
    try:
        ran = subprocess.run(command, input=reads, capture_output=True)
    except FileNotFoundError:
        why = "signatures need OpenSSH's ssh-keygen, which is not here: install openssh-client"
        raise ValueError(why) from None
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").strip() or f"status {ran.returncode}"
        raise ValueError(f"ssh-keygen: {said.splitlines()[-1]}")
    return ran.stdout
