"""The prepared cases on disk: what ``neuromend prepare`` writes and training reads.

A folder holds ``cache.json`` (the manifest, written last) and one flat file a case, ``cases/ID.bin``, in which
every array lies uncompressed at an offset that the manifest tells. So a case is complete or absent (it is
renamed into place), opening costs nothing (arrays are memory-mapped) and a worker opens the cache again from its
path. Nothing of the manifest depends on the moment or the machine, so its SHA-256 names the data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from neuromend.data.atomic import OutputSet, write_atomically
from neuromend.errors import InputError, MissingInputError

MANIFEST = "cache.json"
CASES = "cases"
FORMAT = 1
SPLITS = ("train", "dev", "test")
ALIGNMENT = 64
"""Arrays start at multiples of a cache line, so that a mapped array is aligned for every type."""

HEALTHY, LESION, TISSUE, DESCRIPTOR, MASK_PREFIX = "healthy", "lesion", "tissue", "descriptor", "mask-"

Matrix = tuple[tuple[float, ...], ...]
Kind = Literal["scan", "labels"]


@dataclass(frozen=True, slots=True)
class StoredArray:
    """Where an array lies in a case's file: C order, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class CaseRow:
    """What the manifest knows of a case.

    Attributes:
        id: unique, safe in a file name. subject: the person; all cases of one are in one split.
        split: "train", "dev" or "test".
        shape: (x, y, z) of the cached arrays, whose axes run to the right, to the front and up (RAS).
        spacing_mm: millimetres between voxels along them.
        affine: (4, 4), cached voxel -> RAS mm of the scanner.
        source: name of the scan's file, without a folder. sha256: of that file.
        intensity_low, intensity_high: the scan's intensities that became 0 and 1 (data/intensity).
        stored_scale: the stored value of 1: ``healthy / stored_scale`` is 0 in air and about 1 in bright tissue.
        masks: names of the masks of healthy tissue that are stored; may be none.
        has_lesion, has_tissue: whether these arrays are stored.
        mirror: (4, 4), voxel -> voxel reflection at the midsagittal plane; None where there is no image to find
            it in.
        to_mni: (4, 4), cached voxel -> MNI152 mm; None where it was not given.
        kind: "scan", or "labels" for a map of tissue classes to draw intensities for (``healthy`` holds it then,
            and ``stored_scale`` is 1).
        file, bytes, sha256_file: the case's file, below the cache's folder.
        arrays: what lies in it.
    """

    id: str
    subject: str
    split: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: Matrix
    source: str
    sha256: str
    intensity_low: float
    intensity_high: float
    stored_scale: float
    masks: tuple[str, ...] = ()
    has_lesion: bool = False
    has_tissue: bool = False
    mirror: Matrix | None = None
    to_mni: Matrix | None = None
    kind: Kind = "scan"
    file: str = ""
    bytes: int = 0
    sha256_file: str = ""
    arrays: tuple[StoredArray, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CaseRow:
        """The inverse of :meth:`as_json`.

        Raises:
            TypeError, KeyError, ValueError: it is no such thing.
        """
        fields = dict(content)
        for name in ("shape", "spacing_mm", "masks"):
            fields[name] = tuple(fields[name])
        for name in ("affine", "mirror", "to_mni"):
            fields[name] = None if fields[name] is None else tuple(tuple(row) for row in fields[name])
        fields["arrays"] = tuple(StoredArray(**{**a, "shape": tuple(a["shape"])}) for a in fields["arrays"])
        return cls(**fields)


@dataclass(frozen=True, eq=False)
class CachedCase:
    """The arrays of a case, read-only and memory-mapped, (x, y, z) in RAS.

    Attributes:
        row: what the manifest knows.
        healthy: uint8 or uint16, 0 in air; ``healthy / row.stored_scale`` is about 1 in bright tissue.
        lesion: bool, diseased tissue, never a target of training; None without one.
        masks: bool by name, holes in healthy tissue.
        tissue: uint8 tissue classes (``neuromend.sites``), or None.
        descriptor: the float16 volumes by which the same brain is recognised (corpus/leaks).
    """

    row: CaseRow
    healthy: NDArray[np.unsignedinteger[Any]]
    lesion: NDArray[np.bool_] | None = None
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    tissue: NDArray[np.uint8] | None = None
    descriptor: NDArray[np.float16] | None = None

    def normalised(self) -> NDArray[np.float32]:
        """The scan (x, y, z) in memory: 0 in air, about 1 in bright tissue."""
        return self.healthy.astype(np.float32) / np.float32(self.row.stored_scale)


@dataclass(frozen=True)
class CaseCache:
    """An open cache; small, and picklable (a worker maps the files by their path).

    Attributes:
        folder: where it is.
        cases: every row, by id.
        config: the settings it was prepared with.
        digest: SHA-256 of the manifest; equal digests mean equal data.
    """

    folder: Path
    cases: tuple[CaseRow, ...]
    config: Mapping[str, Any]
    digest: str

    @classmethod
    def open(cls, folder: str | Path) -> CaseCache:
        """Read the manifest and compare the sizes of the files with it.

        Raises:
            MissingInputError: TR-07, no finished cache is there.
            InputError: TR-07, the manifest is damaged, of another format, or a file is not as it was written.
        """
        folder = Path(folder)
        try:
            payload = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise MissingInputError(
                "TR-07",
                f"no finished cache of training cases here ({error.strerror})",
                why="the manifest is written last: without it the preparation has not been finished",
                fix=f"prepare it, or finish it with the same command: neuromend prepare DATASET --out '{folder}'",
                path=folder / MANIFEST,
            ) from error
        try:
            content = json.loads(payload)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}, expected {FORMAT}")
            rows = tuple(CaseRow.from_json(row) for row in content["cases"])
            config = content["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(folder / MANIFEST, f"the manifest cannot be read ({error})") from error
        cache = cls(folder, rows, config, hashlib.sha256(payload).hexdigest())
        for row in rows:
            _compare_size(cache.path(row), row.bytes)
        return cache

    def rows(self, split: str | None = None) -> list[CaseRow]:
        """The cases of a split (of all, without one), in the order of their ids."""
        return [row for row in self.cases if split is None or row.split == split]

    def path(self, row: CaseRow) -> Path:
        """The file of a case."""
        return self.folder / row.file

    def load(self, row: CaseRow) -> CachedCase:
        """Map the arrays of a case; nothing is read before it is used."""
        return load_arrays(self.path(row), row)

    def verify(self) -> Iterator[CaseRow]:
        """Hash the files one after another, yielding each row that is good.

        Raises:
            InputError: TR-07, a file is not as it was written.
        """
        for row in self.cases:
            with self.path(row).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != row.sha256_file:
                raise _damaged(self.path(row), f"SHA-256 {found}, expected {row.sha256_file}")
            yield row


def load_arrays(path: Path, row: CaseRow) -> CachedCase:
    """Map the arrays of a case from its file.

    Raises:
        InputError: TR-07, the file is shorter than what it should hold.
    """
    _compare_size(path, row.bytes)
    found = {place.name: np.memmap(path, place.dtype, "r", place.offset, place.shape) for place in row.arrays}
    masks = {name: cast("NDArray[np.bool_]", found[MASK_PREFIX + name]) for name in row.masks}
    return CachedCase(row, found[HEALTHY], found.get(LESION), masks, found.get(TISSUE), found.get(DESCRIPTOR))


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> tuple[bytes, tuple[StoredArray, ...]]:
    """The bytes of a case's file, and where in them each array lies."""
    places, parts, size = [], [], 0
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        places.append(StoredArray(name, little.dtype.str, little.shape, size))
        padding = -little.nbytes % ALIGNMENT
        parts += [little.tobytes(), bytes(padding)]
        size += little.nbytes + padding
    return b"".join(parts), tuple(places)


def write_files(files: Sequence[tuple[Path, bytes]]) -> None:
    """Write the files of one case, complete or not at all, the last one as the commit mark.

    Raises:
        StorageError, OutputError, OutputPermissionError: RT-01 to RT-07.
    """
    with OutputSet() as outputs:
        for path, payload in files:
            outputs.add(path, payload)
        outputs.publish()


def write_manifest(folder: Path, rows: Sequence[CaseRow], config: Mapping[str, Any]) -> str:
    """Write ``cache.json``, the mark of a finished cache; return its SHA-256, the cache's digest.

    Raises:
        StorageError, OutputError, OutputPermissionError: RT-01 to RT-07.
    """
    content = {
        "format": FORMAT,
        "config": dict(config),
        "cases": [row.as_json() for row in sorted(rows, key=lambda row: row.id)],
    }
    payload = json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()
    return write_atomically(folder / MANIFEST, payload)


def _compare_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise _damaged(path, f"the file of a case is not there ({error.strerror})") from error
    if found != expected:
        raise _damaged(path, f"the file of a case has {found} bytes, expected {expected}")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        "TR-07",
        what,
        why="the cache is not what the preparation wrote; training on it could not be repeated",
        fix="run the same neuromend prepare command again: it makes what is damaged anew, and keeps the rest",
        path=path,
    )
