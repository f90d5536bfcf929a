"""Score fills against the hidden truth, one case at a time, and sum up many cases.

The one number at the foot of a table hides more than it shows: a hole of 0.5 ml in white matter is easy
and one of 80 ml across a hemisphere is not. So a summary comes with intervals, by size and by site.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from neuromend.errors import EXIT_BAD_DATA, InputError, NeuromendError
from neuromend.metrics import Mask, Volume, challenge_scores, check_grids, own_scores

Row = Mapping[str, Any]
Fill = Callable[[Any, Any], Any]
"""From a scan and a mask (nibabel images) to a result with ``image`` and ``samples``, as ``neuromend.fill``."""

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


class EvaluationError(NeuromendError, ValueError):
    """An evaluation that would not measure what it claims to."""

    exit_status: ClassVar[int] = EXIT_BAD_DATA


class BlindFill(NamedTuple):
    """What a method made of a hole, and in how many seconds (without the runs of the proof)."""

    result: Any
    seconds: float


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


def score_case(filled: Volume, truth: Volume, mask: Mask, voided: Volume | None = None) -> dict[str, float]:
    """All scores of one fill: the challenge's columns first, then ours.

    Args:
        filled: (x, y, z), the result; only its voxels inside the mask are looked at.
        truth: (x, y, z), the healthy image in the same units.
        mask: (x, y, z), True in the hole.
        voided: (x, y, z), the image whose percentiles give the limits of the scores; by default ``truth``
            with its hole set to 0. (The challenge also sets the tumour to 0.)

    Raises:
        InputError: IN-15, where the fill is not finite; MA-01, where the mask is empty.
        GeometryError: MA-09, where the shapes differ.
    """
    if voided is None:
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


def blind_fill(fill: Fill, scan: Any, mask: Mask, *, seed: int = 0, prove: bool = False) -> BlindFill:
    """Let a method fill a hole of which it is shown nothing.

    The tissue in the hole is replaced by noise here, before the method is called, so there is nothing to
    peek at. The proof fills once more with other noise: the same fill must come out.

    Args:
        fill: the method, with its settings (``functools.partial(neuromend.fill, model=...)``).
        scan: the healthy scan as a nibabel image (x, y, z).
        mask: (x, y, z), True in the hole.
        seed: of the noise.
        prove: fill again with other noise and compare; once for each method is enough.

    Raises:
        GeometryError, InputError: MA-09 and MA-01, where scan and mask do not fit or the mask is empty.
        EvaluationError: TR-12, the fill depends on what the hole holds, or differs from run to run.
    """
    values = np.asanyarray(scan.dataobj)
    check_grids(mask, values)
    image: Any = nib.Nifti1Image
    hole = image(mask.astype(np.uint8), scan.affine)

    def run(part: float) -> Any:
        noise = _noise(values, mask, np.random.default_rng([seed, round(100 * part)]), part)
        return fill(image(np.where(mask, noise, values), scan.affine), hole)

    start = time.perf_counter()
    result = run(1.0)
    seconds = time.perf_counter() - start
    if prove:
        # Darker noise: what reads the hole at all, if only its mean, is caught.
        changed = _differing(result, run(0.25), mask)
        if changed:
            raise _not_blind(changed, _differing(result, run(1.0), mask), int(mask.sum()))
    return BlindFill(result, seconds)


def size_class(volume_ml: float) -> str:
    """The key of ``SIZE_CLASSES`` that a hole of this volume belongs to."""
    return next(name for name, (low, high) in SIZE_CLASSES.items() if low <= volume_ml < high)


def summarise(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, dict[str, Summary]]:
    """Sum up cases over all, by size class and by site.

    Args:
        rows: one a case, with ``columns`` and, for the groups, ``size_class`` and ``site`` (empty: unknown).
        columns: the scores to sum up.

    Returns:
        Group -> column -> summary. Groups: ``all``, then the size classes from small to large (as
        ``5-20 ml``), then the sites in the order of their first case; only those that have a case.
    """
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for size in SIZE_CLASSES:
        groups[f"{size} ml"] = [row for row in rows if row["size_class"] == size]
    for row in rows:
        if row["site"]:
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


def _noise(values: NDArray[Any], mask: Mask, rng: np.random.Generator, part: float) -> NDArray[Any]:
    """Noise in the type of ``values``, from the lower ``part`` of the range outside the mask."""
    known = values[~mask]
    low = float(known.min()) if known.size else 0.0
    high = low + max(part * (float(known.max()) - low if known.size else 1.0), 1.0)
    return rng.uniform(low, high, values.shape).astype(values.dtype)


def _differing(first: Any, second: Any, mask: Mask) -> int:
    """In how many voxels of the mask two results differ, in the image or in any sample."""
    differ = np.zeros(int(mask.sum()), dtype=np.bool_)
    for one, other in zip((first.image, *first.samples), (second.image, *second.samples), strict=True):
        a, b = (np.asanyarray(image.dataobj)[mask] for image in (one, other))
        differ |= (a != b) & ~(np.isnan(a) & np.isnan(b))
    return int(np.count_nonzero(differ))


def _not_blind(changed: int, unsteady: int, voxels: int) -> EvaluationError:
    if unsteady:
        return EvaluationError(
            "TR-12",
            f"the same input filled twice differs in {unsteady} of {voxels} voxels; expected 0",
            why="so it cannot be proven that the method does not look at the hidden tissue",
            fix="fix the seed of the method, or run it where it is deterministic (--device cpu)",
        )
    return EvaluationError(
        "TR-12",
        f"with other content hidden under the mask {changed} of {voxels} filled voxels differ; expected 0",
        why="the method looks at the tissue that it should invent, so its scores mean nothing",
        fix="let the method replace the masked voxels (for example by 0) before it uses the scan",
    )
