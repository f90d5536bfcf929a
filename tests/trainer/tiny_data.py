"""A tiny prepared dataset: balls of smooth tissue, enough for a network of a few thousand weights to learn from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from scipy import ndimage

from neuromend.corpus.cache import CASES, CaseCache, CaseRow, pack_arrays, write_files, write_manifest

SHAPE = (44, 52, 40)
STORED_SCALE = 200.0


def write_tiny_data(folder: Path, scans: int = 3) -> CaseCache:
    """``scans`` scans to train on and one for dev, at 2 mm."""
    rows = [_write(folder, number, "train" if number < scans else "dev") for number in range(scans + 1)]
    write_manifest(folder, rows, {"why": "tests of the trainer"})
    return CaseCache.open(folder)


def _write(folder: Path, number: int, split: str) -> CaseRow:
    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in SHAPE), indexing="ij"))
    brain = (grid**2).sum(0) < 1
    tissue = 0.7 + 0.25 * np.tanh(8 * ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2.5))
    healthy = np.where(brain, STORED_SCALE * tissue, 0).round().astype(np.uint8)
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = SHAPE[0] - 1
    payload, places = pack_arrays({"healthy": healthy})
    name = f"sub-{number:02d}"
    file = f"{CASES}/{name}.bin"
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    write_files([(folder / file, payload)])
    digest = hashlib.sha256(payload).hexdigest()
    return CaseRow(
        id=name,
        subject=name,
        split=split,
        shape=SHAPE,
        spacing_mm=(2.0, 2.0, 2.0),
        affine=tuple(tuple(row) for row in np.diag([2.0, 2, 2, 1]).tolist()),
        source=f"{name}_T1w.nii.gz",
        sha256=digest,
        intensity_low=0.0,
        intensity_high=STORED_SCALE,
        stored_scale=STORED_SCALE,
        mirror=tuple(tuple(row) for row in mirror.tolist()),
        file=file,
        bytes=len(payload),
        sha256_file=digest,
        arrays=places,
    )
