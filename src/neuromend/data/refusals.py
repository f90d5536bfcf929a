"""What is said when a file cannot be read: each function makes one error of the catalogue."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

from neuromend.errors import InputError, MissingInputError, NeuromendError, StorageError


def truncated(path: Path | None, expected: str, found: str) -> InputError:
    """The refusal of a file that ends too early (IN-02)."""
    return InputError(
        "IN-02",
        f"the file is truncated: expected {expected}, found {found}",
        why="The missing voxels would have to be made up; some readers fill them with zeros.",
        fix="Copy or download the file again and compare its size with the source.",
        path=path,
    )


def missing(path: Path, error: OSError | ValueError) -> NeuromendError:
    reason = "no such file"
    fix = "Check the spelling of the path."
    if isinstance(error, ValueError):
        # A file name cannot hold NUL; it would not print either.
        return InputError(
            "IN-38",
            f"the path {str(path)!r} cannot name a file: {error}",
            why="No operating system accepts such a name.",
            fix="Check the script that made the name.",
        )
    if error.errno == errno.ENAMETOOLONG:
        reason = (
            f"the name is too long for this file system ({len(os.fsencode(path.name))} bytes, at most 255)"
        )
        fix = "Rename the file."
    elif error.errno == errno.ELOOP:
        reason = "the link points to itself"
        fix = "Repair the link or give the file that it should point to."
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason = "permission denied"
        fix = f"Make it readable: chmod u+r '{path}'"
    elif path.is_symlink():
        target = os.readlink(path)
        reason = f"a broken link to '{target}'"
        fix = "Restore the file that it points to."
        if ".git/annex/objects" in target.replace("\\", "/"):
            return InputError(
                "IN-05",
                f"a git-annex link whose content is not here ('{target}')",
                why="The repository holds only the name of the image.",
                fix=f"Fetch it: git annex get '{path}'  (or: datalad get '{path}')",
                path=path,
            )
    elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return read_fault(path, error)
    return MissingInputError("IN-38", reason, why="There is nothing to read.", fix=fix, path=path)


def folder(path: Path) -> InputError:
    for entry in sorted(path.iterdir())[:20]:
        if entry.is_file():
            with entry.open("rb") as file:
                start = file.read(132)
            if entry.suffix.lower() in (".dcm", ".ima") or start[128:] == b"DICM":
                return dicom(path, path)
    return InputError(
        "IN-38",
        "expected a file, found a folder",
        why="One scan is one file (or a .hdr/.img pair).",
        fix="Give the image file itself.",
        path=path,
    )


def dicom(path: Path, folder: Path) -> InputError:
    """The refusal of DICOM (IN-36) with the command that converts it."""
    return InputError(
        "IN-36",
        "this is DICOM, one file a slice",
        why="The filled scan is written in the format of the input, which must hold one whole volume.",
        fix=f"Convert it first: dcm2niix -z y -f scan '{folder}'",
        path=path,
    )


def corrupt(path: Path, error: zlib.error) -> InputError:
    detail = str(error).rsplit(": ", 1)[-1]
    named = {
        "incorrect data check": "its checksum (CRC-32) does not match its content",
        "incorrect length check": "its length field does not match its content",
    }.get(detail, f"it cannot be inflated ({detail})")
    return InputError(
        "IN-03",
        f"the gzip stream is damaged: {named}",
        why="At least one byte differs from what was written, and nobody can tell which voxels are wrong.",
        fix=f"Copy the file again from its source, then test it: gzip -t '{path}'",
        path=path,
    )


def overlong(path: Path, needed: int, limit: int) -> InputError:
    return InputError(
        "IN-10",
        f"the data go on for more than {limit >> 20} MiB behind the last voxel (byte {needed})",
        why="The header describes a small part of the file; inflating the rest may fill the memory.",
        fix="Save the image again with the program that made it.",
        path=path,
    )


def read_fault(path: Path, error: OSError) -> NeuromendError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return MissingInputError(
            "IN-38",
            "permission denied",
            why="There is nothing to read.",
            fix=f"Make it readable: chmod u+r '{path}'",
            path=path,
        )
    return StorageError(
        "IN-38",
        f"reading failed: {error.strerror or error}",
        why="The disk or the network did not deliver the file.",
        fix="Copy the file to a local disk and try again.",
        path=path,
    )
