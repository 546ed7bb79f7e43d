"""Measure the evidence for or against a claim: a value, its interval and its p-value.

Models are compared on the same test examples. A difference is divided by its standard error over
articles, pages or examples (see Scored), and compared with Student's distribution, which counts how
few there are. All p-values are two-sided: a small one says that the data decide, not for which
side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import inf
from pathlib import Path

import numpy
import pandas
from scipy.special import stdtr

from ffmerge.evaluation.intervals import Scored, Values

ROUNDING = 1e-9  # numbers that differ by less count as equal


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
        names = better, worse
        return self._evidence(claim, names, " against ".join(names), self._gain(*names))

    def gain_grows(self, claim: str, more: tuple[str, str], less: tuple[str, str]) -> Evidence:
        """Test that one pair's first model gains more on its second than the other pair's."""
        growth = self._gain(*more).minus(self._gain(*less))
        compared = "; ".join(map(" against ".join, (more, less)))
        return self._evidence(claim, (*more, *less), compared, growth)

    def loses_less(self, claim: str, model: str, reference: str, margin: str) -> Evidence:
        """Test that a model loses less than a margin compared with another."""
        names, loss = (model, reference), self._gain(reference, model)
        return self._evidence(claim, names, " against ".join(names), loss, margin)

    def loses_less_than_curve(
        self, claim: str, model: str, curve: Sequence[str], reductions: dict[str, float]
    ) -> Evidence:
        """Test that a model loses less than the margin `similar` on a curve of others at its size.

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
        return self._evidence(claim, (model, *curve), compared, loss, "similar")

    def differ_less(self, claim: str, models: Sequence[str]) -> Evidence:
        """Test that any two of some models differ by less than the margin `similar`.

        The interval is that of the two models furthest apart.
        """
        chosen = [self.models[name] for name in models]
        p = spread_test(chosen, self.margins["similar"])
        return self._evidence(claim, models, ", ".join(models), widest(chosen), "similar", p)

    def differ_less_than_before(
        self, claim: str, models: Sequence[str], before: Sequence[str]
    ) -> Evidence:
        """Test that the largest difference between some models is smaller than it was before.

        The pair furthest apart before may be another one than after. The interval is that of these
        pairs.
        """
        earlier, later = ([self.models[name] for name in names] for names in (before, models))
        was, now = widest(earlier), widest(later)
        compared = f"{', '.join(models)}: {was.score:.3g} before tuning, {now.score:.3g} after it"
        p = range_test(earlier, later)
        return self._evidence(claim, (*models, *before), compared, was.minus(now), p=p)

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
        margin: str = "",
        p: float | None = None,
    ) -> Evidence:
        """margin: of the claim; none for a claim that the value is above 0."""
        bound = self.margins[margin] if margin else 0.0
        return Evidence(
            claim=claim,
            task=self.label,
            endpoint=self.endpoint,
            compared=compared,
            measured=measured,
            above=not margin,
            bound=bound,
            unit=self.unit,
            p=bound_test(measured, bound) if p is None else p,
            models=tuple(models),
        )


# --- tests of differences -------------------------------------------------------------------------


def one_sided(statistic: Scored, bound: float) -> tuple[float, float]:
    """p-values of a statistic being below and above a bound: how likely it is if it were at it."""
    distance, error = statistic.score - bound, statistic.error
    if statistic.n < 2 or abs(distance) < ROUNDING:
        return 0.5, 0.5
    t = distance / error if error else inf * distance
    return float(stdtr(statistic.n - 1, t)), float(stdtr(statistic.n - 1, -t))


def bound_test(statistic: Scored, bound: float) -> float:
    """Two-sided p-value of a statistic differing from a bound."""
    return 2 * min(one_sided(statistic, bound))


def widest(models: Sequence[Scored]) -> Scored:
    """Return the largest difference between the scores of two models, as resampled."""
    return max(models, key=lambda m: m.score).minus(min(models, key=lambda m: m.score))


