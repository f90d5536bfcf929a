"""Files that belong to a scan and share its geometry: the mask that was used, an uncertainty map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from neuromend.data import mgh, nifti
from neuromend.data.header import Header
from neuromend.data.volume import Volume


def companion(volume: Volume, array: NDArray[Any], dtype: DTypeLike) -> bytes:
    """A file with the geometry of a scan and other voxels (a mask, an uncertainty map), uncompressed.

    Args:
        volume: the scan; qform, sform and byte order are copied, vendor extensions are not.
        array: (x, y, z).
        dtype: type to store, uint8 or float32; no scaling.

    Returns:
        The same format; of a pair, the single file of the same version.
    """
    if array.shape != volume.shape:
        raise ValueError(f"expected an array of {volume.shape}, found {array.shape}")
    voxels = array.astype(dtype)
    head = volume.header_raw or volume.raw[:1024].tobytes()
    if volume.container == "mgh":
        return _mgh_bytes(head, voxels)
    return _nifti_bytes(volume.header, head, voxels)


def _nifti_bytes(header: Header, head: bytes, voxels: NDArray[np.generic]) -> bytes:
    """A single-file NIfTI with the geometry of ``head`` and other voxels.

    Args:
        header, head: of the scan; qform, sform, units and byte order are copied from it, extensions are not.
            Analyze cannot hold
            an affine: the stated one is written as sform.
        voxels: (x, y, z) in the type to be stored.
    """
    fields = nifti.read_fields(head, header.container).copy()
    order = fields["dim"].dtype.byteorder
    if header.container == "analyze":
        dims, pixdim = fields["dim"].copy(), fields["pixdim"].copy()
        fields = np.zeros((), nifti.NIFTI1_FIELDS.newbyteorder(order))
        fields["sizeof_hdr"], fields["dim"], fields["pixdim"], fields["xyzt_units"] = (
            nifti.NIFTI1_SIZE,
            dims,
            pixdim,
            2,
        )
        fields["sform_code"] = 1
        fields["srow_x"], fields["srow_y"], fields["srow_z"] = header.affine[:3]
    codes = {np.dtype(name): code for code, name in nifti.DTYPES.items()}
    version = 2 if header.container.startswith("nifti2") else 1
    fields["magic"] = b"n+2" if version == 2 else b"n+1"
    if version == 2:
        fields["eol_check"] = (13, 10, 26, 10)
    fields["dim"] = 1
    fields["dim"][:4] = (3, *voxels.shape)
    fields["datatype"] = codes[voxels.dtype]
    fields["bitpix"] = 8 * voxels.dtype.itemsize
    size = fields.dtype.itemsize
    fields["vox_offset"] = size + 4
    fields["scl_slope"], fields["scl_inter"] = 1, 0
    for name in ("cal_max", "cal_min", "intent_code", "intent_p1", "intent_p2", "intent_p3", "toffset"):
        fields[name] = 0
    fields["intent_name"] = b""
    stored = voxels.astype(voxels.dtype.newbyteorder(order))
    return fields.tobytes() + b"\0\0\0\0" + stored.tobytes(order="F")


def _mgh_bytes(head: bytes, voxels: NDArray[np.generic]) -> bytes:
    """An MGH file with the geometry of ``head`` and other voxels, (x, y, z) in the type to be stored."""
    fields = np.frombuffer(head, mgh.FIELDS, count=1).reshape(()).copy()
    codes = {np.dtype(name).newbyteorder("="): code for code, name in mgh.DTYPES.items()}
    fields["version"] = 1
    fields["dims"] = (*voxels.shape, 1)
    fields["type"] = codes[voxels.dtype]
    padding = bytes(mgh.DATA_OFFSET - mgh.FIELDS.itemsize)
    return fields.tobytes() + padding + voxels.astype(voxels.dtype.newbyteorder(">")).tobytes(order="F")
