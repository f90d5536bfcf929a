"""What a header says about the voxels, and the checks that every format shares."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuromend.data.content import Kind
from neuromend.errors import GeometryError, InputError, UsageError
from neuromend.findings import Finding

Affine = NDArray[np.float64]

MIN_VOXELS_PER_AXIS = 16
# The largest side of a head scan, in mm: below it is no brain, above it no scanner.
MIN_EXTENT_MM = 50.0
MAX_EXTENT_MM = 600.0
# Header noise: a difference below this decides nothing.
TOLERANCE_MM = 1e-3
MAX_SPACING_MM = 4.0
MAX_ANISOTROPY = 6.0
MAX_SHEAR_DEGREES = 1.0
# Beyond this a number in an affine is no length, and products of it overflow.
MAX_AFFINE = 1e9


@dataclass(frozen=True, eq=False)
class Header:
    """The part of a header that decides how voxels are read and written.

    Args:
        container: format of the file.
        stored_dtype: type of the stored voxels, with its byte order.
        dims: length of each stored axis, x first; at least three.
        voxel_offset: bytes before the first voxel, in the file that holds voxels.
        slope, inter: intensity = stored * slope + inter; (1, 0) where the file asks for no scaling.
        affine: (4, 4) voxel index -> RAS mm.
        has_world: False if the file has no affine and ``affine`` follows from what the user stated.
        units: what the header says about its units, for messages.
        findings: what was noticed.
    """

    container: Kind
    stored_dtype: np.dtype[np.generic]
    dims: tuple[int, ...]
    voxel_offset: int
    slope: float
    inter: float
    affine: Affine
    has_world: bool
    units: str
    findings: tuple[Finding, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Length of the three spatial axes."""
        return self.dims[0], self.dims[1], self.dims[2]

    @property
    def volumes(self) -> int:
        """How many volumes the file holds."""
        return prod(self.dims[3:])

    @property
    def needed_bytes(self) -> int:
        """Bytes from the start of the file through its last voxel."""
        return self.voxel_offset + prod(self.dims) * self.stored_dtype.itemsize


def field_error(path: Path | None, field: str, expected: str, found: object) -> InputError:
    """The refusal of a header field that makes no sense (IN-07)."""
    return InputError(
        "IN-07",
        f"field {field}: expected {expected}, found {found}",
        why="The voxels cannot be found or understood without it; a wrong guess gives a wrong image.",
        fix="Copy the file again, or save it again with the program that made it.",
        path=path,
    )


def check_dims(path: Path | None, dims: tuple[int, ...]) -> None:
    """Refuse sizes that no volume has (IN-08), 1-D and 2-D images (IN-13) and tiny volumes (IN-32)."""
    if not 1 <= len(dims) <= 7 or min(dims) < 1:
        raise InputError(
            "IN-08",
            f"field dim: expected 1 to 7 sizes of at least 1, found {list(dims)}",
            why="An image with such sizes has no voxels.",
            fix="Copy the file again, or save it again with the program that made it.",
            path=path,
        )
    space = dims[:3]
    if len(dims) < 3 or (1 in space and max(space) > 1):
        raise InputError(
            "IN-13",
            f"a 1-D or 2-D image (dim {list(dims)}), expected a volume",
            why="The surroundings of a lesion are looked at in all three directions.",
            fix="Give the whole volume, or stack the slices: fslmerge -z scan slice*.nii.gz",
            path=path,
        )
    if min(space) < MIN_VOXELS_PER_AXIS:
        raise InputError(
            "IN-32",
            f"the volume is tiny: {'x'.join(map(str, space))} voxels,"
            f" expected at least {MIN_VOXELS_PER_AXIS} along each axis",
            why="There is no brain in so few voxels.",
            fix="Give the whole scan, not a cut-out.",
            path=path,
        )


def check_affine(path: Path | None, affine: Affine, source: str) -> None:
    """Refuse an affine that is not finite or maps the volume to a plane (IN-24)."""
    if not (np.abs(affine) <= MAX_AFFINE).all():
        raise _affine_error(path, source, f"is not finite, or huge: {affine[:3].tolist()}")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 0.01:
        raise _affine_error(path, source, f"is singular: {affine[:3].tolist()}")


