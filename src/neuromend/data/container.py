"""The bytes of an input file: opened with care, inflated within a budget, checked to the last byte.

Common readers stop at the last voxel and so never meet the checksum that a gzip stream carries behind it;
more than half of all single flipped bits pass unseen that way. Here every stream is drained, so that zlib
compares CRC and length (RFC 1952, section 2.3.1), and nothing is allocated before the header's promise has
been compared with what the file can hold.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from neuromend.data.refusals import corrupt, folder, missing, overlong, read_fault, truncated
from neuromend.errors import InputError, TemporaryError

CHUNK = 1 << 16
# One deflate bit pair can stand for 258 bytes, so no stream inflates to more than this many times its size
# (zlib's technical notes, "Maximum compression factor").
DEFLATE_LIMIT = 1032
# Bytes accepted behind the last voxel (MGH keeps its tags there).
MAX_TRAILING = 64 << 20
# The longest header we read: NIfTI-2 (540 bytes) with its extender (4).
HEAD = 544
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Peek:
    """The first look at a file.

    Args:
        head: its first (inflated) bytes, at most ``HEAD``.
        compressed: whether it is a gzip stream.
        size: bytes on disk.
        modified_ns: time of its last change.
    """

    head: bytes
    compressed: bool
    size: int
    modified_ns: int

    @property
    def capacity(self) -> int:
        """The most bytes that the file can inflate to."""
        return self.size * DEFLATE_LIMIT if self.compressed else self.size


@dataclass(frozen=True, eq=False)
class FileBytes:
    """A whole file.

    Args:
        raw: its (inflated) bytes, read-only.
        sha256: of the file on disk, as it is.
        trailing: bytes behind the ones asked for, kept in ``raw``.
        junk: bytes on disk behind the last gzip member, not kept.
    """

    raw: NDArray[np.uint8]
    sha256: str
    trailing: int
    junk: int


class _Stream:
    """The inflated bytes of an open file, in order; hashes the bytes on disk on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = hashlib.sha256()
        self.junk = 0
        self.pending = self._chunk()
        self.compressed = self.pending[:2] == GZIP_MAGIC
        self.inflate = zlib.decompressobj(31) if self.compressed else None

    def _chunk(self) -> bytes:
        data = self.file.read(CHUNK)
        self.hash.update(data)
        return data

    def read(self, most: int) -> bytes:
        """Return 1 to ``most`` bytes, or none at the end.

        Raises:
            EOFError: the file ends within a gzip member.
            zlib.error: the stream, its checksum or its length is wrong.
        """
        if not self.compressed:
            data = self.pending or self._chunk()
            self.pending = data[most:]
            return data[:most]
        while self.inflate is not None:
            self.pending = self.pending or self._chunk()
            at_end = not self.pending
            data = self.inflate.decompress(self.pending, most)
            if self.inflate.eof:
                self._start_next_member(self.inflate.unused_data)
            else:
                self.pending = self.inflate.unconsumed_tail
            if data:
                return data
            if at_end and self.inflate is not None:
                raise EOFError
        return b""

    def _start_next_member(self, rest: bytes) -> None:
        if len(rest) < len(GZIP_MAGIC):
            rest += self._chunk()
        if rest[:2] == GZIP_MAGIC:
            self.inflate = zlib.decompressobj(31)
            self.pending = rest
            return
        self.inflate = None
        self.pending = b""
        while rest:
            self.junk += len(rest)
            rest = self._chunk()

    def read_head(self) -> bytes:
        head = b""
        while len(head) < HEAD and (data := self.read(HEAD - len(head))):
            head += data
        return head


def peek(path: Path) -> Peek:
    """Read the first bytes of a file and nothing more.

    Raises:
        MissingInputError: IN-38, no such file (a broken or looping link is named as such).
        InputError: IN-01 (empty), IN-02 or IN-03 (damaged within the first bytes), IN-36 or IN-38 (a folder,
            a pipe, a name that no file can have).
        StorageError: the disk failed.
    """
    status = _regular_file(path)
    if status.st_size == 0:
        raise InputError(
            "IN-01",
            "the file is empty (0 bytes)",
            why="An interrupted download or a full disk leaves such files; there is no image in it.",
            fix="Fetch or copy the file again.",
            path=path,
        )
    try:
        with path.open("rb") as file:
            stream = _Stream(file)
            head = stream.read_head()
    except EOFError:
        raise truncated(
            path, f"at least {HEAD} bytes for a header", "a stream that ends before them"
        ) from None
    except zlib.error as error:
        raise corrupt(path, error) from None
    except OSError as error:
        raise read_fault(path, error) from error
    return Peek(head, stream.compressed, status.st_size, status.st_mtime_ns)


def load(path: Path, needed: int, seen: Peek) -> FileBytes:
    """Read a whole file, of which ``needed`` bytes must be there after inflating.

    The caller has compared ``needed`` with ``seen.capacity`` and with the budget.

    Raises:
        InputError: IN-02 (fewer bytes than needed), IN-03 (checksum or length of the stream wrong), IN-10
            (far more bytes than needed).
        TemporaryError: IN-42, the file changed since ``seen``.
        StorageError: the disk failed.
    """
    raw = np.empty(needed, dtype=np.uint8)
    done = 0
    trailing = bytearray()
    try:
        with path.open("rb") as file:
            stream = _Stream(file)
            while done < needed and (data := stream.read(min(CHUNK, needed - done))):
                raw[done : done + len(data)] = np.frombuffer(data, np.uint8)
                done += len(data)
            while done == needed and (data := stream.read(CHUNK)):
                trailing += data
                if len(trailing) > MAX_TRAILING:
                    raise overlong(path, needed, MAX_TRAILING)
    except EOFError:
        raise truncated(path, f"{needed} bytes", f"{done}") from None
    except zlib.error as error:
        raise corrupt(path, error) from None
    except OSError as error:
        raise read_fault(path, error) from error
    _refuse_change(path, seen, raw[: min(done, len(seen.head))].tobytes())
    if done < needed:
        raise truncated(path, f"{needed} bytes", f"{done}")
    if trailing:
        raw = np.concatenate([raw, np.frombuffer(bytes(trailing), np.uint8)])
    raw.flags.writeable = False
    return FileBytes(raw, stream.hash.hexdigest(), len(trailing), stream.junk)


def _regular_file(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise missing(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise folder(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            "IN-38",
            "expected a regular file, found a pipe, socket or device",
            why="An image is read twice and compared with what is written, which a stream does not allow.",
            fix=f"Save the stream to a file first: cat '{path}' > scan.nii.gz",
            path=path,
        )
    return status


def _refuse_change(path: Path, seen: Peek, head: bytes) -> None:
    try:
        status = path.stat()
        same = (status.st_size, status.st_mtime_ns) == (seen.size, seen.modified_ns)
    except OSError:
        same = False
    if not same or not seen.head.startswith(head):
        raise TemporaryError(
            "IN-42",
            "the file changed while it was read",
            why="What was read may be half old and half new.",
            fix="Wait until the program that writes it has finished, then run the command again.",
            path=path,
        )
