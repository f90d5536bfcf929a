"""The cases of a benchmark: healthy scans with holes, from a table or planted here.

A case is two files, the healthy scan and the mask of the hole, and what is known about where the hole lies.
Planted masks are written beside the results, so that any other program can be run on the same cases.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.atomic import write_atomically
from neuromend.data.head import find_head
from neuromend.data.intensities import looks_skull_stripped
from neuromend.data.lesions import random_blob
from neuromend.data.masks import MaskOptions, prepare_mask
from neuromend.data.splice import encode
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import InputError, MissingInputError, UsageError
from neuromend.provenance import hash_file
from neuromend.sites import hole_site

Mask = NDArray[np.bool_]

PLANTED = "planted:"
COLUMNS, OPTIONAL_COLUMNS = ("id", "image", "mask"), ("tissue", "site")
SCANS = (".nii.gz", ".nii", ".mgz")
#: Scans of these kinds, where a folder has them, are the ones to plant in (BIDS and BraTS names).
T1_WORDS = ("T1w", "t1n")

LEAST_INSIDE = 0.7
"""Share of a planted shape that must lie in the brain; the rest of it is cut off."""

TRIES = 200
SKIN_AND_SKULL_MM = 15.0
BELOW_CROWN_MM = 110.0
"""In a whole head, brain is what lies this deep under the skin and this near to the crown."""

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclass(frozen=True)
class Case:
    """One hole in one healthy scan.

    Attributes:
        id: unique, safe in a file name.
        image: the healthy scan; mask: the hole, on its grid.
        tissue: map of tissue classes (``neuromend.sites``), from which the site is read.
        site: where the hole lies, if the table says so; empty if not.
    """

    id: str
    image: Path
    mask: Path
    tissue: Path | None = None
    site: str = ""

    @cached_property
    def digest(self) -> tuple[str, str, str]:
        """SHA-256 of the files of the scan, the mask and the tissue map (empty without one)."""
        tissue = hash_file(self.tissue) if self.tissue is not None else ""
        return hash_file(self.image), hash_file(self.mask), tissue


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """The voxels of a case: ``healthy`` (x, y, z) float32, ``mask`` (x, y, z), affine, and the hole's site."""

    healthy: NDArray[np.float32]
    mask: Mask
    affine: NDArray[np.float64]
    site: str

    @property
    def volume_ml(self) -> float:
        """Volume of the hole."""
        return float(self.mask.sum()) * self._voxel_ml

    @property
    def largest_piece_ml(self) -> float:
        """Volume of its largest 26-connected piece."""
        labels, _ = ndimage.label(self.mask, np.ones((3, 3, 3)))
        return int(np.bincount(labels.ravel())[1:].max()) * self._voxel_ml

    @property
    def _voxel_ml(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def load(case: Case) -> LoadedCase:
    """Read a case; whatever ``fill`` would refuse is refused here.

    Raises:
        NeuromendError: IN- and MA- codes, for a file that cannot be used or a mask that does not fit.
    """
    scan = read_volume(case.image)
    mask = prepare_mask(read_volume(case.mask), scan, MaskOptions(force_pair=True)).voxels
    site = case.site
    if not site and case.tissue is not None:
        site = hole_site(mask, read_volume(case.tissue).values, scan.spacing_mm) or ""
    return LoadedCase(np.asarray(scan.values, np.float32), mask, np.asarray(scan.affine, np.float64), site)


def read_cases(spec: str, planted: Path) -> list[Case]:
    """The cases that ``--cases`` names.

    Args:
        spec: a table, or ``planted:FOLDER[?per_scan=4&seed=0&ml=0.1-100]``.
        planted: folder in which planted masks are written.

    Raises:
        MissingInputError: IN-38, no such table or folder, or no scan in it.
        InputError: BM-05, the table is wrong.
        UsageError: BM-06, the settings after ``?`` are; BM-07, a hole has no place in a scan.
    """
    if not spec.startswith(PLANTED):
        return read_table(Path(spec).expanduser())
    folder, _, query = spec.removeprefix(PLANTED).partition("?")
    return plant_cases(Path(folder).expanduser(), planted, **_settings(query))


def read_table(table: Path) -> list[Case]:
    """Read a table with tabs: columns id, image, mask and, if wanted, tissue and site.

    Relative paths start at the table's folder. Errors as in ``read_cases``.
    """
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines(), delimiter="\t"))
    except OSError as error:
        why = "it lists the cases of the benchmark"
        fix = f"a table, or {PLANTED}FOLDER to plant holes into the healthy scans of a folder"
        what = f"the table cannot be read ({error.strerror})"
        raise MissingInputError("IN-38", what, why=why, fix=fix, path=table) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _bad_table(table, f"it is no text with tabs ({error})") from error
    head = set(rows[0]) if rows else set()
    lacking = [name for name in COLUMNS if name not in head]
    if lacking:
        raise _bad_table(table, f"it has no column '{lacking[0]}'" if rows else "it lists no case")
    cases: dict[str, Case] = {}
    for number, row in enumerate(rows, start=2):
        cells = {name: (row.get(name) or "").strip() for name in (*COLUMNS, *OPTIONAL_COLUMNS)}
        empty = [name for name in COLUMNS if not cells[name]]
        if empty:
            raise _bad_table(table, f"line {number} has no {empty[0]}")
        if not _SAFE.issuperset(cells["id"]):
            raise _bad_table(
                table, f"line {number} has the id '{cells['id']}', expected letters, digits, . _ -"
            )
        if cells["id"] in cases:
            raise _bad_table(table, f"line {number} has the id '{cells['id']}' for the second time")
        paths = {name: table.parent / cells[name] for name in ("image", "mask", "tissue") if cells[name]}
        for name, path in paths.items():
            if not path.is_file():
                raise _bad_table(table, f"line {number}: there is no {name} '{path}'")
        cases[cells["id"]] = Case(cells["id"], site=cells["site"], **paths)
    return list(cases.values())


