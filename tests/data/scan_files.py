"""Small scan files with every header field under control, for the tests of reading and writing."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SHAPE = (16, 17, 18)
SPACING = (3.0, 3.25, 3.5)
AFFINE = np.array([[-3.0, 0, 0, 22], [0, 3.25, 0, -28], [0, 0, 3.5, -30], [0, 0, 0, 1]])
# In the order of the stored axes: every signed permutation of the three axes.
ORIENTATIONS = [
    np.eye(3)[:, list(order)] * signs
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]
CODES = {
    "u1": 2,
    "i2": 4,
    "i4": 8,
    "f4": 16,
    "f8": 64,
    "i1": 256,
    "u2": 512,
    "u4": 768,
    "i8": 1024,
    "u8": 1280,
}


def voxels_of(dtype: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[Any]:
    """Random stored voxels over most of the range of a type; distinct along every axis."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(300, 90, shape).astype(kind)
    bounds = np.iinfo(kind)
    return rng.integers(bounds.min // 2, bounds.max // 2, shape, dtype=kind, endpoint=True)


def nifti_bytes(
    voxels: NDArray[Any] | None = None,
    *,
    version: int = 1,
    order: str = "<",
    slope: float = 1.0,
    inter: float = 0.0,
    affine: NDArray[np.float64] = AFFINE,
    extension: bytes = b"",
    pair: bool = False,
    **fields: Any,
) -> bytes:
    """A NIfTI file (with ``pair`` its header half) byte by byte; ``fields`` overwrite header fields last."""
    voxels = voxels_of("i2") if voxels is None else voxels
    layout = (nib.nifti1 if version == 1 else nib.nifti2).header_dtype.newbyteorder(order)
    header = np.zeros((), layout)
    size = layout.itemsize
    header["sizeof_hdr"] = size
    header["magic"] = (b"ni" if pair else b"n+") + str(version).encode()
    if version == 2:
        header["eol_check"] = (13, 10, 26, 10)
    header["dim"] = 1
    header["dim"][0] = voxels.ndim
    header["dim"][1 : voxels.ndim + 1] = voxels.shape
    header["datatype"] = CODES[voxels.dtype.newbyteorder("=").str[1:]]
    header["bitpix"] = 8 * voxels.dtype.itemsize
    header["pixdim"][:4] = (1, *np.linalg.norm(affine[:3, :3], axis=0))
    header["vox_offset"] = 0 if pair else size + 4 + len(extension)
    header["scl_slope"], header["scl_inter"] = slope, inter
    header["xyzt_units"] = 2
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    header["descrip"] = b"kept as it is"
    for name, value in fields.items():
        header[name] = value
    extender = b"\1\0\0\0" if extension else b"\0\0\0\0"
    if pair:
        return header.tobytes()
    stored = voxels.astype(voxels.dtype.newbyteorder(order))
    return header.tobytes() + extender + extension + stored.tobytes(order="F")


def with_field(name: str, index: int | None, value: Any, **arguments: Any) -> bytes:
    """A NIfTI-1 file with one element of a header field changed."""
    payload = bytearray(nifti_bytes(**arguments))
    header = np.frombuffer(payload, nib.nifti1.header_dtype, count=1)
    if index is None:
        header[name] = value
    else:
        header[name][0, index] = value
    return bytes(payload)


def extension(content: bytes, code: int = 6, order: str = "<") -> bytes:
    """One NIfTI header extension; its size is a multiple of 16."""
    size = -(-(8 + len(content)) // 16) * 16
    endian = "little" if order == "<" else "big"
    return size.to_bytes(4, endian) + code.to_bytes(4, endian) + content.ljust(size - 8, b"\0")


def mgh_bytes(voxels: NDArray[Any], *, footer: bytes = b"tr, te, tags", **fields: Any) -> bytes:
    """An MGH file byte by byte."""
    header = np.zeros((), nib.freesurfer.mghformat.header_dtype)
    header["version"] = 1
    header["dims"] = (*voxels.shape, 1)[:4]
    header["type"] = {"u1": 0, "i4": 1, "f4": 3, "i2": 4, "u2": 10}[voxels.dtype.newbyteorder("=").str[1:]]
    header["goodRASFlag"] = 1
    header["delta"] = SPACING
    header["Mdc"] = [[-1, 0, 0], [0, 0, -1], [0, 1, 0]]
    header["Pxyz_c"] = (3, -4, 5)
    for name, value in fields.items():
        header[name] = value
    start = header.tobytes().ljust(284, b"\0")
    return start + voxels.astype(voxels.dtype.newbyteorder(">")).tobytes(order="F") + footer


def save(folder: Path, name: str, payload: bytes) -> Path:
    """Write bytes, compressed if the name says so."""
    path = folder / name
    path.write_bytes(gzip.compress(payload, 1, mtime=0) if name.endswith((".gz", ".mgz")) else payload)
    return path


def blob(shape: tuple[int, ...] = SHAPE) -> NDArray[np.bool_]:
    """A mask of 5 x 6 x 7 voxels, off the centre."""
    mask = np.zeros(shape, dtype=np.bool_)
    mask[2:7, 4:10, 9:16] = True
    return mask
