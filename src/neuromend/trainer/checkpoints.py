"""Checkpoints of a run on disk: each whole or absent, two generations, with their SHA-256 inside.

A file is what ``torch.save`` writes, followed by its SHA-256 (32 bytes), so that no second file can be out of step.
In ``RUN/checkpoints``: ``newest.pt`` and ``previous.pt`` take turns; ``good.pt`` (the newest from before any step
went wrong), ``best.pt`` (the weights that were best on dev) and ``step-*.pt`` are never rotated away.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import IO, Any, cast

import torch

from neuromend.data.atomic import hidden_name, remove_stale, storage_error
from neuromend.errors import CheckpointError
from neuromend.findings import Finding

NEWEST, PREVIOUS, GOOD, BEST = "newest.pt", "previous.pt", "good.pt", "best.pt"
DIGEST_BYTES = 32
_CHUNK = 1 << 22


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: ``RUN/checkpoints``; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        remove_stale(folder)

    def save(self, content: dict[str, Any]) -> Path:
        """Write ``newest.pt``; the one before becomes ``previous.pt``. A kill at any moment leaves one of them.

        Raises:
            StorageError, OutputPermissionError: RT-02, RT-03, RT-07.
        """
        newest = self.folder / NEWEST
        hidden = self._write(content)
        try:
            if newest.exists():
                os.replace(newest, self.folder / PREVIOUS)
            os.replace(hidden, newest)
        except OSError as error:
            raise storage_error(newest, error) from error
        return newest

    def keep(self, name: str) -> None:
        """Keep what ``newest.pt`` holds under another name as well, outside the rotation."""
        hidden = self.folder / hidden_name()
        try:
            try:
                os.link(self.folder / NEWEST, hidden)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.folder / NEWEST, hidden)
            os.replace(hidden, self.folder / name)
        except OSError as error:
            hidden.unlink(missing_ok=True)
            raise storage_error(self.folder / name, error) from error

    def latest(self) -> tuple[dict[str, Any], list[Finding]] | None:
        """The newest sound checkpoint and what to tell about it; None where no run has begun.

        Raises:
            CheckpointError: TR-03, there are checkpoints and none is sound.
        """
        findings = []
        present = [p for name in (NEWEST, PREVIOUS, GOOD, BEST) if (p := self.folder / name).exists()]
        for path in present:
            try:
                content = read_checkpoint(path)
            except CheckpointError as error:
                findings.append(Finding("TR-03", "warning", f"{path.name} is damaged ({error.what})."))
                continue
            if findings:
                findings.append(Finding("TR-03", "warning", f"{path.name} is sound and is used."))
            return content, findings
        if present:
            raise CheckpointError(
                "TR-03",
                f"none of {', '.join(path.name for path in present)} is sound",
                why="going on from damaged weights would waste all that follows",
                fix="restore the folder from a backup, or give another --out to begin again",
                path=self.folder,
            )
        return None

    def _write(self, content: dict[str, Any]) -> Path:
        hidden = self.folder / hidden_name()
        try:
            with hidden.open("xb+") as file:
                torch.save(content, file)
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").digest()
                file.seek(0, os.SEEK_END)
                file.write(digest)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            hidden.unlink(missing_ok=True)
            # PyTorch words a full disk as a RuntimeError of its zip writer.
            cause = error if isinstance(error, OSError) else OSError(28, str(error).splitlines()[0])
            raise storage_error(self.folder / NEWEST, cause) from error
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        return hidden


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: TR-03, it is cut short or changed, or cannot be read.
    """
    problem = "it is too short"
    try:
        size = path.stat().st_size - DIGEST_BYTES
        if size > 0:
            with path.open("rb") as file:
                digest, left = hashlib.sha256(), size
                while left and (chunk := file.read(min(left, _CHUNK))):
                    digest.update(chunk)
                    left -= len(chunk)
                if digest.digest() == file.read():
                    return dict(
                        torch.load(
                            cast("IO[bytes]", _Front(file, size)), map_location="cpu", weights_only=True
                        )
                    )
                problem = "its SHA-256 is not the one it ends with"
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    except (pickle.UnpicklingError, RuntimeError) as error:
        problem = f"PyTorch cannot read it: {str(error).splitlines()[0]}"
    raise CheckpointError(
        "TR-03",
        problem,
        why="a damaged checkpoint must not be trained on",
        fix="resume with the same command: it takes the newest sound checkpoint; or export --checkpoint newest",
        path=path,
    )


class _Front:
    """The first ``size`` bytes of a file, as the file that PyTorch reads (a zip's directory is at its end)."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size = file, size
        file.seek(0)

    def read(self, count: int = -1) -> bytes:
        """At most ``count`` bytes, none beyond the front."""
        left = max(0, self._size - self._file.tell())
        data: bytes = self._file.read(left if count < 0 else min(count, left))
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as the front goes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readline(self) -> bytes:
        """The next line."""
        line: bytes = self._file.readline()
        return line

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is that of the front."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._size}[whence]
        position: int = self._file.seek(base + offset)
        return position

    def tell(self) -> int:
        """Where reading stands."""
        position: int = self._file.tell()
        return position
