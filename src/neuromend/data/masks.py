"""The lesion mask: from a file and the user's options to the voxels that will be filled, or a refusal."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.frame import bounding_box
from neuromend.data.head import find_head
from neuromend.data.mask_checks import check_extent, check_position, check_shape, check_size, nothing_left
from neuromend.data.mask_grid import check_pair, onto_image_grid
from neuromend.data.mask_specks import leave_out_specks
from neuromend.data.mask_values import Labels, binarise, empty_mask, voxel_ml
from neuromend.errors import UsageError
from neuromend.findings import Finding

if TYPE_CHECKING:
    from neuromend.data.volume import Volume

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class MaskOptions:
    """How to read a mask.

    Args:
        labels: labels of a label map that are lesion, or ``"all"``.
        threshold: values at or above it are lesion, for probabilities and soft edges.
        resample: bring a mask of another grid to the image by nearest neighbour.
        invert: the file has 1 for background and 0 for lesion.
        allow_empty: an empty mask is no error.
        dilate_mm: grow the lesion by this distance.
        force_pair: accept a mask whose name gives another ``sub-`` or ``ses-`` than the image's.
        min_size_ml: drop 26-connected pieces smaller than this, before any dilation.

    Raises:
        UsageError: MA-04, MA-06, MA-15 or MA-20, for values that mean nothing or options that contradict
            each other.
    """

    labels: Labels = None
    threshold: float | None = None
    resample: bool = False
    invert: bool = False
    allow_empty: bool = False
    dilate_mm: float = 0.0
    force_pair: bool = False
    min_size_ml: float = 0.0

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < math.inf:
            raise UsageError(
                "MA-04",
                f"--threshold is {self.threshold:g}; expected a number above 0",
                why="at 0 the background would be lesion",
                fix="--threshold 0.5 for probabilities",
            )
        if self.labels is not None and self.labels != "all" and (not self.labels or min(self.labels) < 1):
            raise UsageError(
                "MA-06",
                f"--labels is {','.join(map(str, self.labels)) or 'empty'}; expected whole numbers above 0",
                why="label 0 is the background",
                fix="--labels 1,2,3, or --invert-mask if the lesion is 0 in this file",
            )
        if self.labels is not None and self.threshold is not None:
            raise UsageError(
                "MA-06",
                "--labels and --threshold were both given; expected one of them",
                why="a file holds either labels or graded values",
                fix="keep --labels for a label map, --threshold for probabilities",
            )
        if not 0 <= self.dilate_mm < math.inf:
            raise UsageError(
                "MA-20",
                f"--dilate-mm is {self.dilate_mm:g}; expected 0 or more millimetres",
                why="a lesion can be grown, not shrunk",
                fix="--dilate-mm 2",
            )
        if not 0 <= self.min_size_ml < math.inf:
            raise UsageError(
                "MA-15",
                f"--min-size-ml is {self.min_size_ml:g}; expected 0 or more millilitres",
                why="pieces of the mask smaller than this are left out",
                fix="--min-size-ml 0.01",
            )


@dataclass(frozen=True)
class LesionBox:
    """One lesion: the box that holds it, its volume, and its centre of mass in RAS mm."""

    slices: Box
    volume_ml: float
    centre_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class LesionMask:
    """The voxels that will be filled, on the image's own grid.

    Args:
        voxels: (x, y, z) bool, True where tissue must be invented.
        volume_ml: their volume.
        components: number of separate lesions (26-connected).
        boxes: the lesions, largest first.
        findings: what was checked and noticed.
        sha256_voxels: of the voxels as one byte each, first axis fastest, as a NIfTI file stores them.
    """

    voxels: NDArray[np.bool_]
    volume_ml: float
    components: int
    boxes: tuple[LesionBox, ...]
    findings: tuple[Finding, ...]
    sha256_voxels: str


def prepare_mask(mask: Volume, image: Volume, options: MaskOptions) -> LesionMask:
    """Turn a mask as read into the voxels to fill, and refuse whatever would fill something else.

    No decision here looks at the image inside the mask: replacing it by noise changes nothing in the result.

    Args:
        mask: the mask as read, on any grid.
        image: the scan.
        options: how to read the mask.

    Returns:
        The mask on the image's grid, dilated if asked; the findings of the reader of the mask come first.

    Raises:
        InputError: the mask is empty, not a mask, another person's, or not inside the head (MA-01 to MA-08,
            MA-13, MA-17, MA-18).
        GeometryError: its grid does not fit the image's (MA-09, MA-10, MA-12, IN-22).
    """
    findings = [*mask.findings, *check_pair(mask, image, force_pair=options.force_pair)]
    reading: dict[str, Any] = {
        "labels": options.labels,
        "threshold": options.threshold,
        "invert": options.invert,
    }
    selected, noted = binarise(mask, **reading)
    findings += noted
    if not selected.any():
        if not options.allow_empty:
            raise empty_mask(mask, **reading)
        return _nothing_to_fill(image, findings)
    voxels, noted = onto_image_grid(selected, mask, image, resample=options.resample)
    findings += noted
    check_extent(mask, voxels, invert=options.invert)
    if options.min_size_ml > 0:
        voxels, noted = leave_out_specks(
            voxels, mask, image, min_size_ml=options.min_size_ml, allow_empty=options.allow_empty
        )
        findings += noted
        if not voxels.any():
            return _nothing_to_fill(image, findings)

    drawn = find_lesions(voxels, image.affine)
    filled, boxes = voxels, drawn
    if options.dilate_mm > 0:
        filled = _dilated(voxels, drawn, image.spacing_mm, options.dilate_mm)
        boxes = find_lesions(filled, image.affine)
        findings.append(_dilation_finding(voxels, filled, image, options.dilate_mm))
    head = find_head(image, filled)
    if head is None:
        raise nothing_left(mask, image, filled)
    findings += check_position(mask, image, voxels, drawn, head, grown_mm=options.dilate_mm)
    findings += check_size(mask, filled, boxes, head)
    findings += check_shape(filled, boxes)
    return _lesion_mask(filled, boxes, image, findings)


def find_lesions(voxels: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[LesionBox, ...]:
    """The 26-connected pieces of a mask (x, y, z), largest first; empty for an empty mask."""
    if not voxels.any():
        return ()
    whole = bounding_box(voxels)
    start = np.array([first for first, _ in whole])
    labels, count = ndimage.label(
        voxels[tuple(slice(*span) for span in whole)], np.ones((3, 3, 3), dtype=np.bool_)
    )
    places = np.nonzero(labels)
    owner = labels[places] - 1
    sizes = np.bincount(owner, minlength=count)
    centres = (
        np.stack([np.bincount(owner, place, minlength=count) / sizes for place in places], axis=1) + start
    )
    centres_mm = centres @ affine[:3, :3].T + affine[:3, 3]
    slices = ndimage.find_objects(labels)
    unit = voxel_ml(affine)
    order = np.argsort(-sizes, kind="stable")
    return tuple(
        LesionBox(_moved(slices[i], start), float(sizes[i] * unit), _triple(centres_mm[i])) for i in order
    )


def _nothing_to_fill(image: Volume, findings: list[Finding]) -> LesionMask:
    """The empty mask that ``allow_empty`` accepts."""
    findings.append(
        Finding("MA-01", "warning", "the mask is empty: nothing to fill, the scan stays as it is")
    )
    return _lesion_mask(np.zeros(image.shape, dtype=np.bool_, order="F"), (), image, findings)


def _moved(box: tuple[slice, ...], start: NDArray[np.int_]) -> Box:
    x, y, z = (slice(p.start + int(s), p.stop + int(s)) for p, s in zip(box, start, strict=True))
    return x, y, z


def _triple(point: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), float(point[2])


def _dilated(
    voxels: NDArray[np.bool_],
    boxes: tuple[LesionBox, ...],
    spacing_mm: tuple[float, float, float],
    distance_mm: float,
) -> NDArray[np.bool_]:
    """Every voxel whose centre is at most ``distance_mm`` from the centre of a lesion voxel."""
    grown = voxels.copy(order="K")
    reach = np.floor(distance_mm / np.asarray(spacing_mm)).astype(int)
    for box in boxes:
        around = tuple(
            slice(max(part.start - int(r), 0), part.stop + int(r))
            for part, r in zip(box.slices, reach, strict=True)
        )
        distance = ndimage.distance_transform_edt(~voxels[around], sampling=spacing_mm)
        # A float rounding of the spacing must not drop the voxels at exactly this distance.
        grown[around] |= distance <= distance_mm * (1 + 1e-6)
    return grown


def _dilation_finding(
    voxels: NDArray[np.bool_], filled: NDArray[np.bool_], image: Volume, distance_mm: float
) -> Finding:
    added = int(np.count_nonzero(filled)) - int(np.count_nonzero(voxels))
    return Finding(
        "MA-20",
        "note",
        f"the mask was dilated by {distance_mm:g} mm: {added:,} voxels"
        f" ({added * voxel_ml(image.affine):.3g} ml) added",
    )


def _lesion_mask(
    voxels: NDArray[np.bool_], boxes: tuple[LesionBox, ...], image: Volume, findings: list[Finding]
) -> LesionMask:
    return LesionMask(
        voxels=voxels,
        volume_ml=float(np.count_nonzero(voxels)) * voxel_ml(image.affine),
        components=len(boxes),
        boxes=boxes,
        findings=tuple(findings),
        sha256_voxels=hashlib.sha256(voxels.astype(np.uint8).tobytes("F")).hexdigest(),
    )
