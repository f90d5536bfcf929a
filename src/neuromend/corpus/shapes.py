"""Shapes of real lesions, read from folders of masks in MNI space, and where MNI space lies in a brain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuromend.data.lesions import LesionShape
from neuromend.errors import InputError, MissingInputError

LARGEST_ML = 150.0
"""Larger lesion masks are left out: they hide most of a hemisphere."""

NEAREST = 40
"""A shape is drawn from this many of about the wanted volume."""

# Where the 1st and 99th percentile of the voxels of a brain lie in MNI152 space (mm): means over the 168 healthy,
# skull-stripped train scans of this project, whose affines to MNI space are known (standard deviations 1 to 1.5).
_BRAIN_LOW, _BRAIN_HIGH = np.array([-64.2, -96.6, -56.2]), np.array([64.2, 63.3, 73.6])


@dataclass(frozen=True)
class ShapeSource:
    """A folder of lesion masks in MNI space.

    Attributes:
        folder: all ``*.nii.gz`` and ``*.nii`` in it are masks; empty ones and large ones are left out.
        weight: how often it is drawn from, relative to the other folders.
        hold_out: leave out every so-many-th mask, in the order of names, beginning with the first (0: none). The
            fixed dev holes of this repository are made of every 4th stroke mask and every 2nd MS mask.
    """

    folder: Path
    weight: float = 1.0
    hold_out: int = 0


@dataclass(frozen=True, eq=False)
class ShapeBook:
    """Lesion shapes at hand: those of each source, sorted by volume, and the weights of the sources."""

    shapes: tuple[tuple[LesionShape, ...], ...] = ()
    weights: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.shapes)

    def draw(self, rng: np.random.Generator, volume_ml: float) -> LesionShape:
        """A shape of about the volume; of the sources with no shape so large, only the best one is asked."""
        tops = np.array([source[-1].volume_ml for source in self.shapes])
        weights = np.where(tops >= min(volume_ml, float(tops.max())), self.weights, 0.0)
        source = self.shapes[int(rng.choice(len(self.shapes), p=weights / weights.sum()))]
        volumes = np.array([shape.volume_ml for shape in source])
        nearest = np.argsort(np.abs(np.log(volumes / volume_ml)), kind="stable")[:NEAREST]
        return source[int(rng.choice(nearest))]


def load_shapes(*sources: ShapeSource, largest_ml: float = LARGEST_ML) -> ShapeBook:
    """Read the lesion masks of all sources.

    Raises:
        MissingInputError: TR-32, a folder is not there.
        InputError: TR-32, there is no usable mask in a folder, or a file cannot be read.
    """
    groups = []
    for source in sources:
        if not source.folder.is_dir():
            raise MissingInputError(
                "TR-32",
                "the folder of lesion shapes is not there",
                why="holes with the shape of real lesions were asked for",
                fix=f"give a folder of lesion masks in MNI space, or none; try: ls '{source.folder.parent}'",
                path=source.folder,
            )
        found = []
        for number, path in enumerate(sorted(p for p in source.folder.glob("*.nii*") if p.is_file())):
            if source.hold_out and number % source.hold_out == 0:
                continue
            shape = _read(path)
            if shape is not None and shape.volume_ml <= largest_ml:
                found.append(shape)
        if not found:
            raise InputError(
                "TR-32",
                f"no usable lesion mask (*.nii, *.nii.gz; not empty, at most {largest_ml:g} ml) in this folder",
                why="holes with the shape of real lesions were asked for",
                fix=f"give a folder of lesion masks in MNI space, or none; try: ls '{source.folder}'",
                path=source.folder,
            )
        groups.append(tuple(sorted(found, key=lambda shape: shape.volume_ml)))
    return ShapeBook(tuple(groups), tuple(source.weight for source in sources))


def _read(path: Path) -> LesionShape | None:
    """One mask; None where it is empty."""
    try:
        return LesionShape.read(path)
    except ValueError:
        return None
    except Exception as error:  # nibabel tells of a damaged file in a dozen ways
        raise InputError(
            "TR-32",
            f"this lesion mask cannot be read ({error})",
            why="holes with the shape of real lesions were asked for",
            fix="remove or replace the file",
            path=path,
        ) from error


def approximate_mni(
    points: NDArray[np.float64], spacing_mm: NDArray[np.float64], mirror: NDArray[np.float64]
) -> NDArray[np.float64]:
    """About where MNI space lies in a brain, from its own axes: the midsagittal plane and its extent.

    Args:
        points: (n, 3) voxels of the brain, axes nearest to RAS.
        spacing_mm: (3,) of these voxels.
        mirror: (4, 4) voxel -> voxel reflection at the midsagittal plane.

    Returns:
        (4, 4), voxel -> MNI152 mm. The brain is stretched to the extent of an average brain, its plane is x = 0.
    """
    to_mm = np.diag([*spacing_mm, 1.0])
    reflect = to_mm @ mirror @ np.linalg.inv(to_mm)
    values, vectors = np.linalg.eigh((np.eye(3) - (reflect[:3, :3] + reflect[:3, :3].T) / 2) / 2)
    right = vectors[:, int(np.argmax(values))]
    right = right * np.sign(right[0] or 1.0)
    up = np.array([0.0, 0.0, 1.0]) - right[2] * right
    up /= np.linalg.norm(up)
    axes = np.stack([right, np.cross(up, right), up])
    places = (points * spacing_mm) @ axes.T
    low, high = np.percentile(places, [1, 99], axis=0)
    scale = (_BRAIN_HIGH - _BRAIN_LOW) / np.maximum(high - low, 1.0)
    plane = float(right @ reflect[:3, 3]) / 2
    found = np.eye(4)
    found[:3, :3] = scale[:, None] * axes * spacing_mm
    found[:3, 3] = [-scale[0] * plane, *(_BRAIN_LOW - scale * low)[1:]]
    return found
