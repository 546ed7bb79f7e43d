"""What a verification found, for people."""

from provenance.text_format import counted
from provenance.verify.findings import BROKEN, HOLDS, MISSING, STALE, Fault, Report

NAMED = 6  # numbers that a fault names; and so many more
REMARKS = 10


def as_text(report: Report) -> str:
    """Faults, the worst first, with the numbers they reach; remarks; a line of what was checked."""
    blocks = ["\n".join(_fault(fault)) for fault in report.faults]
    remarks = [f"note      {remark.what}: {remark.why}" for remark in report.remarks[:REMARKS]]
    if (more := len(report.remarks) - REMARKS) > 0:
        remarks.append(f"          and {more} more (--json has all)")
    blocks += ["\n".join(remarks)] * bool(remarks)
    return "\n\n".join([*blocks, _summary(report)])


def _fault(fault: Fault) -> list[str]:
    lines = [f"{fault.state:<9} {fault.what}", f"          {fault.why}"]
    expected, found = brief(fault.expected), brief(fault.found)
    lines.append(f"          expected {expected}, found {found}")
    if len(fault.records) > 1:
        lines.append(f"          of {len(fault.records)} jobs")
    lines.append(f"          reaches {_listed(fault.reaches)}")
    return lines


def _listed(numbers: tuple[str, ...]) -> str:
    """Those of the paper's tables first: it is them that people know."""
    if not numbers:
        return "no number"
    order = sorted(numbers, key=lambda name: not name.startswith("table"))  # else as they come
    more = len(order) - NAMED
    return ", ".join(order[:NAMED]) + (f" and {more} more" if more > 0 else "")


def brief(value: object) -> str:
    """A value in few words; a digest by its first 12 digits."""
    if value is None:
        return "nothing"
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return value[:12]
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _summary(report: Report) -> str:
    counts, states = report.counts, [report.state_of(name) for name in report.numbers]
    of_states = ", ".join(
        f"{states.count(state)} {said}"
        for state, said in ((HOLDS, "hold"), (STALE, STALE), (MISSING, MISSING), (BROKEN, BROKEN))
        if state in states
    )
    against = f"the jobs of {report.configuration}" if report.configuration else "no configuration"
    return (
        f"{counted(len(report.faults), 'fault')}. Checked {counted(counts.files, 'file')} "
        f"({_size(counts.bytes)}), {counted(counts.records, 'record')}, "
        f"{counted(counts.ledgers, 'ledger')}, {counted(counts.numbers, 'number')} "
        f"({of_states or 'none'}) against {against}, in {counts.seconds:.1f} s."
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
