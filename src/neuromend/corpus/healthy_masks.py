"""Masks of healthy tissue: where a model may be trained and measured on a brain that has a lesion.

The algorithm is that of the BraTS inpainting challenge (ASNR-MICCAI, arXiv 2305.08992), written anew from its
description: a lesion shape of another brain, mirrored and turned at random, is put where it keeps its distance from
this brain's lesion. Sizes are matched inversely: a brain with a small lesion gets a large mask and the other way
round, so that together they hide about the same everywhere. (The released code means to do that too, but looks the
size up in an unsorted table, so its sizes are random: ``matching="random"``.)

Distances are in millimetres; the challenge's scans have voxels of 1 mm, so there they are voxels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neuromend.corpus.shapes import ShapeBook
from neuromend.data.lesions import random_blob
from neuromend.errors import InputError

Mask = NDArray[np.bool_]
Matching = Literal["inverse", "random"]

GROWN_MM = 5.0
"""The lesion and what is nearer to it than this count as unhealthy."""

DISTANCE_MM = 5.0
"""A healthy mask keeps at least this distance from the unhealthy tissue."""

LEAST_BRAIN_SHARE = 0.75
"""Share of a healthy mask that lies in the brain; the rest may be background, as in the challenge."""

LEAST_ML = 0.8
"""Smaller pieces of a lesion are left out of the pool of shapes (800 voxels of 1 mm)."""

WINDOW = 0.1
"""A shape is drawn from this share of the pool, around the rank that is wanted."""

TRIES = 500
"""Places and shapes drawn before a brain is refused; the challenge's code goes on for ever."""

BLOB_ML, BLOB_COUNT = (1.0, 120.0), 256
"""Volumes of the blobs that stand in for lesions where none are at hand, and how many."""

TYPICAL_BRAIN_ML = 1500.0
MNI_BRAIN_ML = 1827.0
"""Brain volumes by which a volume becomes a share: of a typical adult, and of the MNI152 brain mask."""

_PIECES = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False, slots=True)
class PoolShape:
    """A shape that a healthy mask can have.

    Attributes:
        share: its volume, or that of the lesion it is a piece of, as a share of its brain.
        voxels: bool (x, y, z), cropped to the shape; None for a blob, which is drawn when it is needed.
        spacing_mm: (3,) of ``voxels``.
    """

    share: float
    voxels: Mask | None = None
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def drawn(self, rng: np.random.Generator) -> tuple[Mask, tuple[float, float, float]]:
        """Its voxels and their spacing."""
        if self.voxels is not None:
            return self.voxels, self.spacing_mm
        volume_ml = self.share * TYPICAL_BRAIN_ML
        side = int(np.ceil(4 * np.cbrt(volume_ml * 1000))) + 4
        blob = random_blob(
            rng, (side,) * 3, (side / 2,) * 3, volume_ml, 1.0, roughness=float(rng.uniform(0.1, 0.6))
        )
        return blob[ndimage.find_objects(blob.astype(np.uint8))[0]], (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False, slots=True)
class ShapePool:
    """Shapes sorted by share, smallest first."""

    shapes: tuple[PoolShape, ...]

    @classmethod
    def of(cls, shapes: Iterable[PoolShape]) -> ShapePool:
        """A pool of any shapes; of :func:`pieces_of` every case's lesion it is the challenge's.

        Raises:
            InputError: TR-34, there are none.
        """
        ordered = tuple(sorted(shapes, key=lambda shape: shape.share))
        if not ordered:
            raise InputError(
                "TR-34",
                f"no lesion has a piece of {LEAST_ML:g} ml or more to make a healthy mask of",
                why="healthy masks take their shapes from the lesions of the same data",
                fix="give a folder of lesion masks: --shapes DIR, or leave it out to use blobs",
            )
        return cls(ordered)

    @classmethod
    def of_book(cls, book: ShapeBook) -> ShapePool:
        """Real lesions in MNI space (stroke, MS), each whole, however many pieces it has."""
        return cls.of(
            PoolShape(
                shape.volume_ml / MNI_BRAIN_ML,
                shape.voxels,
                _triple(np.linalg.norm(shape.affine[:3, :3], axis=0)),
            )
            for source in book.shapes
            for shape in source
            if shape.volume_ml >= LEAST_ML
        )

    @classmethod
    def of_blobs(cls) -> ShapePool:
        """Tumour-like blobs of 1 to 120 ml, their volumes evenly spread over the logarithm."""
        return cls.of(PoolShape(float(ml) / TYPICAL_BRAIN_ML) for ml in np.geomspace(*BLOB_ML, BLOB_COUNT))

    def draw(self, rng: np.random.Generator, share: float, matching: Matching) -> PoolShape:
        """A shape for a brain whose lesion has this share: of the mirrored rank, or any."""
        last = len(self.shapes) - 1
        if matching == "random":
            return self.shapes[int(rng.integers(last + 1))]
        rank = int(np.searchsorted([shape.share for shape in self.shapes], share))
        wanted = last - rank + rng.uniform(-0.5, 0.5) * WINDOW * (last + 1)
        return self.shapes[int(np.clip(round(wanted), 0, last))]


def pieces_of(lesion: Mask, brain: Mask, spacing_mm: tuple[float, float, float]) -> list[PoolShape]:
    """The pieces of a lesion (26-connected, holes filled) that are large enough to be shapes."""
    unit = float(np.prod(spacing_mm)) / 1000
    labels, _ = ndimage.label(ndimage.binary_fill_holes(lesion), _PIECES)
    sizes = np.bincount(labels.reshape(-1)) * unit
    kept = [label for label in range(1, len(sizes)) if sizes[label] >= LEAST_ML]
    share = float(sizes[kept].sum()) / max(np.count_nonzero(brain) * unit, unit)
    boxes = ndimage.find_objects(labels)
    return [PoolShape(share, labels[boxes[label - 1]] == label, spacing_mm) for label in kept]


