"""Lesion masks for a healthy brain, with the numbers, sizes and sites of patients.

Every lesion begins at a random place of its site and takes the nearest white matter, nearness being that of a
randomly turned ellipsoid with a rough surface, until it has its volume. Lesions do not touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neuromend.errors import UsageError
from neuromend.lesions.anatomy import SITES, Anatomy
from neuromend.lesions.statistics import LesionStatistics, draw

Mask = NDArray[np.bool_]

FEWEST_VOXELS = 3
"""A lesion has at least so many; the learned ones too, smaller specks were left out."""

ROUGHNESS = 0.25
"""Amplitude of the bumps of the surface, relative to the radius."""

TRIES = 20
ENOUGH = 0.7
"""Share of the wanted volume with which a place is accepted."""

TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion: its number in the map, its site, its volume, and the volume that was wanted."""

    number: int
    site: str
    volume_ml: float
    wanted_ml: float


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of one brain.

    Attributes:
        map: (x, y, z) int16, 0 or the number of the lesion.
        placed: each of them, in the order of their numbers.
        not_placed: how many found no room.
    """

    map: NDArray[np.int16]
    placed: tuple[Lesion, ...]
    not_placed: int

    @property
    def mask(self) -> Mask:
        """(x, y, z) True in any lesion."""
        return self.map > 0

    @property
    def volume_ml(self) -> float:
        """Volume of all."""
        return float(sum(lesion.volume_ml for lesion in self.placed))


def simulate(
    anatomy: Anatomy,
    statistics: LesionStatistics,
    *,
    seed: int,
    count: int | None = None,
    load_ml: float | None = None,
    sites: Sequence[str] = SITES,
) -> Lesions:
    """Draw the lesions of one patient and place them.

    Args:
        anatomy: of the healthy brain.
        statistics: of the patients.
        seed: the same brain, seed and numbers give the same lesions.
        count: how many; by default drawn, as in patients.
        load_ml: the volume of all together: all drawn volumes are scaled to it; by default as drawn.
        sites: only these.

    Raises:
        UsageError: LE-01, numbers or sites that mean nothing; LE-02, no lesion found room.
    """
    _check(count, load_ml, sites)
    rng = np.random.default_rng([seed % 2**63, 20260])
    number = count if count is not None else max(1, round(draw(statistics.number, rng)))
    shares = np.array([statistics.site_share[site] for site in sites])
    chosen = [sites[i] for i in rng.choice(len(sites), number, p=shares / shares.sum())]
    wanted = np.array([draw(statistics.volume_ml[site], rng, logarithmic=True) for site in chosen])
    if load_ml is not None:
        wanted *= load_ml / wanted.sum()
    one = float(np.prod(anatomy.spacing_mm)) / 1000
    found = np.zeros(anatomy.white.shape, np.int16)
    free = anatomy.white.copy()
    placed: list[Lesion] = []
    rooms = {site: _Room.of(anatomy, site) for site in dict.fromkeys(chosen)}
    for index in np.argsort(-wanted, kind="stable"):  # the largest first: they need the room most
        voxels = max(FEWEST_VOXELS, round(wanted[index] / one))
        elongation = draw(statistics.elongation, rng)
        places = rooms[chosen[index]].grow(rng, free, voxels, elongation, anatomy.spacing_mm)
        if places is None:
            continue
        label = len(placed) + 1
        found[places] = label
        placed.append(Lesion(label, chosen[index], len(places[0]) * one, float(wanted[index])))
        _take(free, places)
    if not placed:
        raise UsageError(
            "LE-02",
            f"none of {number} lesions found room in the white matter of {', '.join(sites)}",
            why="the brain has too little white matter there, or the lesions are too large",
            fix="a smaller --load-ml, or other --sites; check the tissue labels",
        )
    return Lesions(found, tuple(placed), number - len(placed))


@dataclass(frozen=True, eq=False)
class _Room:
    """Where lesions of one site may begin (n, 3) and spread to (x, y, z)."""

    begin: NDArray[np.intp]
    spread: Mask

    @classmethod
    def of(cls, anatomy: Anatomy, site: str) -> _Room:
        begin, spread = anatomy.room(site)
        return cls(np.argwhere(begin), spread)

    def grow(
        self,
        rng: np.random.Generator,
        free: Mask,
        voxels: int,
        elongation: float,
        spacing_mm: tuple[float, float, float],
    ) -> tuple[NDArray[np.intp], ...] | None:
        """The voxels of a new lesion as three index arrays; None where no place was found."""
        best: tuple[NDArray[np.intp], ...] | None = None
        for _ in range(TRIES if len(self.begin) else 0):
            seed = self.begin[rng.integers(len(self.begin))]
            turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
            bumps = rng.standard_normal((5, 5, 5))
            if not free[tuple(seed)]:
                continue
            shape = _Shape(voxels, elongation, turn, bumps)
            grown = _grown(free, self.spread, seed, shape, spacing_mm)
            if best is None or len(grown[0]) > len(best[0]):
                best = grown
            if len(best[0]) >= ENOUGH * voxels:
                return best
        return best if best is not None and len(best[0]) >= FEWEST_VOXELS else None


@dataclass(frozen=True, eq=False)
class _Shape:
    """A wanted lesion: its voxels, longest over shortest axis, rotation (3, 3) and surface (5, 5, 5)."""

    voxels: int
    elongation: float
    turn: NDArray[np.float64]
    bumps: NDArray[np.float64]


def _grown(
    free: Mask,
    spread: Mask,
    seed: NDArray[np.intp],
    shape: _Shape,
    spacing_mm: tuple[float, float, float],
) -> tuple[NDArray[np.intp], ...]:
    """The nearest voxels to the seed, in the metric of the shape, that are connected with it."""
    edge = np.asarray(spacing_mm)
    radius = (shape.voxels * float(edge.prod()) * 3 / (4 * np.pi)) ** (1 / 3)
    reach = np.ceil(radius * max(2.0, shape.elongation) / edge).astype(int) + 1
    low = np.maximum(seed - reach, 0)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, seed + reach + 1, strict=True))
    allowed = free[box] & spread[box]
    labels, _ = ndimage.label(allowed)
    start = tuple(seed - low)
    places = np.argwhere(labels == labels[start])
    stretch = np.array([shape.elongation**0.5, 1.0, shape.elongation**-0.5])
    away = ((places - start) * edge) @ shape.turn / stretch
    distance = np.linalg.norm(away, axis=1) / radius
    knots = (places - start) / reach * 2 + 2  # -reach to reach on the five knots of the surface
    distance += ROUGHNESS * ndimage.map_coordinates(shape.bumps, knots.T, order=1, mode="nearest")
    distance[(places == start).all(axis=1)] = -np.inf
    chosen = places[np.argsort(distance, kind="stable")[: shape.voxels]]
    small = np.zeros(allowed.shape, bool)
    small[tuple(chosen.T)] = True
    labels, _ = ndimage.label(small)
    return tuple(
        index + int(first) for index, first in zip(np.nonzero(labels == labels[start]), low, strict=True)
    )


def _take(free: Mask, places: tuple[NDArray[np.intp], ...]) -> None:
    """Take a lesion and the voxels that touch it from the room that is left."""
    low = [max(0, int(index.min()) - 1) for index in places]
    box = tuple(slice(a, int(index.max()) + 2) for a, index in zip(low, places, strict=True))
    taken = np.zeros(free[box].shape, bool)
    taken[tuple(index - a for index, a in zip(places, low, strict=True))] = True
    free[box] &= ~ndimage.binary_dilation(taken, TOUCHING)


def _check(count: int | None, load_ml: float | None, sites: Sequence[str]) -> None:
    unknown = [site for site in sites if site not in SITES]
    if count is not None and not 1 <= count <= 5000:
        what, fix = f"--count is {count}, expected 1 to 5000", "--count 40"
    elif load_ml is not None and not 0 < load_ml < 500:
        what, fix = f"--load-ml is {load_ml:g}, expected more than 0 and less than 500", "--load-ml 10"
    elif unknown or not sites:
        what, fix = (
            f"--sites names {', '.join(unknown) or 'nothing'}, expected some of {','.join(SITES)}",
            "--sites periventricular,deep",
        )
    else:
        return
    raise UsageError("LE-01", what, why="no lesions can be drawn from it", fix=fix)
