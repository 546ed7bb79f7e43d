"""Measure the evidence for or against a claim: a value, its interval and its p-value."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from experiment.claims.paired_tests import bound_test, spread_test, widest
from ffmerge.evaluation.intervals import Scored


@dataclass(frozen=True)
class Evidence:
    """The evidence of one task on one claim, before correction for the number of claims.

    endpoint: what is compared, the task's metric or its loss. measured: the claimed quantity, in
    `unit`, as resampled. above: whether the claim puts it above the bound or below. p: two-sided
    p-value of being on the measured side of the bound. ratio: third, half or all, for a claim about
    several. models: those compared; files: the sources.
    """

    claim: str
    task: str
    endpoint: str
    compared: str
    measured: Scored
    above: bool
    bound: float
    unit: str
    p: float
    ratio: str = ""
    models: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def supports_claim(self) -> bool:
        """Whether the measured value is on the claimed side, significantly or not."""
        measured = self.measured.score
        return measured > self.bound if self.above else measured < self.bound


@dataclass(frozen=True)
class TaskEvidence:
    """Evidence from one task's tested models.

    label: of the task. endpoint: what their scores are, in which unit; higher_is_better: of them.
    models: name -> Scored. margins: close, similar, equal -> bound, in the unit. A gain is positive
    if the score is better, whichever direction that is.
    """

    label: str
    endpoint: str
    unit: str
    higher_is_better: bool
    models: dict[str, Scored]
    margins: dict[str, float]

    def gains(self, claim: str, better: str, worse: str) -> Evidence:
        """Test that one model scores better than another."""
        compared = f"{better} against {worse}"
        return self._evidence(claim, (better, worse), compared, self._gain(better, worse))

    def gain_grows(self, claim: str, more: tuple[str, str], less: tuple[str, str]) -> Evidence:
        """Test that one pair's first model gains more on its second than the other pair's."""
        growth = self._gain(*more).minus(self._gain(*less))
        compared = "; ".join(f"{a} against {b}" for a, b in (more, less))
        return self._evidence(claim, (*more, *less), compared, growth)

    def loses_less(self, claim: str, model: str, reference: str, margin: str) -> Evidence:
        """Test that a model loses less than a margin compared with another."""
        compared, loss = f"{model} against {reference}", self._gain(reference, model)
        return self._evidence(claim, (model, reference), compared, loss, self.margins[margin])

    def loses_less_than_curve(
        self,
        claim: str,
        model: str,
        curve: Sequence[str],
        reductions: dict[str, float],
        margin: str,
    ) -> Evidence:
        """Test that a model loses less than a margin compared with a curve of others at its size.

        reductions: model -> parameters removed, %. The curve is linear between its models. Beyond
        its smallest model it stays constant, in favour of the curve, and `compared` says so.
        Raises ValueError if two models of the curve have the same size.
        """
        curve = sorted(curve, key=reductions.__getitem__)
        sizes, at = [reductions[name] for name in curve], reductions[model]
        if not all(numpy.diff(sizes) > 0):
            raise ValueError(f"a curve of {', '.join(curve)}: two of them have the same size")
        weights = numpy.array([numpy.interp(at, sizes, row) for row in numpy.eye(len(curve))])
        losses = [self._gain(name, model) for name in curve]
        loss = Scored(
            float(weights @ [loss.score for loss in losses]),
            weights @ numpy.stack([loss.resampled for loss in losses]),
            weights @ numpy.stack([loss.left_out for loss in losses]),
            losses[0].over,
        )
        shares = [f"{w:.2f} {name}" for w, name in zip(weights, curve, strict=True) if w]
        compared = f"{model} against {' + '.join(shares)} at {at:.1f} % removed"
        if at > sizes[-1]:
            compared += f", beyond the curve, which ends at {sizes[-1]:.1f} %"
        return self._evidence(claim, (model, *curve), compared, loss, self.margins[margin])

    def differ_less(self, claim: str, models: Sequence[str], margin: str) -> Evidence:
        """Test that any two of some models differ by less than a margin.

        The interval is that of the two models furthest apart.
        """
        chosen, bound = [self.models[name] for name in models], self.margins[margin]
        p = spread_test(chosen, bound)
        return self._evidence(claim, models, ", ".join(models), widest(chosen), bound, p)

    def differ_less_than_before(
        self, claim: str, models: Sequence[str], before: Sequence[str]
    ) -> Evidence:
        """Test that the largest difference between some models is smaller than it was before.

        The pair furthest apart before may be another one than after.
        """
        was, now = (widest([self.models[name] for name in names]) for names in (before, models))
        compared = f"{', '.join(models)}: {was.score:.3g} before tuning, {now.score:.3g} after it"
        return self._evidence(claim, (*models, *before), compared, was.minus(now))

    def _gain(self, better: str, worse: str) -> Scored:
        if not self.higher_is_better:
            better, worse = worse, better
        return self.models[better].minus(self.models[worse])

    def _evidence(
        self,
        claim: str,
        models: Sequence[str],
        compared: str,
        measured: Scored,
        bound: float | None = None,
        p: float | None = None,
    ) -> Evidence:
        """bound: upper bound of the claim; None for a claim that the value is above 0."""
        return Evidence(
            claim=claim,
            task=self.label,
            endpoint=self.endpoint,
            compared=compared,
            measured=measured,
            above=bound is None,
            bound=bound or 0.0,
            unit=self.unit,
            p=bound_test(measured, bound or 0.0) if p is None else p,
            models=tuple(models),
        )
