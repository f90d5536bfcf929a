"""What a file is, told by its content and not by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from neuromend.data.refusals import dicom, truncated
from neuromend.errors import InputError

Kind = Literal["nifti1", "nifti2", "nifti1-pair", "nifti2-pair", "mgh", "analyze"]

_NIFTI1 = {b"n+1\0": "nifti1", b"ni1\0": "nifti1-pair"}
_NIFTI2 = {b"n+2\0": "nifti2", b"ni2\0": "nifti2-pair"}
# The four bytes behind the NIfTI-2 magic show whether a transfer translated line ends, as in PNG.
_NIFTI2_GUARD = b"\r\n\x1a\n"

_CONVERT = "Convert it to NIfTI with the program that made it (or: mri_convert {path} scan.nii.gz)"
_UNPACK = "Unpack it first, then give the .nii or .nii.gz inside."
# (first bytes, what it is, what to do)
_STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a git-LFS pointer, not the image",
        "Fetch the image: git lfs pull",
    ),
    (b"/annex/objects/", "a git-annex pointer, not the image", "Fetch the image: git annex get '{path}'"),
    (b"\x89PNG", "a PNG picture", "Give the NIfTI or MGH file of the scan."),
    (b"\xff\xd8\xff", "a JPEG picture", "Give the NIfTI or MGH file of the scan."),
    (b"%PDF", "a PDF document", "Give the NIfTI or MGH file of the scan."),
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (b"BZh", "compressed with bzip2", "Unpack it first: bunzip2 '{path}'"),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it first: unxz '{path}'"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it first: unzstd '{path}'"),
    (b"\x1f\x8b", "compressed twice with gzip", "Unpack it once: gunzip '{path}'"),
)
# The same for image formats that we do not write back, hence do not read.
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"NRRD000",
        "an NRRD image",
        "Convert it: c3d '{path}' -o scan.nii.gz  (or save it as NIfTI in 3D Slicer)",
    ),
    (b"ObjectType", "a MetaImage", "Convert it: c3d '{path}' -o scan.nii.gz"),
    (b"\x89HDF", "an HDF5 file (MINC 2?)", "Convert it: mnc2nii '{path}' scan.nii"),
    (b"CDF\x01", "a MINC 1 image", "Convert it: mnc2nii '{path}' scan.nii"),
)


def kind_of(head: bytes, path: Path) -> Kind:
    """Tell the format of a file from its first (inflated) bytes.

    The name decides only where the bytes cannot: an Analyze header has no magic number and is believed in a
    ``.hdr`` or ``.img`` file alone.

    Raises:
        InputError: IN-05 (not an image: a web page, a pointer, text, an archive), IN-07 (nearly NIfTI or
            MGH), IN-34 (a format that cannot be written back), IN-36 (DICOM).
    """
    if (kind := _NIFTI1.get(head[344:348]) or _NIFTI2.get(head[4:8])) is not None:
        if kind.startswith("nifti2") and head[8:12] != _NIFTI2_GUARD:
            raise InputError(
                "IN-07",
                f"field magic[4:8]: expected {_NIFTI2_GUARD!r}, found {head[8:12]!r}",
                why="These bytes change when a file is sent in text mode, and the voxels change with them.",
                fix="Copy the file again in binary mode.",
                path=path,
            )
        return kind  # type: ignore[return-value]
    # Version 1 in the low byte; newer FreeSurfer keeps the intent of the volume in the byte above it.
    if head[:2] == b"\0\0" and head[3:4] == b"\x01" and len(head) >= 284 and head[2] < 16:
        return "mgh"
    _refuse_strangers(head, path)
    if path.suffix.lower() == ".dcm" or head[128:132] == b"DICM":
        raise dicom(path, path.parent)
    if _is_analyze(head, path):
        return "analyze"
    raise _unknown(head, path)


def _refuse_strangers(head: bytes, path: Path) -> None:
    for table, code in ((_STRANGERS, "IN-05"), (_OTHER_FORMATS, "IN-34")):
        for start, what, fix in table:
            if head.startswith(start):
                raise InputError(
                    code,
                    f"this is {what}",
                    why="neuromend reads NIfTI (.nii, .nii.gz, .hdr/.img) and MGH (.mgh, .mgz) and writes the"
                    " same format back.",
                    fix=fix.format(path=path),
                    path=path,
                )
    if head[257:262] == b"ustar":
        raise InputError(
            "IN-05",
            "this is a tar archive",
            why="There may be several images in it.",
            fix=f"Unpack it first: tar xf '{path}'",
            path=path,
        )
    start = head[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"<":
        raise InputError(
            "IN-05",
            f"this is a web page or XML, not an image (it starts with {start[:40]!r})",
            why="A download link led to a login, error or preview page.",
            fix="Download the file itself; in a browser, use the link that says raw or download.",
            path=path,
        )
    if start and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        raise InputError(
            "IN-05",
            f"this is text, not an image (it starts with {start[:40]!r})",
            why="There are no voxels in it.",
            fix="Give the .nii, .nii.gz, .mgh or .mgz file itself.",
            path=path,
        )


def _is_analyze(head: bytes, path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    is_header = head[:4] in _sizeof(348) and len(head) >= 348 and not any(head[344:348])
    return is_header and name.endswith((".hdr", ".img"))


def _unknown(head: bytes, path: Path) -> InputError:
    start = head[:4]
    name = path.name.lower().removesuffix(".gz")
    if start in _sizeof(348):
        expected, field, found = 348, "magic: expected b'n+1\\x00' or b'ni1\\x00'", repr(head[344:348])
    elif start in _sizeof(540):
        expected, field, found = 540, "magic: expected b'n+2\\x00' or b'ni2\\x00'", repr(head[4:8])
    elif name.endswith((".mgh", ".mgz")):
        expected, field, found = 284, "version: expected 1", str(int.from_bytes(start, "big"))
    else:
        expected, field, found = 0, "sizeof_hdr: expected 348 or 540", f"{head[:16].hex(' ')} ..."
    if len(head) < expected:
        return truncated(path, f"a header of {expected} bytes", str(len(head)))
    return InputError(
        "IN-07",
        f"not a NIfTI or MGH file: field {field}, found {found}",
        why="Without a valid header nobody knows the size, the type or the place of the voxels.",
        fix="Copy the file again, or save it again with the program that made it.",
        path=path,
    )


def _sizeof(size: int) -> tuple[bytes, bytes]:
    """The first field of a header, in both byte orders."""
    return size.to_bytes(4, "little"), size.to_bytes(4, "big")
