"""Do mask and image belong together, and how does the mask come onto the image's grid?

Two grids are compared by where they put the eight corners of the volume, in mm, never by the entries of their
matrices: a matrix entry of 1e-4 is nothing in one place and 2 cm in another.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.frame import bounding_box
from neuromend.data.mask_values import voxel_ml
from neuromend.errors import GeometryError, InputError
from neuromend.findings import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from neuromend.data.volume import Volume

SAME_GRID_MM = 0.01  # below it, the rounding of a float32 header
SAME_GRID_VOXELS = 0.5  # beyond it, a voxel index means another voxel in the other file


def check_pair(mask: Volume, image: Volume, *, force_pair: bool) -> list[Finding]:
    """Refuse a mask that is the image itself (MA-17) or another person's (MA-18).

    Raises:
        InputError: MA-17 or MA-18.
    """
    if mask.sha256_voxels == image.sha256_voxels:
        how = "the same file" if mask.sha256_file == image.sha256_file else "a file with the same voxels"
        raise InputError(
            "MA-17",
            f"the mask is {how} as the image {name(image)}; expected a lesion mask",
            why="every bright voxel of the scan would count as lesion",
            fix="check the two paths: -i takes the scan, -m the mask",
            path=mask.path,
        )
    findings = []
    for key, theirs, ours in _differing_entities(mask.path, image.path):
        what = f"the mask is named {key}-{theirs} and the image {name(image)} {key}-{ours}"
        if not force_pair:
            raise InputError(
                "MA-18",
                f"{what}; expected the same {key}- label",
                why="with another scan's mask healthy tissue is replaced and the lesion stays",
                fix="give the mask of this scan, or --force-pair if the names mislead",
                path=mask.path,
            )
        findings.append(Finding("MA-18", "warning", f"{what}; accepted because the pair was forced"))
    return findings


def onto_image_grid(
    selected: NDArray[np.bool_], mask: Volume, image: Volume, *, resample: bool
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """Bring a selection on the mask's grid onto the image's grid.

    Args:
        selected: lesion voxels, on the grid of ``mask``; not empty.
        mask: gives the grid of ``selected`` and the file to name.
        image: gives the wanted grid.
        resample: allow another grid, by nearest neighbour through world space.

    Returns:
        The lesion voxels on the image's grid (x, y, z) and what was noticed.

    Raises:
        GeometryError: IN-22 (no world coordinates), MA-09 (shape), MA-10 (affine), MA-12 (outside the image).
    """
    same_shape = mask.shape == image.shape
    if mask.has_world != image.has_world or not (mask.has_world or same_shape):
        raise _no_world(mask, image)
    if same_shape and not image.has_world:
        message = (
            "neither image nor mask says where it lies; they were matched voxel by voxel, which MAY BE WRONG"
        )
        return selected, [Finding("IN-22", "warning", message)]
    gap_mm, gap_voxels, corner = _worst_corner(mask, image) if same_shape else (np.inf, np.inf, "")
    if gap_mm <= SAME_GRID_MM:
        return selected, [Finding("MA-10", "pass", f"mask and image share one grid (to {gap_mm:.3f} mm)")]
    if gap_voxels <= SAME_GRID_VOXELS:
        message = (
            f"the affines of mask and image differ by {gap_mm:.3g} mm ({gap_voxels:.2g} voxel) at the"
            f" {corner} corner; the mask was used voxel by voxel"
        )
        return selected, [Finding("MA-10", "warning", message)]
    cut_off = _share_outside(selected, mask, image)
    if not resample:
        raise _other_grid(mask, image, gap_mm, gap_voxels, corner)
    return _resampled(selected, mask, image, cut_off)


def name(volume: Volume) -> str:
    """How a message calls a volume: its path, or that it has none."""
    return "in memory" if volume.path is None else str(volume.path)


def _differing_entities(mask: Path | None, image: Path | None) -> list[tuple[str, str, str]]:
    """(key, label of the mask, label of the image) for each BIDS entity that both names give, differently."""
    if mask is None or image is None:
        return []
    pairs = ((key, _entity(mask, key), _entity(image, key)) for key in ("sub", "ses"))
    return [(key, theirs, ours) for key, theirs, ours in pairs if theirs and ours and theirs != ours]


def _entity(path: Path, key: str) -> str | None:
    """The label of an entity in the file name, else in the nearest folder that has it."""
    for part in reversed(path.parts):
        found = re.search(rf"(?:^|_){key}-([A-Za-z0-9]+)", part)
        if found:
            return found.group(1)
    return None


def _corners(volume: Volume) -> NDArray[np.float64]:
    """The eight outer corners of the volume in mm, (8, 3)."""
    index = np.array(list(product(*((-0.5, size - 0.5) for size in volume.shape))))
    return np.asarray(index @ volume.affine[:3, :3].T + volume.affine[:3, 3], dtype=np.float64)


def _worst_corner(mask: Volume, image: Volume) -> tuple[float, float, str]:
    """Largest distance of equal corners in mm and in image voxels, and which corner it is."""
    apart = _corners(mask) - _corners(image)
    distance = np.linalg.norm(apart, axis=1)
    voxels = np.linalg.norm(apart @ np.linalg.inv(image.affine[:3, :3]).T, axis=1)
    worst = int(np.argmax(distance))
    corner = ", ".join("last" if worst & bit else "0" for bit in (4, 2, 1))
    return float(distance[worst]), float(voxels.max()), f"({corner})"


def _share_outside(selected: NDArray[np.bool_], mask: Volume, image: Volume) -> float:
    """Share of the lesion that lies outside the image's field of view; all of it is refused (MA-12)."""
    to_image = np.linalg.inv(image.affine) @ mask.affine
    points = np.argwhere(selected) @ to_image[:3, :3].T + to_image[:3, 3]
    beyond = np.maximum(np.maximum(-0.5 - points, points - np.array(image.shape) + 0.5), 0.0)
    distance_mm = np.linalg.norm(beyond * image.spacing_mm, axis=1)
    if distance_mm.min() > 0:
        raise GeometryError(
            "MA-12",
            f"the mask lies {distance_mm.min():.0f} mm outside the field of view of the image {name(image)}",
            why="no voxel of the scan is inside the mask",
            fix="give the mask of this scan; if it is, its header is wrong: copy the scan's with"
            " `fslcpgeom IMAGE MASK`",
            path=mask.path,
        )
    return float(np.mean(distance_mm > 0))


