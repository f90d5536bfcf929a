"""May the output be written? Asked before any work is done, so that no hour of computing is lost."""

from __future__ import annotations

import os
import shutil
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from neuromend.data.atomic import hidden_name, remove_stale, resolve_output, storage_error
from neuromend.errors import NeuromendError, OutputError, StorageError
from neuromend.findings import Finding


def check_output(
    target: str | Path, inputs: Iterable[str | Path], *, overwrite: bool, needed_bytes: int
) -> tuple[Finding, ...]:
    """Check that a file can be written, or files in a folder; create the folder if it is missing.

    Args:
        target: the output file, or an existing folder for several.
        inputs: files that are only read; the target must be none of them.
        overwrite: whether an existing file may be replaced.
        needed_bytes: estimated size of everything that will be written there.

    Returns:
        What was done: a folder created (RT-01), hidden files of killed runs removed (RT-06).

    Raises:
        OutputError: RT-19 (the output is an input, through a link, a hard link or another spelling), RT-04
            (it exists), RT-01 (the folder cannot be), IN-38 (a name that no file can have).
        OutputPermissionError: RT-02.
        StorageError: RT-03, less than twice ``needed_bytes`` are free.
    """
    target = Path(target)
    resolved = resolve_output(target)
    status = _status(resolved, target)
    if status is not None and stat.S_ISDIR(status.st_mode):
        folder = resolved
    else:
        for source in inputs:
            _refuse_same(target, resolved, Path(source))
        if status is not None:
            _refuse_existing(target, status, overwrite)
        folder = resolved.parent
    findings = _create(folder, target)
    try:
        _refuse_little_space(folder, needed_bytes)
        probe = folder / hidden_name()
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        probe.unlink()
    except NeuromendError:
        raise
    except OSError as error:
        raise storage_error(target, error) from error
    if removed := remove_stale(folder):
        findings.append(
            Finding("RT-06", "note", f"{removed} hidden files of a killed run removed from {folder}.")
        )
    return tuple(findings)


def _status(resolved: Path, target: Path) -> os.stat_result | None:
    try:
        return resolved.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(target, error) from error


def _refuse_same(target: Path, resolved: Path, source: Path) -> None:
    source = source.resolve()
    if resolved == source:
        how = (
            "the output is the input"
            if target.absolute() == source
            else f"the output leads to the input {source}"
        )
    elif resolved.exists() and source.exists() and resolved.samefile(source):
        how = f"the output is another name (hard link) of the input {source}"
    elif resolved.parent == source.parent and _folded(resolved) == _folded(source):
        how = f"the output differs from the input '{source.name}' only in the case or the encoding of letters"
    else:
        return
    raise OutputError(
        "RT-19",
        how,
        why="Inputs are never written to; on some file systems the two are one file.",
        fix="Choose another name for the output.",
        path=target,
    )


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", path.name).casefold()


def _refuse_existing(target: Path, status: os.stat_result, overwrite: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(
            "RT-04",
            "the output exists and is no regular file (a pipe, socket or device)",
            why="It would be replaced by a file.",
            fix="Choose another name for the output.",
            path=target,
        )
    if not overwrite:
        raise OutputError(
            "RT-04",
            "the output exists",
            why="It may be the result of hours of work.",
            fix="Choose another name, or replace it: --overwrite",
            path=target,
        )


def _create(folder: Path, target: Path) -> list[Finding]:
    if folder.is_dir():
        return []
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise storage_error(target, error) from error
    return [Finding("RT-01", "note", f"Folder created: {folder}")]


def _refuse_little_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    # Twice, because old and new file exist side by side until the rename.
    if free < 2 * needed_bytes:
        raise StorageError(
            "RT-03",
            f"{free / 2**20:.0f} MiB are free, expected at least {2 * needed_bytes / 2**20:.0f} MiB",
            why="The disk would be full before the result is complete.",
            fix=f"Free some space (df -h '{folder}') or choose another folder.",
            path=folder,
        )
