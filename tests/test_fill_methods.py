"""The main job with every method: an oblique, anisotropic scan with two lesions far apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from neuromend import cli
from neuromend.checkpoint import save_model
from neuromend.manifest import TrainedRange
from neuromend.methods import METHODS
from neuromend.published import PUBLISHED, import_weights

from .filling_cases import THICK, ball, head, image, stored, turned

RANGE = TrainedRange(modalities=("T1w",), spacing_mm=(0.5, 3.0), coverage=("skull-stripped",))
FEW = ["--threads", "1", "--device", "cpu", "--quiet"]


def weights(method: str) -> dict[str, torch.Tensor]:
    """Random everywhere; untrained networks end in zeros."""
    generator = torch.Generator().manual_seed(11)
    build: Any = METHODS[method]
    state = build(build.PRESETS["tiny"]).state_dict()
    return {
        key: torch.randn(value.shape, generator=generator) * 0.08 if value.is_floating_point() else value
        for key, value in state.items()
    }


def model(method: str, folder: Path, sampler: str | None = None) -> Path:
    """A tiny model folder: imported where there are published weights of the method, else saved."""
    state = weights(method)
    if method in PUBLISHED:
        source = PUBLISHED[method]
        named = {key.removeprefix(source.prefix): v for key, v in state.items() if key not in source.ones}
        torch.save(named, folder / "weights.pt")
        import_weights(method, folder / "weights.pt", folder / "model", preset="tiny", sampler=sampler)
        return folder / "model"
    save_model(
        folder / "model", state, name=method, description="random", method=method,
        config=asdict(METHODS[method].PRESETS["tiny"]), trained_range=RANGE, licence="CC0-1.0",
        licence_text="CC0-1.0", card="# random", training={}, ema=True, dtype=torch.float32,
    )  # fmt: skip
    return folder / "model"


def pair(folder: Path) -> tuple[Any, Any]:
    """A scan with thick slices, turned and stored in another order, and two small lesions at its two ends."""
    lesions = ball(0.1, (0.3, 0.4, 0.2)) | ball(0.1, (-0.3, -0.4, -0.2))
    scan, mask = (turned(image(values, THICK), "PSR", 17.0) for values in (head(), lesions))
    nib.save(scan, folder / "T1.nii.gz")
    nib.save(mask, folder / "lesion.nii.gz")
    return stored(scan), stored(mask) != 0


def filled(folder: Path, *options: str) -> tuple[Any, dict[str, Any]]:
    """Stored voxels and sidecar of a fill by the command line."""
    names = ["-i", folder / "T1.nii.gz", "-m", folder / "lesion.nii.gz", "-o", folder / "filled.nii.gz"]
    words = ["fill", *names, "--model", folder / "model", "--overwrite", *FEW, *options]
    assert cli.main([str(word) for word in words]) == 0
    sidecar: dict[str, Any] = json.loads((folder / "filled.json").read_text())
    return stored(nib.load(folder / "filled.nii.gz")), sidecar


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fills_two_far_lesions_of_an_oblique_scan(method: str, tmp_path: Path) -> None:
    scan, lesion = pair(tmp_path)
    model(method, tmp_path)
    result, sidecar = filled(tmp_path, "--samples", "2", "--steps", "2", "--seed", "3")
    assert np.array_equal(result[~lesion], scan[~lesion])
    halves = np.array_split(lesion, 2, axis=0), np.array_split(result != scan, 2, axis=0)
    assert all(changed[hole].mean() > 0.9 for hole, changed in zip(*halves, strict=True) if hole.any())
    settings = sidecar["settings"]
    assert (settings["seed"], settings["steps"], settings["samples"]) == (3, 2, 2)
    default = getattr(METHODS[method].PRESETS["tiny"], "sampler", None)
    assert settings["options"]["sampler"] == default
    assert sidecar["model"]["method"] == method
    assert sidecar["result"]["outside_identical_voxels"] == int((~lesion).sum())
    assert {f"filled_sample-0{number}.nii.gz" for number in (1, 2)} <= {
        path.name for path in tmp_path.iterdir()
    }
    report = (tmp_path / "filled_report.html").read_text()
    assert (f"method {method}, sampler {default}," if default else f"method {method},") in report


@pytest.mark.parametrize("method", ["wavelet3d", "fastwdm3d"])
def test_the_sampler_given_at_import_is_the_one_that_fills(method: str, tmp_path: Path) -> None:
    scan, lesion = pair(tmp_path)
    model(method, tmp_path)
    default, _ = filled(tmp_path, "--steps", "2")
    shutil.rmtree(tmp_path / "model")
    model(method, tmp_path, "published")
    result, sidecar = filled(tmp_path, "--steps", "2")
    assert sidecar["settings"]["options"]["sampler"] == "published"
    assert np.array_equal(result[~lesion], scan[~lesion])
    assert not np.array_equal(result, default)
