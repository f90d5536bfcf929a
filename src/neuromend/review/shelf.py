"""The files that the page may ask for, by random ids: no path ever travels.

Volumes leave as gzipped NIfTI, whatever they are on the disk. One that is so already is sent as it is; another is
brought into that form once, when it is first asked for, and kept in the session's folder.
"""

from __future__ import annotations

import gzip
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from neuromend.data.container import peek
from neuromend.data.pairs import locate
from neuromend.data.volume import read_volume
from neuromend.errors import MissingInputError
from neuromend.planning import split_suffix
from neuromend.review.refusals import no_such

VOLUME, PICTURE = "application/gzip", "image/png"
LEVEL = 1
"""Of compression: fast; the stream only crosses the loopback."""


def new_id() -> str:
    """An id that cannot be guessed (96 bits)."""
    return secrets.token_urlsafe(12)


@dataclass(slots=True)
class Shelved:
    """One file: where it is, what it is, and what it is called when it is downloaded."""

    path: Path
    media: str
    name: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    ready: Path | None = None


class Shelf:
    """Id -> file.

    Args:
        folder: of the session; converted volumes are kept there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Shelved] = {}

    def put(self, path: Path, media: str = VOLUME, *, name: str | None = None, id: str | None = None) -> str:
        """Make a file known; returns its id. Nothing is read."""
        id = id or new_id()
        self._files[id] = Shelved(path, media, name or path.name)
        return id

    def drop(self, id: str) -> None:
        """Forget a file; its converted form goes too."""
        file = self._files.pop(id, None)
        if file is not None and file.ready is not None and file.ready != file.path:
            file.ready.unlink(missing_ok=True)

    def fetch(self, id: str) -> tuple[Path, str, str]:
        """The file to send, its media type and its name.

        Raises:
            Refusal: WE-06, an id that was never given out.
            NeuromendError: the file is not there any more, or is no volume.
        """
        file = self._files.get(id)
        if file is None:
            raise no_such("file")
        if file.media != VOLUME:
            return _present(file.path), file.media, file.name
        with file.lock:
            if file.ready is None:
                file.ready = as_gzipped_nifti(_present(file.path), self.folder / f"{id}.nii.gz")
        return _present(file.ready), VOLUME, split_suffix(file.name)[0] + ".nii.gz"


def as_gzipped_nifti(path: Path, target: Path) -> Path:
    """The volume as a gzipped NIfTI file: ``path`` itself if it is one, else ``target``, which is written.

    The stored voxels, their type, scaling and place are the same in both (the affine as float32).
    """
    make_image: Any = nib.Nifti1Image
    is_single_nifti = locate(path)[2] in ("nifti1", "nifti2")
    if is_single_nifti and peek(path).compressed:
        return path
    if is_single_nifti:
        payload = path.read_bytes()
    else:
        volume = read_volume(path)
        image: Any = make_image(np.asarray(volume.stored()), volume.affine)
        image.header.set_slope_inter(volume.slope, volume.inter)
        image.header.set_xyzt_units("mm")
        payload = image.to_bytes()
    hidden = target.with_name(f".{target.name}")
    hidden.write_bytes(gzip.compress(payload, LEVEL, mtime=0))
    return hidden.replace(target)


def _present(path: Path) -> Path:
    if path.is_file():
        return path
    raise MissingInputError(
        "IN-38",
        "the file is not there any more",
        why="it was moved or removed since the page was opened",
        fix="put it back, or start `neuromend review` again",
        path=path,
    )
