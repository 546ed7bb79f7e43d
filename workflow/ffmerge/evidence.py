"""Evidence for or against a claim: a difference, its interval and its p-value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from ffmerge.evaluation import metric_named
from ffmerge.paired_tests import Scored, Values, share_at_most, sign_test, spread, swap_test


@dataclass(frozen=True)
class Evidence:
    """What one claim says of one task, before it is known how many tests there are.

    difference, low, high: how far the data are on the claim's side of its bound (in `unit`, above 0
    is for the claim), with its interval. n: examples behind it.
    """

    claim: str
    task: str
    compared: str
    bound: str
    difference: float
    low: float
    high: float
    unit: str
    n: int
    p: float


@dataclass(frozen=True)
class Settings:
    """How claims are tested. swaps: random swaps and resamples; confidence: of intervals."""

    swaps: int
    confidence: float
    seed: int


class TaskClaims:
    """The claims about one task's tested models.

    label, metric: of the task. models: name -> Scored. margins: close, similar, equal -> bound.
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

    def better(self, claim: str, better: str, worse: str) -> Evidence:
        """One model scores better than another (swaps)."""
        a, b = self.models[better], self.models[worse]
        p = swap_test(a, b, self.sign, self.settings.swaps, self.settings.seed)
        gain, gains = self.sign * (a.score - b.score), self.sign * (a.resampled - b.resampled)
        return self._evidence(claim, f"{better} against {worse}", "", gain, gains, p)

    def gap_grows(self, at_all: tuple[str, str], at_third: tuple[str, str]) -> Evidence:
        """One pair of models is further apart than another (bootstrap)."""
        (gap, gaps), (smaller, smallers) = self._gap(*at_all), self._gap(*at_third)
        compared = " against ".join(f"({a} - {b})" for a, b in (at_all, at_third))
        growth = gaps - smallers
        return self._evidence("gap_grows", compared, "", gap - smaller, growth)

    def not_worse(self, claim: str, model: str, reference: str, margin: str) -> Evidence:
        """A model is worse than another by at most a margin (bootstrap)."""
        gain, gains = self._gap(model, reference)
        bound = self.margins[margin]
        compared = f"{model} against {reference}"
        return self._evidence(claim, compared, self._in_unit(bound), gain + bound, gains + bound)

    def matches_layer_drop(
        self, model: str, curve: Sequence[str], reductions: dict[str, float]
    ) -> Evidence:
        """Merging is as good as layer drop of the same size, within a margin (bootstrap).

        curve: the uncompressed model and those with layers dropped; between two of them the score
        is interpolated. reductions: model -> parameters removed, %.
        """
        at = reductions[model]
        places = [reductions[name] for name in curve]
        weights = numpy.array(
            [numpy.interp(at, places, row) for row in numpy.eye(len(curve))]
        )  # of each model of the curve
        score = weights @ [self.models[name].score for name in curve]
        resampled = weights @ numpy.stack([self.models[name].resampled for name in curve])
        merged, bound = self.models[model], self.margins["similar"]
        gain = self.sign * (merged.score - score) + bound
        gains = self.sign * (merged.resampled - resampled) + bound
        compared = f"{model} against {', '.join(curve[1:])} at {at:.1f} %"
        return self._evidence("matches_layer_drop", compared, self._in_unit(bound), gain, gains)

    def spread_below(self, claim: str, models: Sequence[str]) -> Evidence:
        """Some models differ by less than a margin (bootstrap, which widens the spread)."""
        bound = self.margins["similar"]
        widest, resampled = spread([self.models[name] for name in models])
        compared = ", ".join(models)
        return self._evidence(
            claim, compared, self._in_unit(bound), bound - widest, bound - resampled
        )

    def spread_shrinks(self, models: Sequence[str], untuned: Sequence[float]) -> Evidence:
        """The same windows differ less after tuning (bootstrap) than before it.

        untuned: their validation scores, taken as they are.
        """
        before = max(untuned) - min(untuned)
        after, resampled = spread([self.models[name] for name in models])
        compared = f"{', '.join(models)}; untuned {before:.2f}, tuned {after:.2f}"
        return self._evidence(
            "window_matters_untuned", compared, "", before - after, before - resampled
        )

    def _gap(self, better: str, worse: str) -> tuple[float, Values]:
        a, b = self.models[better], self.models[worse]
        return self.sign * (a.score - b.score), self.sign * (a.resampled - b.resampled)

    def _in_unit(self, bound: float) -> str:
        return f"{bound:g} {self.metric.short_unit}"

    def _evidence(
        self,
        claim: str,
        compared: str,
        bound: str,
        difference: float,
        resampled: Values,
        p: float | None = None,
    ) -> Evidence:
        tail = 50 * (1 - self.settings.confidence)
        low, high = numpy.percentile(resampled, [tail, 100 - tail])
        n = len(next(iter(self.models.values())).columns)
        p = share_at_most(resampled, 0.0) if p is None else p
        unit = self.metric.short_unit
        return Evidence(
            claim, self.label, compared, bound, float(difference), low, high, unit, n, p
        )


def similarity_claim(
    label: str, feed_forward: Values, attention: Values, settings: Settings
) -> Evidence:
    """FF outputs are more similar than attention outputs of the same pairs of layers.

    feed_forward, attention: (n_pairs,) CKA of i < j. Pairs that share a layer are not independent:
    the p-value is too small by as much as they hang together.
    """
    differences = feed_forward - attention
    generator = numpy.random.default_rng(settings.seed)
    n = len(differences)
    means = differences[generator.integers(n, size=(settings.swaps, n))].mean(axis=1)
    tail = 50 * (1 - settings.confidence)
    low, high = numpy.percentile(means, [tail, 100 - tail])
    p = sign_test(differences, settings.swaps, settings.seed)
    compared = f"mean CKA {feed_forward.mean():.2f} against {attention.mean():.2f}, pairs of layers"
    name = "ff_more_similar_than_attention"
    return Evidence(name, label, compared, "", differences.mean(), low, high, "CKA", n, p)
