"""nibabel images as the bytes of a file, without the rescaling that nibabel does when it saves."""

from __future__ import annotations

import io
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from neuromend.data import mgh
from neuromend.errors import InputError

# Array types that no scan format has, and the next one that loses nothing.
_WIDER: dict[str, np.dtype[Any]] = {"bool": np.dtype(np.uint8), "float16": np.dtype(np.float32)}


def image_bytes(image: Any) -> bytes:
    """The uncompressed single file that an image in memory stands for.

    Args:
        image: a nibabel NIfTI-1, NIfTI-2 or MGH image. Loaded from a file, it keeps the stored voxels and
            their scaling; made from an array, it is stored in the array's type (MGH: float32 where it has no
            such type).

    Raises:
        InputError: IN-34 (another class), IN-14 (an array that no scan format stores).
    """
    is_mgh, is_nifti = isinstance(image, nib.MGHImage), isinstance(image, nib.Nifti1Pair)
    if not (is_mgh or is_nifti):
        raise InputError(
            "IN-34",
            f"expected a nibabel Nifti1Image, Nifti2Image or MGHImage, found {type(image).__name__}",
            why="The filled image is returned in the format of the input.",
            fix="Convert it: nibabel.Nifti1Image.from_image(image)",
        )
    proxy = hasattr(image.dataobj, "get_unscaled")
    stored = np.asarray(image.dataobj.get_unscaled() if proxy else image.dataobj)
    stored = stored.astype(_WIDER.get(stored.dtype.name, stored.dtype), copy=False)
    if is_mgh:
        return _mgh_bytes(image, stored)
    slope, inter = (image.dataobj.slope, image.dataobj.inter) if proxy else (1.0, 0.0)
    return _nifti_bytes(image, stored, slope, inter)


def image_from_bytes(payload: bytes, container: str, header_payload: bytes | None) -> Any:
    """The nibabel image of an uncompressed file; its voxels are read from ``payload`` when they are asked
    for."""
    classes: dict[str, Any] = {
        "nifti1": nib.Nifti1Image,
        "nifti2": nib.Nifti2Image,
        "nifti1-pair": nib.Nifti1Pair,
        "nifti2-pair": nib.Nifti2Pair,
        "analyze": nib.AnalyzeImage,
        "mgh": nib.MGHImage,
    }
    if header_payload is None:
        return classes[container].from_bytes(payload)
    halves = {"header": header_payload, "image": payload}
    return classes[container].from_file_map(
        {key: nib.FileHolder(fileobj=io.BytesIO(halves[key])) for key in halves}
    )


def _nifti_bytes(image: Any, stored: NDArray[Any], slope: float, inter: float) -> bytes:
    single: Any = nib.Nifti2Image if image.header["sizeof_hdr"] == 540 else nib.Nifti1Image
    source = image.header
    header = single.header_class(source.binaryblock, source.endianness, False, source.extensions)
    header["magic"] = b"n+2" if single is nib.Nifti2Image else b"n+1"
    header["vox_offset"] = 0
    if image.affine is not None and not np.allclose(image.affine, header.get_best_affine()):
        # The affine was assigned to after the image was made; nibabel would store it so when saving.
        header.set_sform(image.affine, code="aligned")
        header.set_qform(image.affine, code="unknown")
    try:
        header.set_data_dtype(stored.dtype)
        if header.get_data_shape() != stored.shape:
            header.set_data_shape(stored.shape)
    except nib.spatialimages.HeaderDataError as error:
        raise InputError(
            "IN-14",
            f"an array of {stored.dtype} with shape {stored.shape} does not fit into this format: {error}",
            why="The filled image is returned in the format of the input.",
            fix="Make the image from a float32 array: nibabel.Nifti1Image(array.astype('float32'), affine)",
        ) from None
    header["scl_slope"], header["scl_inter"] = slope, inter
    file = io.BytesIO()
    header.write_to(file)
    return file.getvalue() + stored.astype(header.get_data_dtype(), copy=False).tobytes(order="F")


def _mgh_bytes(image: Any, stored: NDArray[Any]) -> bytes:
    native = {np.dtype(name).newbyteorder("="): np.dtype(name) for name in mgh.DTYPES.values()}
    dtype = native.get(stored.dtype.newbyteorder("="), np.dtype(">f4"))
    header = image.header.copy()
    header.set_data_dtype(dtype)
    file = io.BytesIO()
    header.writehdr_to(file)
    file.seek(mgh.DATA_OFFSET)
    file.write(stored.astype(dtype, copy=False).tobytes(order="F"))
    header.writeftr_to(file)
    return file.getvalue()