def plant_cases(
    folder: Path, planted: Path, *, per_scan: int, seed: int, ml: tuple[float, float]
) -> list[Case]:
    """Plant tumour-like holes into every healthy scan of a folder, the same on every machine.

    Volumes are spread evenly over the logarithm from ``ml[0]`` to ``ml[1]``; places are drawn from the brain.
    A hole depends on the scan's name and content, the settings and nothing else. Errors as in ``read_cases``.
    """
    cases = []
    for path in _scans_in(folder):
        scan = read_volume(path)
        brain = _brain_of(scan)
        stem = next(path.name.removesuffix(suffix) for suffix in SCANS if path.name.endswith(suffix))
        stem = "".join(letter if letter in _SAFE else "-" for letter in stem)
        for number in range(per_scan):
            rng = np.random.default_rng([seed, zlib.crc32(path.name.encode()), number])
            share = (number + rng.uniform()) / per_scan
            target = float(np.exp(np.log(ml[0]) + share * (np.log(ml[1]) - np.log(ml[0]))))
            mask = _plant(scan, brain, target, rng)
            name = f"{stem}_hole-{number + 1:02d}_seed-{seed}"
            target_file = planted / f"{name}_mask.nii.gz"
            planted.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(mask.astype(np.uint8), scan.affine)  # type: ignore[no-untyped-call]
            write_atomically(target_file, encode(image.to_bytes(), target_file.name))
            cases.append(Case(name, path, target_file))
    return cases