def brain_of(values: NDArray[np.floating]) -> Mask:
    """The brain of a skull-stripped scan (x, y, z): its largest 26-connected piece that is not 0, holes filled."""
    labels, _ = ndimage.label(np.isfinite(values) & (values != 0), _PIECES)
    sizes = np.bincount(labels.reshape(-1))
    if len(sizes) < 2:
        return np.zeros(values.shape, bool)
    filled: Mask = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes[1:])))
    return filled


def draw_healthy_mask(
    rng: np.random.Generator,
    brain: Mask,
    lesion: Mask,
    spacing_mm: tuple[float, float, float],
    pool: ShapePool,
    *,
    matching: Matching = "inverse",
    grown_mm: float = GROWN_MM,
) -> Mask:
    """Draw one mask of healthy tissue.

    Args:
        rng: source of randomness; the same state gives the same mask.
        brain: (x, y, z) True in the brain.
        lesion: (x, y, z) True in diseased tissue; may be empty.
        spacing_mm: between voxels along the axes.
        pool: the shapes to choose from.
        matching: "inverse" as the challenge's paper intends, "random" as it was released.
        grown_mm: tissue nearer to the lesion than this is unhealthy too; 0 for a lesion that is grown already.

    Returns:
        (x, y, z): at least ``LEAST_BRAIN_SHARE`` of it in the brain, nowhere nearer than ``DISTANCE_MM`` to the
        unhealthy tissue, whole inside the array.

    Raises:
        InputError: TR-34, nothing fits.
    """
    room = _room(lesion, spacing_mm, grown_mm)
    share = int(np.count_nonzero(lesion)) / max(int(np.count_nonzero(brain)), 1)
    # Centres are a little farther away still; a mask has a radius.
    places = np.flatnonzero(brain & (room > DISTANCE_MM))
    allowed = room >= DISTANCE_MM
    for _ in range(TRIES if places.size else 0):
        pair = np.stack(np.unravel_index(places[rng.integers(places.size, size=2)], brain.shape), axis=1)
        centre = pair[int(np.argmax(room[tuple(pair.T)]))]
        voxels, own_spacing = pool.draw(rng, share, matching).drawn(rng)
        shape = turned(voxels, own_spacing, spacing_mm, *_random_turn(rng))
        start = centre - np.array(shape.shape) // 2
        stop = start + shape.shape
        if (start < 0).any() or (stop > brain.shape).any():
            continue
        box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        if allowed[box][shape].all() and brain[box][shape].mean() >= LEAST_BRAIN_SHARE:
            mask = np.zeros(brain.shape, bool)
            mask[box] = shape
            return mask
    raise InputError(
        "TR-34",
        f"no healthy mask fits into this brain: {TRIES} shapes and places were tried"
        if places.size
        else "all of this brain is lesion, or too near to it",
        why="a healthy mask lies in the brain and keeps its distance from the lesion",
        fix="leave the case out, or give smaller shapes: --shapes DIR",
    )


def turned(
    voxels: Mask,
    own_spacing_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    mirrored: NDArray[np.bool_],
    angles: NDArray[np.float64],
) -> Mask:
    """A shape mirrored along the chosen axes, then turned in the first two axes, then in the last two.

    Args:
        voxels: bool (x, y, z).
        own_spacing_mm: of ``voxels``.
        spacing_mm: of the result.
        mirrored: (3,) which axes run the other way.
        angles: (2,) in radians.

    Returns:
        bool (x, y, z), nearest neighbours, cropped to the shape; at least one voxel.
    """
    turn = Rotation.from_euler("zx", angles).as_matrix() @ np.diag(np.where(mirrored, -1.0, 1.0))
    half = np.abs(turn) @ (np.array(voxels.shape) * own_spacing_mm / 2)
    # Two voxels to spare: one would shift the centre by half a voxel, and quarter turns would not be exact.
    size = np.ceil(2 * half / spacing_mm - 1e-6).astype(int) + 2
    # Result voxel -> shape voxel: both centres are the origin, in mm.
    matrix = np.diag(1 / np.array(own_spacing_mm)) @ turn.T @ np.diag(spacing_mm)
    offset = (np.array(voxels.shape) - 1) / 2 - matrix @ ((size - 1) / 2)
    x, y, z = (int(n) for n in size)
    # "grid-constant" lets the outermost voxels reach half a voxel outwards, as all others do.
    found = (
        ndimage.affine_transform(
            voxels.astype(np.uint8), matrix, offset, (x, y, z), order=0, mode="grid-constant"
        )
        > 0
    )
    if not found.any():
        return np.ones((1, 1, 1), bool)
    return found[ndimage.find_objects(found.astype(np.uint8))[0]]


def case_seed(seed: int, case: str) -> np.random.Generator:
    """The randomness of one case: the same whichever other cases there are."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "big")])


def _random_turn(rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return rng.random(3) < 0.5, rng.uniform(0, 2 * np.pi, 2)


def _room(lesion: Mask, spacing_mm: tuple[float, float, float], grown_mm: float) -> NDArray[np.float64]:
    """Distance to the unhealthy tissue in mm, 0 in it; infinite where there is none."""
    if not lesion.any():
        return np.full(lesion.shape, np.inf)
    unhealthy = lesion
    if grown_mm > 0:
        unhealthy = lesion | (ndimage.distance_transform_edt(~lesion, sampling=spacing_mm) < grown_mm)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~unhealthy, sampling=spacing_mm)
    return distance


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
