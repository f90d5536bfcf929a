"""Whether the spread of many samples tells the truth about the error.

A fill is one guess at what cannot be known. A method that draws samples is honest if the hidden tissue
looks like one more of its samples: then intervals contain the truth as often as they say, and voxels
with a large spread are those with a large error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuromend.errors import UsageError
from neuromend.metrics import Floats, Mask, Volume, check_grids, intensity_limits, scale

SAMPLE_COLUMNS = ("crps", "coverage_50", "coverage_90", "spread_error_correlation")


def sample_scores(samples: Sequence[Volume], truth: Volume, voided: Volume, mask: Mask) -> dict[str, float]:
    """Scores of a set of samples of one hole.

    Args:
        samples: two or more fills, each (x, y, z), in the units of ``truth``.
        truth: (x, y, z), the healthy image.
        voided: (x, y, z), ``truth`` with the hole set to 0; gives the limits to which intensities are scaled.
        mask: (x, y, z), True in the hole.

    Returns:
        ``SAMPLE_COLUMNS``. ``crps``: continuous ranked probability score, mean over the mask, in scaled
        intensity; the mean absolute error is its value for one sample (lower is better). ``coverage_50``
        and ``coverage_90``: how often the central interval contains the truth (ideal 0.5 and 0.9; NaN
        with fewer than 3 and 19 samples, which cannot mark such an interval).
        ``spread_error_correlation``: Pearson's, over the voxels, of standard deviation and absolute error
        of the mean (NaN where either is constant).

    Raises:
        UsageError: UX-02, fewer than two samples.
        GeometryError, InputError: MA-09 and MA-01, as in ``challenge_scores``.
    """
    if len(samples) < 2:
        raise UsageError(
            "UX-02",
            f"{len(samples)} samples were given, expected 2 or more",
            why="one sample has no spread",
            fix="neuromend fill --samples 8",
        )
    check_grids(mask, truth, voided, *samples)
    limits = intensity_limits(voided)
    true = scale(truth[mask], limits)
    drawn = np.sort([scale(sample[mask], limits) for sample in samples], axis=0)
    error, spread = np.abs(drawn.mean(axis=0) - true), drawn.std(axis=0, ddof=1)
    constant = min(np.ptp(error), np.ptp(spread)) < 1e-12  # rounding makes no correlation
    return {
        "crps": crps(drawn, true),
        "coverage_50": coverage(drawn, true, 0.5),
        "coverage_90": coverage(drawn, true, 0.9),
        "spread_error_correlation": float("nan") if constant else float(np.corrcoef(spread, error)[0, 1]),
    }


def crps(ordered: Floats, true: Floats) -> float:
    """Mean continuous ranked probability score, the fair estimate for a finite set of samples.

    E|X - y| - E|X - X'| / 2 with X, X' different samples (Ferro 2014, Q. J. R. Meteorol. Soc. 140: 1917).

    Args:
        ordered: (n, voxels), the samples of every voxel in ascending order.
        true: (voxels,).
    """
    n = len(ordered)
    # In ascending order, sample k is the larger one of k pairs and the smaller one of n - 1 - k.
    weights = 2.0 * np.arange(n) - (n - 1)
    between = np.tensordot(weights, ordered, axes=1) / (n * (n - 1) / 2)
    return float((np.abs(ordered - true).mean(axis=0) - between / 2).mean())


def coverage(ordered: Floats, true: Floats, level: float) -> float:
    """The fraction of voxels whose true value lies in the central interval of the samples.

    The ends are the quantiles of rank p (n + 1) (Weibull), so that a perfect sampler is right in ``level``
    of all cases however few samples it draws; NaN where n is too small to have such ranks.
    Arguments as in ``crps``.
    """
    tail = (1 - level) / 2
    if tail * (len(ordered) + 1) < 1 - 1e-9:
        return float("nan")
    low, high = np.quantile(ordered, [tail, 1 - tail], axis=0, method="weibull")
    return float(((low <= true) & (true <= high)).mean())
