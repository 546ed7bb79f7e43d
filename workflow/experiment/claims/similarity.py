"""Test whether FF outputs are more similar than attention outputs (Section 5.5, Appendix C)."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import pandas

from experiment.claims.evidence import Evidence, ResamplingSettings
from experiment.claims.paired_tests import bound_test
from ffmerge.evaluation.intervals import Values


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
    claim: str, label: str, feed_forward: Values, attention: Values, settings: ResamplingSettings
) -> Evidence:
    """Test that pairs of FF sublayers have a higher mean CKA than pairs of attention sublayers.

    feed_forward, attention: (n_layers, n_layers). Pairs that share a layer are not independent, so
    layers are resampled instead of pairs (vertex bootstrap, Snijders and Borgatti 1999). A resample
    of a single layer has no pair and counts as a difference of 0.
    """
    difference = feed_forward - attention
    n = len(difference)
    numpy.fill_diagonal(difference, 0)
    generator = numpy.random.default_rng(settings.seed)
    times_drawn = generator.multinomial(n, [1 / n] * n, size=settings.draws)  # (draws, n_layers)
    n_pairs = n**2 - (times_drawn**2).sum(axis=1)
    sums = ((times_drawn @ difference) * times_drawn).sum(axis=1)
    resampled = numpy.divide(sums, n_pairs, out=numpy.zeros(len(sums)), where=n_pairs > 0)
    low, high = settings.interval(resampled)
    off_diagonal = ~numpy.eye(n, dtype=bool)
    ff, other = feed_forward[off_diagonal].mean(), attention[off_diagonal].mean()
    return Evidence(
        claim=claim,
        task=label,
        compared=f"mean CKA of FF outputs {ff:.2f}, of attention outputs {other:.2f}",
        measured=float(ff - other),
        low=low,
        high=high,
        above=True,
        bound=0.0,
        unit="CKA",
        n=n,
        p=bound_test(resampled, 0.0),
        over="layers",
    )
