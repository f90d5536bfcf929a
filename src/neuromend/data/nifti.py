"""NIfTI-1, NIfTI-2 and Analyze headers, read strictly and never rewritten.

Source: the NIfTI-1.1 and NIfTI-2 header files (nifti1.h, nifti2.h); the layout of the fields is nibabel's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import header_dtype as _nifti1_fields
from nibabel.nifti2 import header_dtype as _nifti2_fields
from numpy.typing import NDArray

from neuromend.data.content import Kind
from neuromend.data.header import (
    TOLERANCE_MM,
    Affine,
    Header,
    assumed_affine,
    check_affine,
    check_dims,
    field_error,
    no_world_error,
)
from neuromend.data.refusals import truncated
from neuromend.errors import GeometryError, InputError
from neuromend.findings import Finding, Level

NIFTI1_FIELDS: np.dtype[Any] = _nifti1_fields
NIFTI2_FIELDS: np.dtype[Any] = _nifti2_fields
NIFTI1_SIZE = 348
NIFTI2_SIZE = 540
# datatype code -> numpy type (nifti1.h); the types with one real number a voxel that a scan is stored in.
DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_NOT_SCALAR = {32: "complex64", 128: "RGB24", 1792: "complex128", 2048: "complex256", 2304: "RGBA32"}
_VECTOR_INTENTS = {
    1004: "matrix",
    1005: "symmetric matrix",
    1006: "displacement field",
    1007: "vector",
    1008: "point set",
    1009: "triangles",
    1010: "quaternion",
    2003: "RGB",
    2004: "RGBA",
}
# xyzt_units & 7 -> (name, mm)
_UNITS = {0: ("not stated", 1.0), 1: ("metres", 1000.0), 2: ("millimetres", 1.0), 3: ("microns", 0.001)}
# b^2 + c^2 + d^2 of a unit quaternion is at most 1; three float32 cannot push it over by more than this.
_QUATERNION_TOLERANCE = 1e-4
# Less than this below 1 is rounding: the rotation is by exactly half a turn (nifti1_io.c does the same).
_HALF_TURN = 1e-7

Fields = NDArray[np.void]


def read_fields(head: bytes, container: Kind) -> Fields:
    """View the header fields in the byte order of the file, a 0-d structured array.

    The caller has seen the magic number; Analyze shares the layout of NIfTI-1.
    """
    layout, size = (
        (NIFTI2_FIELDS, NIFTI2_SIZE) if container.startswith("nifti2") else (NIFTI1_FIELDS, NIFTI1_SIZE)
    )
    order: Literal["<", ">"] = "<" if int.from_bytes(head[:4], "little") == size else ">"
    return np.frombuffer(head, layout.newbyteorder(order), count=1).reshape(())


def read_header(path: Path | None, head: bytes, container: Kind, assume_orientation: str | None) -> Header:
    """Read and check a NIfTI or Analyze header.

    Args:
        path: the file, for messages.
        head: its first bytes, at least the size of the header.
        container: what ``kind_of`` said.
        assume_orientation: where the axes point to if the file does not say, for example ``"RAS"``.

    Raises:
        InputError: IN-02, IN-07, IN-08, IN-13, IN-14, IN-19, IN-32.
        GeometryError: IN-22, IN-23, IN-24, IN-34.
        UsageError: IN-22, ``assume_orientation`` is no orientation.
    """
    size = NIFTI2_SIZE if container.startswith("nifti2") else NIFTI1_SIZE
    if len(head) < size:
        raise truncated(path, f"a header of {size} bytes", str(len(head)))
    fields = read_fields(head, container)
    if int(fields["sizeof_hdr"]) != size:
        raise field_error(path, "sizeof_hdr", str(size), int(fields["sizeof_hdr"]))
    dtype = _dtype(path, fields)
    dims = _dims(path, fields)
    offset = _voxel_offset(path, fields, container, size)
    slope, inter, findings = _scaling(path, fields, container)
    shape = (dims[0], dims[1], dims[2])
    code = int(fields["xyzt_units"]) & 7
    unit, factor = (
        ("not stated", 1.0) if container == "analyze" else _UNITS.get(code, (f"unknown code {code}", 1.0))
    )
    affine = None if container == "analyze" else _affine(path, fields, shape, factor, findings)
    has_world = affine is not None
    if affine is None:
        if assume_orientation is None:
            raise no_world_error(path, container)
        spacing = fields["pixdim"][1:4].astype(np.float64) * factor
        affine = assumed_affine(path, assume_orientation, shape, spacing)
    if factor != 1.0:
        findings.append(Finding("IN-31", "note", f"The header counts in {unit}; converted to mm."))
    elif unit.startswith("unknown"):
        findings.append(Finding("IN-31", "warning", f"The units are stated by an {unit}; taken as mm."))
    return Header(
        container,
        dtype,
        dims,
        offset,
        slope,
        inter,
        affine,
        has_world,
        f"xyzt_units: {unit}",
        tuple(findings),
    )


def _dtype(path: Path | None, fields: Fields) -> np.dtype[np.generic]:
    code, bits = int(fields["datatype"]), int(fields["bitpix"])
    intent = int(fields["intent_code"])
    if code in _NOT_SCALAR or intent in _VECTOR_INTENTS:
        kind = _NOT_SCALAR.get(code) or f"intent_code {intent}: {_VECTOR_INTENTS[intent]}"
        raise InputError(
            "IN-14",
            f"a colour, complex or vector image ({kind}), expected one intensity a voxel",
            why="The networks know one channel; dropping the others would lose data in silence.",
            fix="Give the scan itself, or extract one channel (fslcomplex -realabs, fslroi).",
            path=path,
        )
    if code not in DTYPES:
        raise field_error(path, "datatype", f"one of {sorted(DTYPES)}", code)
    dtype = np.dtype(fields["datatype"].dtype.byteorder + DTYPES[code])
    if bits != 8 * dtype.itemsize:
        raise field_error(path, "bitpix", f"{8 * dtype.itemsize} for datatype {code}", bits)
    return dtype


def _dims(path: Path | None, fields: Fields) -> tuple[int, ...]:
    count = int(fields["dim"][0])
    if not 1 <= count <= 7:
        raise InputError(
            "IN-08",
            f"field dim[0]: expected 1 to 7 axes, found {count}",
            why="Without the number of axes nobody knows how many voxels there are.",
            fix="Copy the file again, or save it again with the program that made it.",
            path=path,
        )
    dims = tuple(int(length) for length in fields["dim"][1 : count + 1])
    check_dims(path, dims)
    return dims


def _voxel_offset(path: Path | None, fields: Fields, container: Kind, size: int) -> int:
    offset = float(fields["vox_offset"])
    least = size + 4 if container in ("nifti1", "nifti2") else 0
    if not np.isfinite(offset) or offset < least or offset != int(offset):
        raise field_error(path, "vox_offset", f"a whole number of at least {least}", offset)
    return int(offset)


def _scaling(path: Path | None, fields: Fields, container: Kind) -> tuple[float, float, list[Finding]]:
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if container == "analyze":
        # SPM keeps a scale factor where NIfTI has scl_slope; Analyze has no intercept.
        inter = 0.0
    if not np.isfinite(slope) or slope == 0:
        note = Finding(
            "IN-19", "note", f"scl_slope is {slope}: no scaling, as the standard says (scl_inter {inter})."
        )
        # Slope and intercept 0 is how most programs write "no scaling"; only the rest is worth a line.
        return 1.0, 0.0, [] if slope == inter == 0 else [note]
    if not np.isfinite(inter):
        raise InputError(
            "IN-19",
            f"field scl_inter: expected a finite number beside scl_slope {slope}, found {inter}",
            why="Every intensity would be infinite or not a number.",
            fix="Save the image again with the program that made it.",
            path=path,
        )
    findings = []
    if not 1e-12 <= abs(slope) <= 1e12:
        findings.append(
            Finding(
                "IN-19", "warning", f"scl_slope is {slope}: intensities are extreme, some programs ignore it."
            )
        )
    return slope, inter, findings


def _affine(
    path: Path | None, fields: Fields, shape: tuple[int, int, int], unit_mm: float, findings: list[Finding]
) -> Affine | None:
    """The affine in mm: sform if its code is positive, else qform, else none (nifti1.h, methods 3, 2, 1)."""
    sform = _sform(path, fields) if int(fields["sform_code"]) > 0 else None
    qform = _qform(path, fields) if int(fields["qform_code"]) > 0 else None
    affine = sform if sform is not None else qform
    if affine is None:
        return None
    findings += _compare_forms(path, sform, qform, shape, unit_mm)
    affine = np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    pixdim = fields["pixdim"][1:4].astype(np.float64)
    with np.errstate(all="ignore"):
        agree = bool(np.all(np.abs(pixdim * unit_mm - spacing) <= TOLERANCE_MM))
    if not agree:
        found = ", ".join(f"{length:.6g}" for length in pixdim)
        used = ", ".join(f"{length:.6g}" for length in spacing)
        findings.append(
            Finding("IN-25", "warning", f"pixdim says {found}; the affine says {used} mm, which is used.")
        )
    return affine


def _sform(path: Path | None, fields: Fields) -> Affine:
    affine = np.eye(4)
    affine[:3] = [fields["srow_x"], fields["srow_y"], fields["srow_z"]]
    check_affine(path, affine, "sform: srow_x, srow_y, srow_z")
    return affine


def _qform(path: Path | None, fields: Fields) -> Affine:
    """The affine of the quaternion (nifti1.h, method 2)."""
    b, c, d = (float(fields[f"quatern_{letter}"]) for letter in "bcd")
    pixdim = fields["pixdim"][:4].astype(np.float64)
    square = b * b + c * c + d * d
    sizes = pixdim[1:]
    if not square <= 1 + _QUATERNION_TOLERANCE:
        raise _qform_error(
            path, f"quatern_b, c, d = {b:.6g}, {c:.6g}, {d:.6g}: norm {square**0.5:.6g}, at most 1"
        )
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise _qform_error(path, f"pixdim[1:4] = {sizes.tolist()}, expected three positive sizes")
    a = max(0.0, 1 - square) ** 0.5
    if 1 - square < _HALF_TURN:
        a = 0.0
        b, c, d = b / square**0.5, c / square**0.5, d / square**0.5
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    handed = -1.0 if pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * (sizes * [1.0, 1.0, handed])
    affine[:3, 3] = [fields["qoffset_x"], fields["qoffset_y"], fields["qoffset_z"]]
    check_affine(path, affine, "qform: quatern_*, pixdim, qoffset_*")
    return affine


def _qform_error(path: Path | None, what: str) -> GeometryError:
    return GeometryError(
        "IN-24",
        f"the qform is no rotation: {what}",
        why="Programs that read the qform will place this scan differently or refuse it.",
        fix="Convert the scan again, or copy the sform: fslorient -copysform2qform",
        path=path,
    )


def _compare_forms(
    path: Path | None, sform: Affine | None, qform: Affine | None, shape: tuple[int, int, int], unit_mm: float
) -> list[Finding]:
    """Refuse two forms of opposite handedness, report how far they are apart in mm (IN-23)."""
    if sform is None or qform is None:
        return []
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise GeometryError(
            "IN-23",
            "qform and sform disagree about left and right (determinants of opposite sign)",
            why="Half of all programs will show this scan mirrored, and the lesion on the wrong side.",
            fix="Find out which one is right, then copy it: fslorient -copysform2qform (or the reverse)",
            path=path,
        )
    corners = np.array(
        [[x, y, z, 1] for x in (0, shape[0] - 1) for y in (0, shape[1] - 1) for z in (0, shape[2] - 1)]
    )
    apart = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max()) * unit_mm
    if apart <= TOLERANCE_MM:
        return []
    level: Level = "note" if apart < 0.1 else "warning"
    return [
        Finding(
            "IN-23",
            level,
            f"qform and sform differ by up to {apart:.3g} mm at the corners; the sform is used.",
        )
    ]
