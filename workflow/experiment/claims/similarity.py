"""Whether FF outputs are more similar than attention outputs (Section 5.5, Appendix C)."""

from collections.abc import Iterator
from pathlib import Path

import numpy

from experiment.claims.evidence import Evidence, Settings
from experiment.claims.paired_tests import bound_test
from experiment.evaluation.intervals import Values
from provenance.csv_files import read_csv


def read_cka(file: Path) -> Iterator[tuple[str, Values, Values]]:
    """Tower, and the CKA matrices (n_layers, n_layers) of its FF and of its attention sublayers."""
    cells: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for row in read_csv(file):
        of_kind = cells.setdefault((row["tower"], row["sublayer"]), {})
        of_kind[int(row["i"]), int(row["j"])] = float(row["cka"])
    for tower in dict.fromkeys(tower for tower, _ in cells):
        yield tower, *(_matrix(cells[tower, kind]) for kind in ("feed_forward", "attention"))


def _matrix(cells: dict[tuple[int, int], float]) -> Values:
    n_layers = max(i for i, _ in cells) + 1
    return numpy.array([[cells[i, j] for j in range(n_layers)] for i in range(n_layers)])


def more_similar(
    claim: str, label: str, feed_forward: Values, attention: Values, settings: Settings
) -> Evidence:
    """The mean CKA of two FF sublayers is above that of the attention sublayers of the same layers.

    feed_forward, attention: (n_layers, n_layers). Pairs that share a layer are not independent, so
    that layers are resampled, not pairs (vertex bootstrap, Snijders and Borgatti 1999); a resample
    of one and the same layer has no pair and differs by 0.
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
