"""Score fills against the hidden truth, one case at a time, and sum up many cases.

The one number at the foot of a table hides more than it shows: a hole of 0.5 ml in white matter is easy
and one of 80 ml across a hemisphere is not. So a summary comes with intervals, by size and by site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuromend.errors import InputError
from neuromend.metrics import Mask, Volume, challenge_scores, own_scores

Row = Mapping[str, Any]

# Volume of the hole in ml, from (included) and to (excluded).
SIZE_CLASSES: dict[str, tuple[float, float]] = {
    "<1": (0.0, 1.0),
    "1-5": (1.0, 5.0),
    "5-20": (5.0, 20.0),
    "20-60": (20.0, 60.0),
    ">60": (60.0, math.inf),
}

RESAMPLES = 2000
LEVEL = 0.95
BOOTSTRAP_SEED = 0  # a summary of the same rows is the same summary


@dataclass(frozen=True, slots=True)
class Summary:
    """One score over many cases.

    Attributes:
        n: how many cases have a finite score; the others are left out.
        mean, median: of those; NaN where n is 0.
        low, high: 95 % bootstrap interval of the mean.
    """

    n: int
    mean: float
    median: float
    low: float
    high: float


def score_case(filled: Volume, truth: Volume, mask: Mask) -> dict[str, float]:
    """All scores of one fill: the challenge's columns first, then ours.

    Args:
        filled: (x, y, z), the result; only its voxels inside the mask are looked at.
        truth: (x, y, z), the healthy image in the same units. With its hole set to 0 it is the image
            whose percentiles give the limits of the scores.
        mask: (x, y, z), True in the hole.

    Raises:
        InputError: IN-15, where the fill is not finite; MA-01, where the mask is empty.
        GeometryError: MA-09, where the shapes differ.
    """
    voided = np.where(mask, 0, truth) if truth.shape == mask.shape else truth
    scores = challenge_scores(filled, truth, voided, mask)
    broken = mask & ~np.isfinite(filled)
    if broken.any():
        where = tuple(int(i) for i in np.argwhere(broken)[0])
        raise InputError(
            "IN-15",
            f"{int(broken.sum())} filled voxels are not finite, the first at {where}",
            why="one NaN makes every mean of the case NaN",
            fix="fill the case again; a method that writes NaN is not to be trusted elsewhere either",
        )
    return scores | own_scores(filled, truth, voided, mask)


def size_class(volume_ml: float) -> str:
    """The key of ``SIZE_CLASSES`` that a hole of this volume belongs to."""
    return next(name for name, (low, high) in SIZE_CLASSES.items() if low <= volume_ml < high)


def summarise(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, dict[str, Summary]]:
    """Sum up cases over all, by size class and by site.

    Args:
        rows: one a case, with ``columns`` and, for the groups, ``size_class`` and ``site``.
        columns: the scores to sum up.

    Returns:
        Group -> column -> summary. Groups: ``all``, then the size classes from small to large (as
        ``5-20 ml``), then the sites in the order of their first case; only those that have a case.
    """
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for size in SIZE_CLASSES:
        groups[f"{size} ml"] = [row for row in rows if row["size_class"] == size]
    for row in rows:
        groups.setdefault(row["site"], []).append(row)
    return {
        group: {column: summary([row[column] for row in members]) for column in columns}
        for group, members in groups.items()
        if members
    }


def paired_differences(
    rows: Sequence[Row], reference: Sequence[Row], columns: Sequence[str]
) -> dict[str, Summary]:
    """Sum up score minus reference score over the cases that both have (matched by ``id``).

    A paired interval is narrower than two separate ones, because the cases differ far more than the
    methods do.
    """
    others = {row["id"]: row for row in reference}
    pairs = [(row, others[row["id"]]) for row in rows if row["id"] in others]
    return {column: summary([float(a[column]) - float(b[column]) for a, b in pairs]) for column in columns}


def summary(values: Sequence[float]) -> Summary:
    """Mean, median and the percentile bootstrap interval of the mean (Efron & Tibshirani 1993, ch. 13)."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    means = finite[rng.integers(finite.size, size=(RESAMPLES, finite.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Summary(finite.size, float(finite.mean()), float(np.median(finite)), float(low), float(high))
