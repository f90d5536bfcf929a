"""The MGH header of FreeSurfer (.mgh, .mgz), always big-endian.

Source: FreeSurfer's file format page (FsTutorial/MghFormat) and load_mgh.m; the layout of the fields is
nibabel's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.freesurfer.mghformat import header_dtype as _fields
from numpy.typing import NDArray

from neuromend.data.header import (
    Affine,
    Header,
    assumed_affine,
    check_affine,
    check_dims,
    field_error,
    no_world_error,
)
from neuromend.errors import InputError

FIELDS: np.dtype[Any] = _fields
# Voxels start here; the bytes between are reserved.
DATA_OFFSET = 284
# type code -> numpy type (mri.h)
DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_NOT_SCALAR = {6: "tensor", 7: "complex", 8: "complex", 9: "RGB"}


def read_header(path: Path | None, head: bytes, assume_orientation: str | None) -> Header:
    """Read and check an MGH header.

    Args:
        path: the file, for messages.
        head: its first bytes, at least 284.
        assume_orientation: where the axes point to if goodRASFlag is 0.

    Raises:
        InputError: IN-07, IN-08, IN-13, IN-14, IN-32.
        GeometryError: IN-22, IN-24.
        UsageError: IN-22, ``assume_orientation`` is no orientation.
    """
    fields = np.frombuffer(head, FIELDS, count=1).reshape(())
    code = int(fields["type"])
    if code in _NOT_SCALAR:
        raise InputError(
            "IN-14",
            f"a {_NOT_SCALAR[code]} image (type {code}), expected one intensity a voxel",
            why="The networks know one channel; dropping the others would lose data in silence.",
            fix="Give the scan itself.",
            path=path,
        )
    if code not in DTYPES:
        raise field_error(path, "type", f"one of {sorted(DTYPES)}", code)
    dims = tuple(int(length) for length in fields["dims"])
    check_dims(path, dims)
    shape = (dims[0], dims[1], dims[2])
    delta = fields["delta"].astype(np.float64)
    has_world = int(fields["goodRASFlag"]) > 0
    if has_world:
        affine = _affine(fields, shape, delta)
        check_affine(path, affine, "delta, Mdc, Pxyz_c")
    elif assume_orientation is not None:
        affine = assumed_affine(path, assume_orientation, shape, delta)
    else:
        raise no_world_error(path, "mgh")
    dtype = np.dtype(DTYPES[code])
    return Header("mgh", dtype, dims, DATA_OFFSET, 1.0, 0.0, affine, has_world, "MGH counts in mm", ())


def _affine(fields: NDArray[np.void], shape: tuple[int, int, int], delta: NDArray[np.float64]) -> Affine:
    """RAS = Mdc diag(delta) (index - shape / 2) + Pxyz_c (FsTutorial/MghFormat)."""
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, :3] = fields["Mdc"].astype(np.float64).T * delta
        affine[:3, 3] = fields["Pxyz_c"].astype(np.float64) - affine[:3, :3] @ (np.array(shape) / 2)
    return affine
