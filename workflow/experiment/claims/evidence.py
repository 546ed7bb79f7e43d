"""Measure the evidence for or against a claim: a value, its interval and its p-value."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from experiment.claims.paired_tests import Scored, bound_test, spread_test, swap_test, widest
from ffmerge.evaluation.intervals import Values
from ffmerge.evaluation.metrics import Metric


@dataclass(frozen=True)
class Evidence:
    """The evidence of one task on one claim, before correction for the number of claims.

    measured: the claimed quantity, in `unit`; low, high: its bootstrap interval. above: whether the
    claim puts it above the bound or below. n: number of test examples, or of layers. p: two-sided
    p-value of being on the measured side of the bound. ratio: third, half or all, for a claim about
    several. over: the units that were resampled. models: those compared; files: the sources.
    """

    claim: str
    task: str
    compared: str
    measured: float
    low: float
    high: float
    above: bool
    bound: float
    unit: str
    n: int
    p: float
    ratio: str = ""
    over: str = "test examples"
    models: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def supports_claim(self) -> bool:
        """Whether the measured value is on the claimed side, significantly or not."""
        return self.measured > self.bound if self.above else self.measured < self.bound


@dataclass(frozen=True)
class ResamplingSettings:
    """The settings of the tests.

    draws: number of random swaps and of bootstrap resamples; confidence: of intervals; tests have
    the level 1 - confidence.
    """

    draws: int
    confidence: float
    seed: int

    def interval(self, resampled: Values) -> tuple[float, float]:
        """Percentile interval of a statistic from its resamples."""
        tail = 50 * (1 - self.confidence)
        low, high = numpy.percentile(resampled, [tail, 100 - tail])
        return float(low), float(high)


@dataclass(frozen=True)
class TaskEvidence:
    """Evidence from one task's tested models.

    label, metric: of the task. models: name -> Scored. margins: close, similar, equal -> bound, in
    the metric's unit. A gain is positive if the score is better, whichever direction that is.
    """

    label: str
    metric: Metric
    models: dict[str, Scored]
    margins: dict[str, float]
    settings: ResamplingSettings

    @property
    def sign(self) -> int:
        """1 if higher scores are better, else -1."""
        return 1 if self.metric.higher_is_better else -1

    def gains(self, claim: str, better: str, worse: str) -> Evidence:
        """Test that one model scores better than another (swaps)."""
        settings, compared = self.settings, f"{better} against {worse}"
        p = swap_test(self.models[better], self.models[worse], settings.draws, settings.seed)
        return self._evidence(claim, (better, worse), compared, *self._gain(better, worse), p=p)

    def gain_grows(self, claim: str, more: tuple[str, str], less: tuple[str, str]) -> Evidence:
        """Test that one pair's first model gains more on its second than the other pair's."""
        (gain, gains), (smaller, smallers) = self._gain(*more), self._gain(*less)
        compared = "; ".join(f"{a} against {b}" for a, b in (more, less))
        return self._evidence(claim, (*more, *less), compared, gain - smaller, gains - smallers)

    def loses_less(self, claim: str, model: str, reference: str, margin: str) -> Evidence:
        """Test that a model loses less than a margin compared with another (bootstrap)."""
        compared, bound = f"{model} against {reference}", self.margins[margin]
        loss = self._gain(reference, model)
        return self._evidence(claim, (model, reference), compared, *loss, bound)

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
        merged, references = self.models[model], [self.models[name] for name in curve]
        score = weights @ [reference.score for reference in references]
        resampled = weights @ numpy.stack([reference.resampled for reference in references])
        shares = [f"{w:.2f} {name}" for w, name in zip(weights, curve, strict=True) if w]
        compared = f"{model} against {' + '.join(shares)} at {at:.1f} % removed"
        if at > sizes[-1]:
            compared += f", beyond the curve, which ends at {sizes[-1]:.1f} %"
        loss = self.sign * (score - merged.score)
        losses = self.sign * (resampled - merged.resampled)
        bound = self.margins[margin]
        return self._evidence(claim, (model, *curve), compared, loss, losses, bound)

    def differ_less(self, claim: str, models: Sequence[str], bound: float) -> Evidence:
        """Test that any two of some models differ by less than a bound (bootstrap).

        The interval is that of the two models furthest apart.
        """
        chosen = [self.models[name] for name in models]
        p = spread_test(chosen, bound)
        return self._evidence(claim, models, ", ".join(models), *widest(chosen), bound=bound, p=p)

    def _gain(self, better: str, worse: str) -> tuple[float, Values]:
        a, b = self.models[better], self.models[worse]
        return self.sign * (a.score - b.score), self.sign * (a.resampled - b.resampled)

    def _evidence(
        self,
        claim: str,
        models: Sequence[str],
        compared: str,
        measured: float,
        resampled: Values,
        bound: float | None = None,
        p: float | None = None,
    ) -> Evidence:
        """bound: upper bound of the claim; None for a claim that the value is above 0."""
        low, high = self.settings.interval(resampled)
        return Evidence(
            claim=claim,
            task=self.label,
            compared=compared,
            measured=float(measured),
            low=low,
            high=high,
            above=bound is None,
            bound=bound or 0.0,
            unit=self.metric.short_unit,
            n=len(next(iter(self.models.values())).columns),
            p=bound_test(resampled, bound or 0.0) if p is None else p,
            models=tuple(models),
        )