def _affine_error(path: Path | None, source: str, what: str) -> GeometryError:
    return GeometryError(
        "IN-24",
        f"the affine ({source}) {what}",
        why="Voxels have no place in the world, so neither left and right nor the mask can be matched.",
        fix="Convert the scan again from the scanner's files, or repair the header and check it in a viewer.",
        path=path,
    )


def assumed_affine(
    path: Path | None, orientation: str, shape: tuple[int, int, int], spacing_mm: NDArray[np.float64]
) -> Affine:
    """The affine of a file without one, from an orientation that the user states.

    Args:
        path: the file, for messages.
        orientation: where the three axes point to, for example ``"RAS"`` or ``"LPI"``.
        shape: voxels along each axis.
        spacing_mm: (3,) voxel size along each axis.

    Returns:
        (4, 4) voxel index -> RAS mm; the centre of the volume is the origin.

    Raises:
        UsageError: IN-22, the orientation is not three letters, one of each pair R/L, A/P, S/I.
        GeometryError: IN-24, the voxel size is no size.
    """
    rows = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    letters = orientation.upper()
    if (
        len(letters) != 3
        or not set(letters) <= set(rows)
        or len({rows[letter][0] for letter in letters}) != 3
    ):
        raise UsageError(
            "IN-22",
            f"--assume-orientation: expected one letter of each pair R/L, A/P, S/I, found {orientation!r}",
            why="Each axis of the volume must point somewhere.",
            fix="For example: --assume-orientation RAS",
        )
    if not ((spacing_mm > 0) & (spacing_mm <= MAX_AFFINE)).all():
        raise _affine_error(path, "from pixdim", f"has no voxel size: {spacing_mm.tolist()}")
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    for axis, letter in enumerate(letters):
        row, sign = rows[letter]
        affine[row, axis] = sign * spacing_mm[axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def no_world_error(path: Path | None, container: Kind) -> GeometryError:
    """The refusal of a file that does not say where its axes point to (IN-22, IN-34)."""
    if container == "analyze":
        code, what = "IN-34", "an Analyze 7.5 image, which does not tell left from right"
    elif container == "mgh":
        code, what = "IN-22", "field goodRASFlag is 0: the orientation is not known"
    else:
        code, what = "IN-22", "qform_code and sform_code are both 0: the orientation is not known"
    return GeometryError(
        code,
        what,
        why="Programs guess differently here, some swap left and right; the mask may land on the wrong side.",
        fix="If you know where the axes point to, say so, for example: --assume-orientation RAS",
        path=path,
    )


def check_geometry(path: Path | None, header: Header) -> list[Finding]:
    """Refuse absurd extents (IN-31) and report shear (IN-29) and coarse voxels (IN-30)."""
    affine = header.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    extent = spacing * header.shape
    sizes = "x".join(f"{length:.4g}" for length in extent)
    if extent.max() < MIN_EXTENT_MM or extent.max() > MAX_EXTENT_MM:
        raise GeometryError(
            "IN-31",
            f"the volume measures {sizes} mm, expected a longest side of {MIN_EXTENT_MM:.0f} to"
            f" {MAX_EXTENT_MM:.0f} mm",
            why=f"A head does not have this size; the units may be wrong ({header.units}).",
            fix="Correct the voxel size or its units in the header, then check the scan in a viewer.",
            path=path,
        )
    findings = []
    cosines = (affine[:3, :3] / spacing).T @ (affine[:3, :3] / spacing)
    off = np.abs(cosines[np.triu_indices(3, 1)])
    shear = float(np.degrees(np.arcsin(np.clip(off.max(), 0.0, 1.0))))
    if shear > MAX_SHEAR_DEGREES:
        findings.append(
            Finding("IN-29", "warning", f"The axes of the volume are sheared by {shear:.1f} degrees.")
        )
    ratio = float(spacing.max() / spacing.min())
    if spacing.max() > MAX_SPACING_MM + TOLERANCE_MM or ratio > MAX_ANISOTROPY:
        sizes = " x ".join(f"{length:.3g}" for length in spacing)
        findings.append(
            Finding(
                "IN-30",
                "warning",
                f"Voxels of {sizes} mm: the quality of fills was not measured at this size.",
            )
        )
    return findings
