"""Holes for training cases: planted lesions, blobs, and noise cut at a level that hides many places at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuromend.corpus.appearance import smooth
from neuromend.corpus.recipe import Recipe
from neuromend.data.lesions import random_blob

Mask = NDArray[np.bool_]

LEAST_VOXELS, LARGEST_SHARE = 8, 0.45
"""A hole has at least so many voxels, and hides at most this share of the brain in the crop."""

LEAST_BRAIN_VOXELS = 2000


def draw_holes(
    rng: np.random.Generator,
    inside: Mask,
    planted: Mask | None,
    *,
    diseased: Mask | None,
    spacing_mm: float,
    volume_ml: float,
    around_centre: bool,
    recipe: Recipe,
) -> Mask | None:
    """Draw the hole of a case: the planted shape or a blob, more of the same size class where they are small.

    Args:
        rng: source of randomness.
        inside: (x, y, z) True in the brain.
        planted: a shape that is part of the hole; None to begin with a blob.
        diseased: (x, y, z) tissue that is never a target (TR-11), so the hole never covers it.
        spacing_mm: edge of the cubic voxels.
        volume_ml: about the volume of the first hole.
        around_centre: the first blob lies near the centre of the crop, not anywhere in the brain.
        recipe: the shares of scattered holes and of holes that go on beyond the brain.

    Returns:
        (x, y, z), or None where no usable hole came about: draw again.
    """
    size = inside.shape
    places = np.flatnonzero(inside)
    if len(places) < LEAST_BRAIN_VOXELS:
        return None
    mask = np.zeros(size, bool) if planted is None else planted.copy()
    begun = bool(mask.any())
    for number in range(begun, _count(rng, volume_ml)):
        volume = volume_ml * (float(np.exp(rng.normal(0, 0.5))) if number else 1.0)
        here = (
            np.array(size) / 2 + rng.normal(0, 3, 3)
            if around_centre and not number
            else np.array(np.unravel_index(int(places[rng.integers(len(places))]), size), float)
        )
        centre = (float(here[0]), float(here[1]), float(here[2]))
        mask |= random_blob(rng, size, centre, volume, spacing_mm, roughness=float(rng.uniform(0.1, 0.6)))
    if rng.random() < recipe.scattered:
        mask |= scattered(rng, size, spacing_mm)
    return usable(mask, inside, diseased, beyond_brain=rng.random() < recipe.beyond_brain)


def usable(mask: Mask, inside: Mask, diseased: Mask | None, *, beyond_brain: bool) -> Mask | None:
    """Cut diseased tissue off a hole, and what lies beyond the brain; None if too little or too much is left."""
    if diseased is not None:
        mask &= ~diseased
    hidden = mask & inside
    count = np.count_nonzero(hidden)
    if not beyond_brain:
        mask = hidden
    if count < LEAST_VOXELS or count > LARGEST_SHARE * np.count_nonzero(inside):
        return None
    return mask


def scattered(rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: float) -> Mask:
    """Many holes at once, a tenth to a third of the volume: where smooth noise of one length scale is high.

    A case with one hole teaches little for its cost; this teaches up to ten times as much.
    """
    scale_mm = float(np.exp(rng.uniform(np.log(5), np.log(35))))
    extent = np.array(shape) * spacing_mm
    field = smooth(rng, shape, tuple(int(n) for n in np.ceil(extent / scale_mm) + 2))
    finer = smooth(rng, shape, tuple(int(n) for n in np.ceil(2.5 * extent / scale_mm) + 2))
    finer *= np.float32(0.35)
    field += finer
    return field > np.quantile(field[::3, ::3, ::3], 1 - rng.uniform(0.1, 0.3))


def _count(rng: np.random.Generator, volume_ml: float) -> int:
    """One large hole, or several small ones."""
    if volume_ml > 15:
        return 1
    return int(rng.integers(1, 4) if volume_ml > 4 else rng.integers(2, 14))
