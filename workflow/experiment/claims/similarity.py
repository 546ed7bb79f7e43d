"""Test whether FF outputs are more similar than attention outputs (Section 5.5, Appendix C)."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import pandas

from experiment.claims.evidence import Evidence
from experiment.claims.paired_tests import bound_test
from ffmerge.evaluation.intervals import Scored, Values


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
