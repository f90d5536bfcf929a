"""A lock file: one process at a time works on something in a folder, and a crash does not lock it for long.

The lock is made with ``O_CREAT | O_EXCL``, which is atomic on local disks and on NFS from version 3. It names its
holder: host, process, and when that process began. While the holder lives, a thread renews the file's time. A
lock counts as stale, and is taken over, when

- its holder was a process of this very host (and of this container) that is no more: at once; or
- it has not been renewed for :data:`STALE_SECONDS` by the clock of the file system, whatever the clocks of
  the hosts say.

A holder that only slept (a suspended machine, a hanging file server) may lose its lock so; it can ask.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from neuromend.data.atomic import hidden_name, storage_error

STALE_SECONDS = 120.0
"""A lock not renewed for so long is stale; a renewal may be delayed by a slow file server, but not by 8 of them."""

RENEW_SECONDS = 15.0


class HeldError(Exception):
    """Another living process holds the lock; the text says which one, on which host."""


@contextmanager
def hold(path: Path) -> Iterator[Callable[[], bool]]:
    """Hold the lock ``path``; its folder is made if it is missing, and removed if nothing else came into it.

    Yields:
        What tells whether the lock is still ours.

    Raises:
        HeldError: another living process holds it.
        OutputError, OutputPermissionError, StorageError: the lock cannot be made.
    """
    owner = _owner()
    try:
        while not _create(path, owner):
            _remove_stale(path)
    except OSError as error:
        raise storage_error(path, error) from error
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, over), daemon=True)
    renewing.start()
    try:
        yield lambda: _read(path) == owner
    finally:
        over.set()
        renewing.join()
        if _read(path) == owner:
            path.unlink(missing_ok=True)
            _remove_if_empty(path.parent)


def _create(path: Path, owner: dict[str, Any]) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except (FileExistsError, FileNotFoundError):  # locked; or its empty folder has just been removed
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(owner, file)
    return True


def _remove_stale(path: Path) -> None:
    """Take a stale lock away; raise HeldError if its holder lives.

    It is renamed first and looked at again: had another process replaced it meanwhile, the new lock is put back.
    """
    holder = _read(path)
    if holder is None and not path.exists():
        return
    if not (_is_dead(holder) or _age(path) > STALE_SECONDS):
        raise HeldError(
            f"process {holder['pid']} on {holder['host'].split()[0]}" if holder else "an unknown process"
        )
    aside = path.with_name(hidden_name())
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    try:
        if _read(aside) != holder and not path.exists():
            os.link(aside, path)
    except FileExistsError:
        return  # a third process was quicker; one lock is enough
    finally:
        aside.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    """Work that failed at once leaves no folder behind."""
    with suppress(OSError):
        folder.rmdir()


def _renew(path: Path, over: threading.Event) -> None:
    while not over.wait(RENEW_SECONDS):
        try:
            os.utime(path)
        except OSError:
            return  # taken over, or the disk failed: the next write will say so


def _owner() -> dict[str, Any]:
    return {"host": _place(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def _place() -> str:
    """Host, and where there is one its process namespace: process numbers mean nothing in another container."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _read(path: Path) -> dict[str, Any] | None:
    """The holder; None if there is no lock, or if it was not written to the end (yet)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"host": str(found["host"]), "pid": int(found["pid"]), "began": float(found["began"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_dead(holder: dict[str, Any] | None) -> bool:
    if holder is None or holder["host"] != _place():
        return False
    try:
        return bool(abs(psutil.Process(holder["pid"]).create_time() - holder["began"]) > 1.0)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _age(path: Path) -> float:
    """Seconds since the lock was renewed, by the clock of the file system that holds it."""
    probe = path.with_name(hidden_name())
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)
