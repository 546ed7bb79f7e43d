"""What a verification found, for people."""

from ffmerge.provenance.findings import Fault, Report

NAMED = 6  # numbers that a fault names; and so many more
REMARKS = 10


def as_text(report: Report) -> str:
    """Faults, the worst first, with the numbers they reach; remarks; a line of what was checked."""
    blocks = ["\n".join(_fault(fault)) for fault in report.faults]
    remarks = [f"note      {remark.what}: {remark.why}" for remark in report.remarks[:REMARKS]]
    if (more := len(report.remarks) - REMARKS) > 0:
        remarks.append(f"          and {more} more (--json has all)")
    blocks += ["\n".join(remarks)] * bool(remarks)
    return "\n\n".join([*blocks, "\n".join(_summary(report))])


def _fault(fault: Fault) -> list[str]:
    lines = [f"{fault.state:<9} {fault.what}", f"          {fault.why}"]
    expected, found = brief(fault.expected), brief(fault.found)
    lines.append(f"          expected {expected}, found {found}")
    if len(fault.records) > 1:
        lines.append(f"          of {len(fault.records)} jobs")
    lines.append(f"          reaches {_listed(fault.reaches)}")
    return lines


def _listed(numbers: tuple[str, ...]) -> str:
    if not numbers:
        return "no number"
    more = len(numbers) - NAMED
    return ", ".join(numbers[:NAMED]) + (f" and {more} more" if more > 0 else "")


def brief(value: object) -> str:
    """A value in few words; a digest by its first 12 digits."""
    if value is None:
        return "nothing"
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return value[:12]
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _summary(report: Report) -> list[str]:
    counts, states = report.counts, [report.state_of(name) for name in report.numbers]
    of_states = ", ".join(
        f"{states.count(state)} {'are ' * (state != 'holds')}{state}"
        for state in ("holds", "stale", "missing", "broken")
        if state in states
    )
    against = f"the jobs of {report.configuration}" if report.configuration else "no configuration"
    faults = f"{len(report.faults)} faults" if len(report.faults) != 1 else "1 fault"
    return [
        f"{faults}. Checked {counts.files} files ({_size(counts.bytes)}), {counts.records} "
        f"records, {counts.ledgers} ledgers, {counts.numbers} numbers "
        f"({of_states or 'none'}) against {against}, in {counts.seconds:.1f} s."
    ]


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError
