"""A small cache with known arrays, for the tests of everything that reads one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.corpus.cache import CASES, CaseCache, CaseRow, pack_arrays, write_files, write_manifest

SHAPE = (20, 24, 18)


def row_of(name: str, split: str, arrays: dict[str, NDArray[Any]], folder: Path, **fields: Any) -> CaseRow:
    """Write the file of a case and return its row."""
    payload, places = pack_arrays(arrays)
    file = f"{CASES}/{name}.bin"
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    write_files([(folder / file, payload)])
    x, y, z = arrays["healthy"].shape
    facts: dict[str, Any] = {
        "id": name,
        "subject": name,
        "split": split,
        "shape": (x, y, z),
        "spacing_mm": (1.0, 1.0, 1.0),
        "affine": tuple(tuple(line) for line in np.eye(4).tolist()),
        "source": f"{name}_T1w.nii.gz",
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "intensity_low": 0.0,
        "intensity_high": 200.0,
        "stored_scale": 200.0,
        "masks": tuple(key.removeprefix("mask-") for key in arrays if key.startswith("mask-")),
        "has_lesion": "lesion" in arrays,
        "has_tissue": "tissue" in arrays,
        "file": file,
        "bytes": len(payload),
        "sha256_file": hashlib.sha256(payload).hexdigest(),
        "arrays": places,
    }
    return CaseRow(**{**facts, **fields})


def small_cache(folder: Path) -> CaseCache:
    """Two train cases, one with a lesion, a mask and tissue classes, and a dev case."""
    rng = np.random.default_rng(5)
    healthy = rng.integers(0, 255, SHAPE, dtype=np.uint8)
    lesion = np.zeros(SHAPE, bool)
    lesion[4:7, 5:9, 6:8] = True
    hole = np.zeros(SHAPE, bool)
    hole[12:15, 5:9, 6:8] = True
    rich = {"healthy": healthy, "lesion": lesion, "mask-healthy": hole, "tissue": (healthy // 32)}
    rows = [
        row_of("b-rich", "train", rich, folder),
        row_of("a-plain", "train", {"healthy": healthy.astype(np.uint16) * 200}, folder, stored_scale=4e4),
        row_of("c-dev", "dev", {"healthy": healthy[:-1]}, folder),
    ]
    write_manifest(folder, rows, {"why": "a test"})
    return CaseCache.open(folder)