def spread_test(models: Sequence[Scored], bound: float) -> float:
    """p-value of the largest difference between models being on one side of a bound.

    Below: every pair has to be below (intersection-union test, which needs no correction). Above:
    the pair furthest apart has to be above, at a p-value multiplied by the number of pairs.
    """
    differences = [a.minus(b) for a, b in permutations(models, 2)]
    below = max(one_sided(difference, bound)[0] for difference in differences)
    above = len(differences) / 2 * one_sided(widest(models), bound)[1]
    return min(1.0, 2 * min(below, above))


def range_test(models: Sequence[Scored], others: Sequence[Scored]) -> float:
    """p-value of the largest differences between some models and between others being unequal.

    One is larger if its pair furthest apart differs by more than every pair of the other
    (intersection-union test), at a p-value multiplied by the number of pairs that it is one of.
    """

    def larger(chosen: Sequence[Scored], than: Sequence[Scored]) -> float:
        gains = [widest(chosen).minus(a.minus(b)) for a, b in permutations(than, 2)]
        n_pairs = len(chosen) * (len(chosen) - 1) / 2
        return n_pairs * max(one_sided(gain, 0.0)[1] for gain in gains)

    return min(1.0, 2 * min(larger(models, others), larger(others, models)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); returns them in the same order."""
    n, order = len(p_values), numpy.argsort(p_values, kind="stable")
    corrected = numpy.minimum(1.0, numpy.arange(n, 0, -1) * numpy.take(p_values, order))
    return numpy.maximum.accumulate(corrected)[numpy.argsort(order)].tolist()


# --- similarity of layers (Section 5.5, Appendix C) -----------------------------------------------


def read_cka(file: Path) -> Iterator[tuple[str, Values, Values]]:
    """Yield each tower with the CKA matrices (n_layers, n_layers) of its FF and attention outputs.

    Raises ValueError if a pair of layers is missing.
    """
    for tower, rows in pandas.read_csv(file).groupby("tower", sort=False):
        matrices = []
        for kind in ("feed_forward", "attention"):
            pairs = rows[rows["sublayer"] == kind]
            matrix = pairs.pivot(index="i", columns="j", values="cka").to_numpy()
            if numpy.isnan(matrix).any():
                raise ValueError(f"{file}: a pair of {kind} sublayers of the {tower} is missing")
            matrices.append(numpy.ascontiguousarray(matrix))  # or a product rounds differently
        yield tower, *matrices


def more_similar(
    claim: str, label: str, feed_forward: Values, attention: Values, draws: int, seed: int
) -> Evidence:
    """Test that pairs of FF sublayers have a higher mean CKA than pairs of attention sublayers.

    feed_forward, attention: (n_layers, n_layers). Pairs that share a layer are not independent, so
    layers are resampled instead of pairs (vertex bootstrap, Snijders and Borgatti 1999). A resample
    of a single layer has no pair and counts as a difference of 0.
    """
    difference = feed_forward - attention
    n = len(difference)
    numpy.fill_diagonal(difference, 0)

    def mean_of_pairs(times_drawn: Values) -> Values:
        """(draws, n_layers) -> (draws,)."""
        n_pairs = times_drawn.sum(axis=1) ** 2 - (times_drawn**2).sum(axis=1)
        sums = ((times_drawn @ difference) * times_drawn).sum(axis=1)
        return numpy.divide(sums, n_pairs, out=numpy.zeros(len(sums)), where=n_pairs > 0)

    generator = numpy.random.default_rng(seed)
    resampled = mean_of_pairs(generator.multinomial(n, [1 / n] * n, size=draws))
    off_diagonal = ~numpy.eye(n, dtype=bool)
    left_out = mean_of_pairs(off_diagonal.astype(int))
    ff, other = feed_forward[off_diagonal].mean(), attention[off_diagonal].mean()
    measured = Scored(float(ff - other), resampled, left_out, f"{n} layers")
    return Evidence(
        claim=claim,
        task=label,
        endpoint="CKA",
        compared=f"mean CKA of FF outputs {ff:.2f}, of attention outputs {other:.2f}",
        measured=measured,
        above=True,
        bound=0.0,
        unit="CKA",
        p=bound_test(measured, 0.0) if n > 2 else 1.0,  # without one of two there is no pair
    )
