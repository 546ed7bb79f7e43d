"""Evidence for or against a claim: what was measured, its interval, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from experiment.claims.paired_tests import Scored, bound_test, spread_test, swap_test, widest
from experiment.evaluation.intervals import Values
from experiment.evaluation.metrics import metric_named


@dataclass(frozen=True)
class Evidence:
    """What one task's data say of one claim, before it is known how many claims are tested.

    ratio: third, half or all, where the claim is made at several. measured: what the claim is
    about, in `unit`; low, high: its bootstrap interval. The claim says that it is above the bound,
    or below it. n: test examples behind it, or layers. p: two-sided, of being on the side of the
    bound where it is. over: what was resampled. models: that were compared; files: that all this
    was computed from.
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
    def for_it(self) -> bool:
        """Whether what was measured is where the claim says, however sure that is."""
        return self.measured > self.bound if self.above else self.measured < self.bound


@dataclass(frozen=True)
class Settings:
    """How claims are tested.

    draws: random swaps, and bootstrap resamples; confidence: of intervals, and 1 - level of tests.
    """

    draws: int
    confidence: float
    seed: int

    def interval(self, resampled: Values) -> tuple[float, float]:
        """Percentile interval of a statistic from its resamples."""
        tail = 50 * (1 - self.confidence)
        low, high = numpy.percentile(resampled, [tail, 100 - tail])
        return float(low), float(high)


class TaskEvidence:
    """The evidence that one task's tested models give.

    label, metric: of the task. models: name -> Scored. margins: close, similar, equal -> bound, in
    the metric's unit. A gain is in the metric's own direction: fewer perplexity, more accuracy.
    """

    def __init__(
        self,
        label: str,
        metric: str,
        models: dict[str, Scored],
        margins: dict[str, float],
        settings: Settings,
    ) -> None:
        self.label, self.metric = label, metric_named(metric)
        self.models, self.margins, self.settings = models, margins, settings
        self.sign = 1 if self.metric.higher_is_better else -1

    def gains(self, claim: str, better: str, worse: str) -> Evidence:
        """One model scores better than another (swaps)."""
        p = swap_test(
            self.models[better], self.models[worse], self.settings.draws, self.settings.seed
        )
        compared = f"{better} against {worse}"
        return self._evidence(claim, (better, worse), compared, *self._gain(better, worse), p=p)

    def gain_grows(self, claim: str, more: tuple[str, str], less: tuple[str, str]) -> Evidence:
        """The first of one pair gains more on its second than that of another pair (bootstrap)."""
        (gain, gains), (smaller, smallers) = self._gain(*more), self._gain(*less)
        compared = "; ".join(f"{a} against {b}" for a, b in (more, less))
        return self._evidence(claim, (*more, *less), compared, gain - smaller, gains - smallers)

    def loses_less(self, claim: str, model: str, reference: str, margin: str) -> Evidence:
        """What a model loses on another is below a margin (bootstrap)."""
        return self._evidence(
            claim,
            (model, reference),
            f"{model} against {reference}",
            *self._gain(reference, model),
            bound=self.margins[margin],
        )

    def loses_less_than_curve(
        self,
        claim: str,
        model: str,
        curve: Sequence[str],
        reductions: dict[str, float],
        margin: str,
    ) -> Evidence:
        """What a model loses on a curve of others, at its own size, is below a margin (bootstrap).

        reductions: model -> parameters removed, %. Between two models of the curve the score is
        interpolated linearly; beyond its end it stays that of the smallest one, which spares that
        one what it would lose to get as small, and `compared` says so.
        Raises ValueError if two models of the curve are of the same size.
        """
        curve = sorted(curve, key=reductions.__getitem__)
        sizes, at = [reductions[name] for name in curve], reductions[model]
        if not all(numpy.diff(sizes) > 0):
            raise ValueError(f"a curve of {', '.join(curve)}: two of them have the same size")
        weights = numpy.array([numpy.interp(at, sizes, row) for row in numpy.eye(len(curve))])
        own, reference = self.models[model], [self.models[name] for name in curve]
        score = weights @ [each.score for each in reference]
        resampled = weights @ numpy.stack([each.resampled for each in reference])
        shares = [f"{w:.2f} {name}" for w, name in zip(weights, curve, strict=True) if w]
        compared = f"{model} against {' + '.join(shares)} at {at:.1f} % removed"
        if at > sizes[-1]:
            compared += f", beyond the curve, which ends at {sizes[-1]:.1f} %"
        loss, losses = self.sign * (score - own.score), self.sign * (resampled - own.resampled)
        return self._evidence(
            claim, (model, *curve), compared, loss, losses, bound=self.margins[margin]
        )

    def differ_less(self, claim: str, models: Sequence[str], bound: float) -> Evidence:
        """Any two of some models differ by less than a bound (bootstrap).

        The interval is that of the two furthest apart.
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
        """bound: that it has to be below; without one it has to be above 0."""
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
