"""Alignment and similarity, on the processor."""

import math

from experiment.planning.estimates.subject import FLOAT, Estimate, Subject
from ffmerge.method.windows import pairs_in_windows

BUFFERS = 8  # bytes a value while features are centred: read, and centred, both float32


def align_feed_forwards(s: Subject) -> Estimate:
    """Each pair: the other's features centred, 2 · n · d² FLOP of correlation, an assignment.

    The first two use all threads; of assignments, as many are solved at once as there are threads.
    """
    n, d, r = s.n_tokens, s.shape.d_ff, s.rates
    sizes = s.task.merge.k.sizes()
    pairs = s.shape.n_towers * len(pairs_in_windows(s.shape.n_layers, sizes))
    a_pair = n * d / r["centring"] + 2 * n * d * d / r["matrix_product"]
    a_pair += assignment_seconds(r["assignment"], d) / s.job.threads
    each = BUFFERS * n * d + 3 * FLOAT * d * d  # the matrix, and scipy's float64 copy of it
    return Estimate(
        pairs * a_pair,
        outputs={"permutations": 4 * pairs * d, "alignment": 60 * pairs},
        memory=s.job.threads * each + FLOAT * n * d,
    )


def assignment_seconds(measured: dict[int, float], d: int) -> float:
    """Seconds to assign d neurons: as measured, or d³ from the nearest size that was."""
    nearest = min(measured, key=lambda size: abs(math.log(size / d)))
    return measured[nearest] * (d / nearest) ** 3


def compute_cka(s: Subject) -> Estimate:
    """Both kinds of sublayer: every pair of layers, 2 · n · d_model² FLOP and one layer centred."""
    n, d = s.n_tokens, s.shape.d_model
    pairs = s.shape.n_towers * 2 * s.shape.n_layers * (s.shape.n_layers + 1) / 2
    a_pair = n * d / s.rates["centring"] + 2 * n * d * d / s.rates["matrix_product"]
    return Estimate(pairs * a_pair, memory=2 * BUFFERS * n * d)
