"""Two segmentations of one brain: how alike, and how far apart in volume, everywhere and near the lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.errors import GeometryError
from neuromend.tissue.hmrf import TISSUES

Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]

RING_MM = 5.0
"""How far around the lesions "near" reaches, by default."""


def regions_of(lesions: Mask, spacing_mm: Sequence[float], ring_mm: float = RING_MM) -> dict[str, Mask]:
    """``lesion``: in the mask; ``ring``: outside it, at most ``ring_mm`` away."""
    distance = ndimage.distance_transform_edt(~lesions, sampling=spacing_mm) if lesions.any() else np.ones(1)
    return {"lesion": lesions, "ring": ~lesions & (distance <= ring_mm) if lesions.any() else lesions}


def compare(
    reference: Labels, labels: Labels, voxel_ml: float, regions: Mapping[str, Mask] | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """Score one segmentation against another.

    Args:
        reference, labels: (x, y, z), labels of ``TISSUES``.
        voxel_ml: volume of a voxel.
        regions: more places to look at, besides ``whole``.

    Returns:
        region -> tissue -> dice, reference_ml, volume_ml, error_ml and error_percent. ``error_ml`` is ``labels`` less
        ``reference``; ``error_percent`` is that as a share of the reference's volume in that region; NaN where both,
        or the reference, have none.

    Raises:
        GeometryError: MA-09, other shapes.
    """
    if reference.shape != labels.shape:
        raise GeometryError(
            "MA-09",
            f"the segmentations have shapes {reference.shape} and {labels.shape}",
            why="they are compared voxel by voxel",
            fix="give two scans or segmentations of one grid",
        )
    places: dict[str, Any] = {"whole": ..., **(regions or {})}
    return {name: _scores(reference[where], labels[where], voxel_ml) for name, where in places.items()}


def spread(
    single: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]],
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean and standard deviation (n - 1; NaN for one) of several comparisons: region -> tissue -> score."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for region, tissues in single[0].items():
        found[region] = {}
        for tissue, scores in tissues.items():
            found[region][tissue] = {}
            for score in scores:
                values = np.array([one[region][tissue][score] for one in single])
                deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
                found[region][tissue][score] = {"mean": float(values.mean()), "sd": deviation}
    return found


def _scores(reference: Labels, labels: Labels, voxel_ml: float) -> dict[str, dict[str, float]]:
    found = {}
    for name, label in TISSUES.items():
        one, two = reference == label, labels == label
        first, second = int(one.sum()), int(two.sum())
        both = int((one & two).sum())
        error = (second - first) * voxel_ml
        found[name] = {
            "dice": 2 * both / (first + second) if first + second else float("nan"),
            "reference_ml": first * voxel_ml,
            "volume_ml": second * voxel_ml,
            "error_ml": error,
            "error_percent": 100 * (second - first) / first if first else float("nan"),
        }
    return found
