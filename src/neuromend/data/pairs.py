"""Which file holds the header and which the voxels: one file, or the two halves of a .hdr/.img pair."""

from __future__ import annotations

import os
from pathlib import Path

from neuromend.data.container import peek
from neuromend.data.content import Kind, kind_of
from neuromend.errors import InputError, MissingInputError

PAIRED: tuple[Kind, ...] = ("nifti1-pair", "nifti2-pair", "analyze")


def locate(path: Path) -> tuple[Path, Path, Kind]:
    """Find the file with the header, the file with the voxels, and the format.

    Raises:
        MissingInputError: IN-35, half of a pair is not there.
        InputError: IN-35, half of a pair under a name that has no other half; as ``kind_of`` and ``peek``.
    """
    pair = _pair_of(path)
    if pair is None:
        container = kind_of(peek(path).head, path)
        if container.endswith("-pair"):
            raise InputError(
                "IN-35",
                "this is the header half of a pair; its voxels are in another file",
                why="The voxels are looked for in the .img file beside the .hdr file.",
                fix="Name the two halves scan.hdr and scan.img and give either.",
                path=path,
            )
        return path, path, container
    header, voxels = pair
    there = [os.path.exists(half) for half in pair]
    if os.path.exists(path) or not any(there):
        head = peek(path).head
        if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
            return path, path, kind_of(head, path)
    if not all(there):
        raise MissingInputError(
            "IN-35",
            f"this half of the pair is missing; '{pair[there.index(True)].name}' is there",
            why="The .hdr file says what the voxels mean, the .img file holds them.",
            fix="Put both halves into one folder.",
            path=pair[there.index(False)],
        )
    container = kind_of(peek(header).head, header)
    return header, voxels if container in PAIRED else header, container


def _pair_of(path: Path) -> tuple[Path, Path] | None:
    """The two halves that a name stands for, header first; None if it is no such name."""
    plain = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    stem, extension = plain[:-4], plain[-4:]
    if extension.lower() not in (".hdr", ".img"):
        return None
    other = ".img" if extension.lower() == ".hdr" else ".hdr"
    other = other.upper() if extension.isupper() else other
    names = [stem + other + path.name[len(plain) :], stem + other, stem + other + ".gz"]
    halves = [path.with_name(name) for name in names]
    partner = next((half for half in halves if os.path.exists(half)), halves[0])
    return (path, partner) if extension.lower() == ".hdr" else (partner, path)
