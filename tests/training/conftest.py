"""A data folder like ../shared/data, of synthetic brains of a few centimetres, and the scripts."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = [
    ("malf", "1000", "train"),
    ("malf", "1001", "dev"),
    ("malf", "1002", "extra"),
    ("ixi2mm", "IXI002", "train"),
    ("ixi2mm", "IXI012", "train"),
    ("ixi2mm", "IXI013", "dev"),
    ("other", "trio", "extra"),
]
FOLDERS = {"malf": "oasis", "ixi2mm": "ixi-2mm", "other": "other"}
SIDES = {"malf": (44, 52, 48), "ixi2mm": (36, 44, 40), "other": (36, 44, 40)}


def brain(shape: tuple[int, int, int], seed: int) -> NDArray[np.uint8]:
    """A textured ellipsoid, 1..255, in 0; neither axis is a symmetry of its texture."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    a, b, c = rng.uniform(6, 12, 3)
    tissue = 150 + 60 * np.sin(a * x + 1) * np.cos(b * y) + 30 * np.sin(c * z) + rng.normal(0, 3, shape)
    return np.where(x**2 + y**2 + z**2 < 0.8, np.clip(tissue, 1, 255), 0).astype(np.uint8)


def save(path: Path, voxels: NDArray[Any], spacing_mm: float) -> None:
    """Write voxels centred on the origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    offset = [-spacing_mm * (n - 1) / 2 for n in voxels.shape]
    affine = nib.affines.from_matvec(np.diag([spacing_mm] * 3), offset)
    nib.save(nib.Nifti1Image(voxels, affine), path)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder. Only train and dev scans are images; what may never be read is no image at all."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["dataset\tsubject\tperson\tsplit", *(f"{d}\t{s}\t{s}\t{split}" for d, s, split in SUBJECTS)]
    (folder / "subjects.tsv").write_text("\n".join(rows) + "\n")
    turn = [[0.98, 0.05, 0, 1.5], [-0.05, 1.02, 0.1, -1], [0, -0.1, 0.97, 0.7], [0, 0, 0, 1]]
    affines = {f"{d}/{s}": {"mni_to_subject_ras": turn} for d, s, _ in SUBJECTS}
    (folder / "mni-to-subject.json").write_text(json.dumps(affines))
    for number, (dataset, subject, split) in enumerate(SUBJECTS):
        path = folder / "healthy" / FOLDERS[dataset] / f"{subject}_T1w.nii.gz"
        if split == "extra":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"never to be read")
        else:
            save(path, brain(SIDES[dataset], number), 1.0 if dataset == "malf" else 2.0)
    labels = (brain((40, 44, 48), 7) // 30).astype(np.uint8)
    save(folder / "labels" / "seg01_tissue.nii.gz", labels, 1.0)
    rng = np.random.default_rng(1)
    for kind, count in (("stroke", 9), ("ms", 5)):
        for number in range(count):
            mask = np.zeros((40, 44, 48), np.uint8)
            corner = rng.integers(12, 20, 3)
            side = 2 + number
            mask[tuple(slice(c, c + side) for c in corner)] = kind != "stroke" or number != 3  # one is empty
            save(folder / kind / "masks-mni" / f"sub-{number:02d}_lesion.nii.gz", mask, 1.0)
    return folder


def load_script(name: str, monkeypatch: pytest.MonkeyPatch, folder: str = "training") -> ModuleType:
    """A script of the repository as a module; what it imports from beside itself must be loaded already."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
