"""Is the lesion where a lesion can be? Checks of a mask against the head around it.

Every check here is blind to the lesion: image values are read outside the mask only, and what the mask hides
counts as brain where the rest of the head surrounds it. So a lesion that was already set to zero, even at the
surface of the brain, passes like any other, and noise written into the mask changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.mask_grid import name
from neuromend.errors import InputError
from neuromend.findings import Finding, Level

if TYPE_CHECKING:
    from neuromend.data.head import Head
    from neuromend.data.masks import LesionBox
    from neuromend.data.volume import Volume

LARGEST_BRAIN_ML = 1900.0  # a large adult brain; in a scan of the whole head the rest is not brain
SHELL_IN_AIR = 0.1  # a piece with less of its surroundings in the head than this lies in air
CHECKED_LESIONS = 200
POINTS_AN_AXIS = 32

REFUSED_SHARE_OF_BRAIN = 0.5
WARNED_SHARE_OF_BRAIN = 0.25
LARGE_SHARE_OF_BRAIN = 1 / 6  # a third of a hemisphere
REFUSED_SHARE_IN_AIR = 0.5
WARNED_SHARE_IN_AIR = 0.05
MANY_LESIONS = 50
THIN_EXTENT = 12  # voxels, rim included: a smaller lesion is thin by nature


@dataclass(frozen=True, eq=False)
class _Sample:
    """Some voxels of a lesion and of the shell around it, (n, 3) each, with the lesion's volume and width."""

    points: NDArray[np.int_]
    shell: NDArray[np.int_]
    ml: float
    half_width_mm: float


