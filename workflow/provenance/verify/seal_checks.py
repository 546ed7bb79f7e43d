"""Check who signed the seal of a run, and what differs from what they signed."""

from pathlib import Path

from provenance.hashing import digests
from provenance.numbers import Reach
from provenance.records import Record, Records
from provenance.seal import SEAL, Seal, Signature, read, sealed_files, signatures
from provenance.verify.checks import Scope
from provenance.verify.findings import BROKEN, MISSING, Findings


def check_seal(
    signers: Path, scope: Scope, records: Records, reach: Reach, findings: Findings
) -> list[str]:
    """Add to the findings what nobody vouches for. Return who signed what, a line a signature.

    signers: a file in OpenSSH's format of allowed signers. Nothing of a seal is believed before one
    of its signatures is good.
    """
    file = records.results / SEAL
    found = signatures(file, signers)
    good = [signature for signature in found if signature.who]
    every = [number.id for number in scope.numbers]
    if not good:
        for each in found or [Signature(file, None, "nobody signed these results")]:
            findings.fault(each.file, each.reason, "a signature", None, MISSING, every)
        return []
    for each in set(found) - set(good):
        findings.remark(each.file, each.reason)
    try:
        seal = read(file.read_bytes())
    except ValueError as error:
        findings.fault(file, str(error), "a seal", None, BROKEN, every)
        return []
    by = f"{' and '.join(dict.fromkeys(each.who for each in good))} signed on {seal.on}"
    _compare(seal, by, scope, records, reach, findings)
    return [f"{each.who} {each.reason}, on {seal.on}: {seal.summary}" for each in good]


def _compare(
    seal: Seal, by: str, scope: Scope, records: Records, reach: Reach, findings: Findings
) -> None:
    chosen = {path for path in seal.files if scope.holds(path)}
    for path, on_disk in digests(sorted(chosen)).of.items():
        if on_disk != seal.files[path]:
            state, why = BROKEN if on_disk else MISSING, f"not what {by}{_made(path, records)}"
            reaches = reach.numbers(path)
            findings.fault(path, why, seal.files[path], on_disk, state, reaches)
    for path in sorted(sealed_files(records, scope.ledgers) - seal.files.keys()):
        if scope.holds(path):
            why = f"not among what {by}{_made(path, records)}"
            findings.fault(path, why, "a digest", None, BROKEN, reach.numbers(path))


def _made(path: str, records: Records) -> str:
    """Say when the job ended that made what is there now, by its record."""
    record: Record | None = records.by_file.get(Path(path)) or records.maker(path)
    ended = record.part("time").get("ended") if record else None
    return f"; the job that made what is here ended at {ended}" if ended else ""