def _scans_in(folder: Path) -> list[Path]:
    """The scans to plant in: those with a T1 name if there are any, else all; of the folder itself, by name."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    scans = [path for path in found if path.name.endswith(SCANS) and not path.name.startswith(".")]
    named = [path for path in scans if any(word in path.name for word in T1_WORDS)]
    if not scans:
        raise MissingInputError(
            "IN-38",
            "no such folder" if not folder.is_dir() else f"it holds no scan ({', '.join(SCANS)})",
            why="holes are planted into the healthy scans of this folder",
            fix=f"ls '{folder}'",
            path=folder,
        )
    return named or scans


def _brain_of(scan: Volume) -> Mask:
    """Where a hole may lie: the tissue of a stripped scan; of a whole head, what is deep enough and high up."""
    head = find_head(scan, np.zeros(scan.shape, np.bool_))
    if head is None:
        return np.zeros(scan.shape, np.bool_)
    tissue = head.tissue
    stripped = looks_skull_stripped(scan)
    if not stripped:
        edge_mm = head.step * head.spacing_mm
        depth_mm = ndimage.distance_transform_edt(np.pad(tissue, 1), sampling=edge_mm)[1:-1, 1:-1, 1:-1]
        height_mm = np.tensordot(scan.affine[2, :3] * head.step, np.indices(tissue.shape), axes=1)
        tissue = tissue & (depth_mm > SKIN_AND_SKULL_MM)
        tissue &= height_mm > np.max(height_mm[head.tissue]) - BELOW_CROWN_MM
    nearest = np.ix_(
        *[
            np.minimum(np.arange(n) // s, m - 1)
            for n, s, m in zip(scan.shape, head.step, tissue.shape, strict=True)
        ]
    )
    brain: Mask = tissue[nearest]
    return brain & (scan.values != 0) if stripped else brain


def _plant(scan: Volume, brain: Mask, volume_ml: float, rng: np.random.Generator) -> Mask:
    places = np.argwhere(brain)
    edge_mm = float(np.prod(scan.spacing_mm)) ** (1 / 3)
    needed = LEAST_INSIDE * volume_ml * 1000 / edge_mm**3
    for _ in range(TRIES if len(places) >= needed and len(places) else 0):
        x, y, z = (float(c) for c in places[rng.integers(len(places))])
        blob = random_blob(rng, scan.shape, (x, y, z), volume_ml, edge_mm)
        inside = blob & brain
        if inside.sum() >= needed:
            return inside
    raise UsageError(
        "BM-07",
        f"a hole of {volume_ml:.1f} ml has no place in the brain of this scan",
        why="every scan gets holes of all sizes, so that methods are compared on the same cases",
        fix="smaller holes (?ml=0.1-50), or a folder that holds healthy brains only",
        path=scan.path,
    )


def _settings(query: str) -> dict[str, Any]:
    """``per_scan=4&seed=0&ml=0.1-100`` as keyword arguments of ``plant_cases``."""
    found = {"per_scan": "4", "seed": "0", "ml": "0.1-100"}
    try:
        given = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        if given.keys() - found.keys():
            raise ValueError(f"there is no setting '{min(given.keys() - found.keys())}'")
        return _numbers({**found, **given})
    except ValueError as error:
        raise UsageError(
            "BM-06",
            f"the settings of the cases are '{query}': {error}",
            why="they decide which holes are planted",
            fix=f"--cases '{PLANTED}FOLDER?per_scan=4&seed=0&ml=0.1-100' (volumes in ml)",
        ) from error


def _numbers(found: Mapping[str, str]) -> dict[str, Any]:
    per_scan, seed = int(found["per_scan"]), int(found["seed"])
    low, _, high = found["ml"].partition("-")
    ml = float(low), float(high or low)
    if per_scan < 1 or seed < 0 or not 0 < ml[0] <= ml[1] < np.inf:
        raise ValueError("expected per_scan of 1 or more, seed of 0 or more, 0 < smallest <= largest ml")
    return {"per_scan": per_scan, "seed": seed, "ml": ml}


def _bad_table(table: Path, what: str) -> InputError:
    return InputError(
        "BM-05",
        f"{what}; expected columns with tabs between: {', '.join(COLUMNS)} [, {', '.join(OPTIONAL_COLUMNS)}]",
        why="a wrong case would give scores that mean nothing",
        fix="correct the table; docs/how-to/benchmark.md shows one",
        path=table,
    )