def _no_world(mask: Volume, image: Volume) -> GeometryError:
    if mask.has_world == image.has_world:
        who = "mask and image have different shapes and neither says"
    else:
        who = f"the {'image' if mask.has_world else 'mask'} does not say"
    return GeometryError(
        "IN-22",
        f"{who} where it lies (qform and sform code are 0); expected the mask on the grid of {name(image)}",
        why="readers disagree about such files by centimetres, and in left and right",
        fix="if the mask was drawn on this very scan, copy the header: `fslcpgeom IMAGE MASK`",
        path=mask.path,
    )


def _other_grid(mask: Volume, image: Volume, gap_mm: float, gap_voxels: float, corner: str) -> GeometryError:
    """MA-09 (other shape) or MA-10 (other affine)."""
    sizes = [" x ".join(map(str, volume.shape)) for volume in (mask, image)]
    fix = "if both headers are right, --resample-mask brings the mask to the scan by nearest neighbour"
    if _same_box(mask, image):
        fix = "only the order or direction of the axes differs: --resample-mask reorders the voxels"
    if sizes[0] != sizes[1]:
        return GeometryError(
            "MA-09",
            f"the mask has {sizes[0]} voxels and the image {name(image)} {sizes[1]}; expected the same grid",
            why="a voxel of the mask is no voxel of the scan",
            fix=fix,
            path=mask.path,
        )
    return GeometryError(
        "MA-10",
        f"the mask lies elsewhere than the image {name(image)}: the {corner} corner is {gap_mm:.4g} mm"
        f" ({gap_voxels:.3g} voxels) apart; expected at most {SAME_GRID_VOXELS} voxel",
        why="the mask would cover other tissue than the lesion",
        fix=f"{fix}; if it was drawn on this very scan and lost its header, `fslcpgeom IMAGE MASK`",
        path=mask.path,
    )


def _same_box(mask: Volume, image: Volume) -> bool:
    """Whether the two volumes have the same eight corners, whatever their order."""
    apart = np.linalg.norm(_corners(mask)[:, None] - _corners(image)[None], axis=2)
    return bool(apart.min(axis=1).max() <= SAME_GRID_MM and sorted(mask.shape) == sorted(image.shape))


def _resampled(
    selected: NDArray[np.bool_], mask: Volume, image: Volume, cut_off: float
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """Nearest neighbour from the mask's grid to the image's, with volume and pieces before and after."""
    to_mask = np.linalg.inv(mask.affine) @ image.affine
    box = _box_on_image(selected, to_mask, image.shape)
    start = np.array([part.start for part in box])
    result = np.zeros(image.shape, dtype=np.bool_, order="F")
    # grid-constant: a point within half a voxel of the last centre still belongs to the last voxel.
    result[box] = ndimage.affine_transform(
        selected.astype(np.uint8),
        to_mask[:3, :3],
        offset=to_mask[:3, :3] @ start + to_mask[:3, 3],
        output_shape=tuple(part.stop - part.start for part in box),
        order=0,
        mode="grid-constant",
    )
    before = float(np.count_nonzero(selected)) * voxel_ml(mask.affine)
    after = float(np.count_nonzero(result)) * voxel_ml(image.affine)
    if after == 0:
        raise GeometryError(
            "MA-09",
            f"the lesion of {before:.3g} ml vanishes on the coarser grid of the image {name(image)}: no voxel"
            " centre lies in it",
            why="there would be nothing to fill",
            fix="draw the mask on this scan, or resample it yourself with a softer rule",
            path=mask.path,
        )
    # One label call per grid tells whether a small lesion fell between the voxels.
    touching = np.ones((3, 3, 3), dtype=np.bool_)
    drawn = tuple(slice(*span) for span in bounding_box(selected))
    lesions = [int(ndimage.label(array, touching)[1]) for array in (selected[drawn], result[box])]
    message = (
        f"the mask was resampled to the image by nearest neighbour: {before:.3g} ml in {lesions[0]} pieces"
        f" before, {after:.3g} ml in {lesions[1]} after"
    )
    changed = abs(after - before) > 0.1 * before or lesions[1] < lesions[0]
    findings = [Finding("MA-09", "warning" if changed else "note", message)]
    if cut_off > 0:
        message = f"{cut_off:.1%} of the mask lies outside the field of view of the image and was cut off"
        findings.append(Finding("MA-12", "warning", message))
    return result, findings


def _box_on_image(
    selected: NDArray[np.bool_], to_mask: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """The part of the image's grid that the lesion can reach, with a voxel to spare."""
    corners = np.array(list(product(*bounding_box(selected)))) - 0.5
    to_image = np.linalg.inv(to_mask)
    on_image = corners @ to_image[:3, :3].T + to_image[:3, 3]
    low = np.clip(np.floor(on_image.min(axis=0)) - 1, 0, np.array(shape) - 1).astype(int)
    high = np.clip(np.ceil(on_image.max(axis=0)) + 2, low + 1, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
