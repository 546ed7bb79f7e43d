"""All checks of a verification, over what it is about."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from provenance.hashing import Digests
from provenance.reach import Reach
from provenance.records import Evidence
from provenance.verify import file_checks, ledger_checks, record_checks, workflow_checks
from provenance.verify.findings import BROKEN, MISSING, Findings
from provenance.verify.scope import Scope
from provenance.verify.workflow_checks import Plan


def files_of(scope: Scope) -> Iterator[str]:
    """Everything that is to be hashed."""
    for record in scope.records:
        yield from filter(scope.holds, (*record.inputs, *record.outputs))
        yield from record_checks.named_files(record)
    for ledger in scope.ledgers:
        yield from filter(scope.holds, (*ledger.about, *ledger.content["files"]))


@dataclass(frozen=True)
class Checks:
    """What is checked, against what; each check adds to the findings."""

    scope: Scope
    evidence: Evidence
    plan: Plan
    digests: Digests
    reach: Reach
    findings: Findings

    def records(self) -> None:
        """Every record: its seal, the files it names, and the job that would write it now."""
        lock = record_checks.LOCKED_IMAGES
        locked = yaml.safe_load(lock.read_text()) if lock.is_file() else {}
        shows = {path: ledger for ledger in self.scope.ledgers for path in ledger.about}
        temporary, rest = self.plan.temporary, (self.digests, self.reach, self.findings)
        for record in self.scope.records:
            record_checks.check_record(record, self.digests, locked, self.reach, self.findings)
            for path in filter(self.scope.holds, record.inputs):
                file_checks.check_input(record, path, self.evidence, *rest)
            for path in filter(self.scope.holds, record.outputs):
                shown = shows.get(path)
                reached = ledger_checks.altered(shown, path) if shown else self.reach.of(path)
                file_checks.check_output(
                    record, path, self.digests, temporary, reached, self.findings
                )
            workflow_checks.check_job(record, self.plan, *rest)

    def ledgers(self) -> None:
        """Every ledger and every number."""
        for ledger in self.scope.ledgers:
            ledger_checks.check_ledger(ledger, self.evidence, self.digests, self.findings)
            ledger_checks.check_table(ledger, self.findings)
        for number in self.scope.numbers:
            ledger_checks.check_number(number, self.findings)

    def everything_else(self, unreadable: Iterable[Path]) -> None:
        """Records and ledgers that cannot be read, and files that no record speaks of."""
        for ledger in unreadable:
            every = [f"{ledger.name.partition('.')[0]}:*"]  # whatever they are
            why = "no ledger that can be read"
            self.findings.fault(ledger, why, "a ledger", None, BROKEN, every)
        orphans = list(file_checks.unanswered(self.evidence.results, self.evidence))
        for broken in self.evidence.broken:
            reached = self.reach.of(broken, *file_checks.beside(broken, orphans))
            why = "no record that can be read"
            self.findings.fault(broken, why, "a record", None, BROKEN, reached)
        made, why = self.plan.outputs, "no record says what made it"
        for path in orphans:
            by_a_job = path in made or any(str(above) in made for above in Path(path).parents)
            if by_a_job or not made:
                reached = self.reach.of(path)
                self.findings.fault(path, why, "a record", None, MISSING, reached)
            else:
                self.findings.remark(path, f"{why}, and no job of the workflow does")

    def workflow(self) -> None:
        """Whether there was a workflow to compare with."""
        plan = self.plan
        if plan.file and plan.fails:
            why = "the workflow cannot be planned"
            self.findings.fault(plan.file, why, "a dry run", plan.fails)
        elif not plan.file:
            why = f"not compared with what it would do now: {plan.skipped}"
            self.findings.remark("workflow", why)