def _sample(voxels: NDArray[np.bool_], box: LesionBox, head: Head, grown_mm: float) -> _Sample:
    """At most about POINTS_AN_AXIS**3 voxels of a lesion, evenly spread."""
    size = np.array([part.stop - part.start for part in box.slices])
    stride = np.maximum(size // POINTS_AN_AXIS, 1)
    cut = voxels[box.slices]
    thinned = cut[tuple(slice(None, None, int(n)) for n in stride)]
    if not thinned.any():  # a sheet that the stride steps over
        stride, thinned = np.ones(3, dtype=int), cut
    # As wide as what the dilation hides and a coarse voxel of the head: it reaches one that is not hidden.
    width = np.ceil((head.step + grown_mm / head.spacing_mm) / stride).astype(int)
    padded = np.pad(thinned, [(int(n), int(n)) for n in width])
    shell = ndimage.maximum_filter(padded, size=tuple(2 * width + 1)) & ~padded
    start = np.array([part.start for part in box.slices])
    last = np.array(voxels.shape) - 1
    around = (np.argwhere(shell) - width) * stride + start
    around = around[((around >= 0) & (around <= last)).all(axis=1)]
    points = np.argwhere(thinned) * stride + start
    # A hidden cap of the head is wide in two directions; a long and narrow lesion hides little of the outline.
    half_width = float(np.median(size * head.spacing_mm)) / 2 + grown_mm
    return _Sample(points, around, box.volume_ml, half_width)


def _samples(
    voxels: NDArray[np.bool_], boxes: tuple[LesionBox, ...], head: Head, grown_mm: float
) -> list[_Sample]:
    return [_sample(voxels, box, head, grown_mm) for box in boxes[:CHECKED_LESIONS]]


def _share_in_head(
    head: Head, samples: list[_Sample], *, extrapolate: bool, flip: tuple[int, int] | None = None
) -> float:
    """Share of the lesions' volume in the head.

    Args:
        head: from ``find_head``.
        samples: the lesions.
        extrapolate: continue the outline of the head over what the mask hides, so that a large lesion at its
            surface counts in full; else the outline is taken as seen.
        flip: look at the mask flipped along (axis, its length).
    """
    inside = 0.0
    for sample in samples:
        points, shell = sample.points.copy(), sample.shell.copy()
        if flip is not None:
            axis, length = flip
            points[:, axis] = length - 1 - points[:, axis]
            shell[:, axis] = length - 1 - shell[:, axis]
        if head.share_of_known(shell) >= SHELL_IN_AIR:
            hidden_mm = sample.half_width_mm if extrapolate else 0.0
            inside += sample.ml * float(head.surrounds(points, hidden_mm).mean())
    return inside / sum(sample.ml for sample in samples)


def check_extent(mask: Volume, voxels: NDArray[np.bool_], *, invert: bool) -> None:
    """Refuse a mask that is the whole volume (MA-02) or looks inverted (MA-03). Looks at the mask only."""
    share = np.count_nonzero(voxels) / voxels.size
    if share == 1:
        raise InputError(
            "MA-02",
            f"the mask covers the whole volume (all {voxels.size:,} voxels); expected a lesion",
            why="nothing would be left of the scan to tell what belongs into the lesion",
            fix="give the lesion mask, 0 outside the lesion",
            path=mask.path,
        )
    faces = [np.moveaxis(voxels, axis, 0)[edge] for axis in range(3) for edge in (0, -1)]
    on_faces = sum(int(np.count_nonzero(face)) for face in faces) / sum(face.size for face in faces)
    if share > 0.5 and on_faces > 0.5:
        raise InputError(
            "MA-03",
            f"the mask looks inverted: it covers {share:.1%} of the volume and {on_faces:.0%} of its border;"
            " expected a lesion inside the brain",
            why="the healthy tissue would be replaced and the lesion kept",
            fix="drop --invert-mask" if invert else "if background is 1 in this file, add --invert-mask",
            path=mask.path,
        )


def nothing_left(mask: Volume, image: Volume, voxels: NDArray[np.bool_]) -> InputError:
    """The MA-02 error for a mask that hides all of the head."""
    share = np.count_nonzero(voxels) / voxels.size
    return InputError(
        "MA-02",
        f"the mask ({share:.0%} of the volume) leaves nothing of the head in {name(image)}: every voxel"
        " outside the mask has the same value",
        why="the fill takes brightness and contrast from the tissue around the lesion",
        fix="give the lesion mask (this may be a brain mask, or inverted: --invert-mask)",
        path=mask.path,
    )


def check_position(
    mask: Volume,
    image: Volume,
    voxels: NDArray[np.bool_],
    boxes: tuple[LesionBox, ...],
    head: Head,
    *,
    grown_mm: float,
) -> list[Finding]:
    """Refuse a mask mostly in air (MA-13), and say where a flip would fit better (MA-11).

    Args:
        mask: for the file to name.
        image: for its name and the names of its axes.
        voxels: the lesion as drawn, before any dilation, on the image's grid.
        boxes: its lesions, largest first.
        head: from ``find_head``, with all that will be filled hidden.
        grown_mm: how far the dilation hides more than ``voxels``.

    Raises:
        InputError: MA-13, more than half of the lesion lies in air.
    """
    samples = _samples(voxels, boxes, head, grown_mm)
    # The outline as seen misses the cap that a large lesion hides: it may warn, but not refuse.
    seen_inside = _share_in_head(head, samples, extrapolate=False)
    in_air = 1 - _share_in_head(head, samples, extrapolate=True)
    flip = _better_flip(head, samples, image, 1 - in_air)
    if in_air > REFUSED_SHARE_IN_AIR:
        raise InputError(
            "MA-13",
            f"{in_air:.0%} of the mask lies in air, outside the head of {name(image)}; expected it in the"
            f" brain{f' ({flip.message})' if flip else ''}",
            why="there is no tissue to continue into such a mask",
            fix="open both in a viewer: the mask may be shifted, flipped or another person's",
            path=mask.path,
        )
    level: Level = "pass" if seen_inside >= 1 - WARNED_SHARE_IN_AIR else "warning"
    where = Finding("MA-13", level, f"{seen_inside:.1%} of the mask lies in the head")
    return [where, flip] if flip else [where]


def check_size(
    mask: Volume, voxels: NDArray[np.bool_], boxes: tuple[LesionBox, ...], head: Head
) -> list[Finding]:
    """Compare what will be filled with the brain.

    Args:
        mask: for the file to name.
        voxels: all that will be filled, after any dilation.
        boxes: its lesions, largest first.
        head: from ``find_head``, with ``voxels`` hidden.

    Raises:
        InputError: MA-02, more than half of the brain would be filled.
    """
    inside = _share_in_head(head, _samples(voxels, boxes, head, 0.0), extrapolate=True)
    filled_ml = sum(box.volume_ml for box in boxes) * inside
    share = filled_ml / min(head.volume_ml + filled_ml, LARGEST_BRAIN_ML)
    if share > REFUSED_SHARE_OF_BRAIN:
        raise InputError(
            "MA-02",
            f"the mask covers {share:.0%} of the brain; expected at most {REFUSED_SHARE_OF_BRAIN:.0%}",
            why="too little of the brain is left to tell what belongs into the lesion",
            fix="give the lesion mask (this may be a brain mask, or inverted: --invert-mask)",
            path=mask.path,
        )
    if share > WARNED_SHARE_OF_BRAIN:
        message = f"the mask covers {share:.0%} of the brain; much of the fill is a guess"
        return [Finding("MA-02", "warning", message)]
    if share > LARGE_SHARE_OF_BRAIN:
        message = f"the mask covers {share:.0%} of the brain, more than a third of a hemisphere"
        return [Finding("MA-16", "note", message)]
    return [Finding("MA-02", "pass", f"the mask covers {share:.1%} of the brain")]


def _better_flip(head: Head, samples: list[_Sample], image: Volume, inside: float) -> Finding | None:
    """MA-11: a mask partly in air that a flip of one axis would bring into the head."""
    if inside >= 1 - WARNED_SHARE_IN_AIR:
        return None
    sizes = enumerate(image.shape)
    flipped = [_share_in_head(head, samples, extrapolate=True, flip=axis) for axis in sizes]
    axis = int(np.argmax(flipped))
    if flipped[axis] < max(inside + 0.1, 0.9):
        return None
    direction = ("left-right", "front-back", "up-down")[int(np.argmax(np.abs(image.affine[:3, axis])))]
    message = (
        f"the mask may be flipped {direction}: flipped, {flipped[axis]:.0%} of it would lie in the head,"
        f" now {inside:.0%}"
    )
    return Finding("MA-11", "warning", message)


def check_shape(voxels: NDArray[np.bool_], boxes: tuple[LesionBox, ...]) -> list[Finding]:
    """What is unusual in the shape: at the border (MA-14), many pieces (MA-15), sheets and holes (MA-16)."""
    findings = []
    sides = [list(zip(box.slices, voxels.shape, strict=True)) for box in boxes]
    on_border = sum(any(part.start == 0 or part.stop == size for part, size in side) for side in sides)
    if on_border:
        message = f"{on_border:,} of {len(boxes):,} lesions touch the border of the volume: one-sided context"
        findings.append(Finding("MA-14", "warning", message))
    single = sum(all(part.stop - part.start == 1 for part, _ in side) for side in sides)
    if len(boxes) > MANY_LESIONS or single:
        message = (
            f"the mask has {len(boxes):,} separate lesions, {single:,} of them a single voxel; all are filled"
            " (--min-size-ml leaves small ones out)"
        )
        findings.append(Finding("MA-15", "note", message))
    largest = np.pad(voxels[boxes[0].slices], 1)
    if max(largest.shape) > THIN_EXTENT and not ndimage.binary_erosion(largest).any():
        message = (
            f"the largest lesion ({boxes[0].volume_ml:.3g} ml) is a sheet or thread, two voxels thick or less"
        )
        findings.append(Finding("MA-16", "note", message))
    labels, _ = ndimage.label(~largest)
    holes = int(np.count_nonzero(labels > 1))  # 1 is the surroundings, which hold the first voxel
    if holes:
        findings.append(
            Finding("MA-16", "note", f"the largest lesion encloses {holes:,} voxels that stay as they are")
        )
    return findings
