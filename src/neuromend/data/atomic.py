"""Files that are either complete or absent.

A file is written under a hidden name beside its target, flushed to the disk, read again and compared, and
only then renamed; the folder is flushed last. Several files of one result are staged first and renamed
together, the sidecar (the commit mark) last. Network file systems may not honour the flushing (fsync), local
ones do.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from neuromend.errors import NeuromendError, OutputError, OutputPermissionError, StorageError

_PREFIX = ".neuromend-"
_SUFFIX = ".tmp"
_STALE_SECONDS = 24 * 3600
_CHUNK = 1 << 22

Verify = Callable[[Path], object]


def write_atomically(path: str | Path, payload: bytes, *, verify: Verify | None = None) -> str:
    """Write one file, complete or not at all; an older file of that name is replaced only by a good one.

    Args:
        path: the target; a link is followed, its target is replaced.
        payload: the content.
        verify: called with the hidden file before it is renamed; what it raises stops the writing.

    Returns:
        The SHA-256 of the content.

    Raises:
        StorageError: RT-03 (disk full), RT-06 (the file read back differs), RT-07 (the disk failed).
        OutputPermissionError: RT-02.
        OutputError: RT-01 (no such folder), RT-19 (a link to itself), IN-38 (name too long).
    """
    with OutputSet() as outputs:
        sha256 = outputs.add(path, payload, verify=verify)
        outputs.publish()
    return sha256


class OutputSet:
    """The files of one result: staged under hidden names, then renamed in the order they were added.

    Used as a context; what was not published when it is left, for whatever reason, is removed. Add the
    sidecar last: where it is, everything else is.
    """

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []

    def __enter__(self) -> OutputSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hidden, _ in self._staged:
            _remove(hidden)
        self._staged.clear()

    def add(self, path: str | Path, payload: bytes, *, verify: Verify | None = None) -> str:
        """Write and check a hidden file; arguments, result and errors as ``write_atomically``."""
        target = resolve_output(Path(path))
        hidden = target.with_name(hidden_name())
        self._staged.append((hidden, target))
        digest = hashlib.sha256(payload).hexdigest()
        try:
            _write_through(hidden, payload)
            _compare(hidden, target, digest)
            if verify is not None:
                verify(hidden)
        except NeuromendError:
            raise
        except OSError as error:
            raise storage_error(target, error) from error
        return digest

    def publish(self) -> tuple[Path, ...]:
        """Give the staged files their names, in order; return the paths."""
        published = []
        while self._staged:
            hidden, target = self._staged[0]
            try:
                os.replace(hidden, target)
                # From here on the file is complete and visible; only its survival of a power cut is open.
                self._staged.pop(0)
                _flush_folder(target.parent)
            except OSError as error:
                raise storage_error(target, error) from error
            published.append(target)
        return tuple(published)


def hidden_name() -> str:
    """A fresh name for a file that is being written; short, so that any legal target name works."""
    return f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}{_SUFFIX}"


def remove_stale(folder: Path) -> int:
    """Remove hidden files of ours that are older than a day (left by a kill -9); return how many."""
    removed = 0
    for entry in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            if time.time() - entry.lstat().st_mtime > _STALE_SECONDS:
                entry.unlink()
                removed += 1
        except OSError:
            # Another run removed it, or it belongs to someone else; either way it is not ours to fight for.
            continue
    return removed


def storage_error(path: Path, error: OSError) -> NeuromendError:
    """Translate a failure of the operating system while writing ``path``."""
    reason = error.strerror or str(error)
    if error.errno == errno.ELOOP:
        return _link_loop(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            "RT-03",
            f"the disk is full, or the quota is used up ({reason})",
            why="Nothing was written there; an older file of that name is untouched.",
            fix=f"Free some space (df -h '{path.parent}') or choose another folder.",
            path=path,
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputPermissionError(
            "RT-02",
            f"no permission to write here ({reason})",
            why="The result could not be saved.",
            fix=f"Choose another folder, or make this one writable: chmod u+w '{path.parent}'",
            path=path,
        )
    if error.errno == errno.ENAMETOOLONG:
        return OutputError(
            "IN-38",
            f"the name is too long for this file system ({len(os.fsencode(path.name))} bytes, at most 255)",
            why="The operating system refuses it.",
            fix="Choose a shorter name.",
            path=path,
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return OutputError(
            "RT-01",
            f"the folder of the output is not there or not a folder ({reason})",
            why="The result could not be saved.",
            fix=f"Create it: mkdir -p '{path.parent}'",
            path=path,
        )
    return StorageError(
        "RT-07",
        f"writing failed ({reason})",
        why="The disk or the network did not take the file; an older file of that name is untouched.",
        fix="Check the disk, or write to another one.",
        path=path,
    )


def resolve_output(path: Path) -> Path:
    """Follow links to the file that will be written.

    Raises:
        OutputError: RT-19 (a link to itself), IN-38 (a name that no file can have).
    """
    try:
        return path.resolve()
    except RuntimeError as error:
        # Python 3.11 and 3.12 tell a loop of links so, later ones as an OSError.
        raise _link_loop(path) from error
    except OSError as error:
        raise storage_error(path, error) from error
    except ValueError as error:
        raise OutputError(
            "IN-38",
            f"the path {str(path)!r} cannot name a file: {error}",
            why="No operating system accepts such a name.",
            fix="Check the script that made the name.",
        ) from error


def _link_loop(path: Path) -> OutputError:
    return OutputError(
        "RT-19",
        "the output is a link that points to itself",
        why="There is no file behind it to write.",
        fix=f"Remove the link: rm '{path}'",
        path=path,
    )


def _write_through(hidden: Path, payload: bytes) -> None:
    """Write a new file to the disk itself, not only to the cache; its mode follows the umask."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(hidden, flags, 0o666)
    try:
        rest = memoryview(payload)
        while rest:
            rest = rest[os.write(handle, rest[:_CHUNK]) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _compare(hidden: Path, target: Path, digest: str) -> None:
    with hidden.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise StorageError(
            "RT-06",
            f"what was read back differs from what was written (SHA-256 {found}, expected {digest})",
            why="The disk returned other bytes than it was given; an older file of that name is untouched.",
            fix="Check the disk (dmesg, smartctl) and write to another one.",
            path=target,
        )


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut; Windows and some file systems cannot flush a folder."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _remove(hidden: Path) -> None:
    try:
        hidden.unlink(missing_ok=True)
    except OSError:
        # It stays hidden and is removed by a later run; the first error is the one to tell.
        return
