"""Small synthetic heads, lesions and an untrained network, for the tests of the whole way of a fill."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff
from numpy.typing import NDArray

from neuromend.checkpoint import save_model
from neuromend.manifest import TrainedRange
from neuromend.methods.fastwavelet3d import PRESETS, FastWavelet3D

SHAPE = (44, 54, 40)
AFFINE = np.array([[2.0, 0, 0, -41], [0, 2.0, 0, -43], [0, 0, 2.0, -35], [0, 0, 0, 1]])
THIN = np.array([[1.0, 0, 0, -20], [0, 1.0, 0, -23], [0, 0, 1.0, -18], [0, 0, 0, 1]])
"""The same voxels at 1 mm."""
THICK = np.array([[0.9, 0, 0, -18], [0, 1.1, 0, -25], [0, 0, 2.4, -46], [0, 0, 0, 1]])
"""The same voxels, anisotropic: two axes finer than the model's grid or like it, one far coarser."""


def radius(shape: tuple[int, ...] = SHAPE, centre: Any = (0.0, 0.0, 0.0)) -> NDArray[np.float64]:
    """Distance from the centre of the volume (shifted by ``centre``), 1 at its faces along every axis."""
    half = (np.array(shape) - 1) / 2
    place = (np.indices(shape).transpose(1, 2, 3, 0) - half) / half - centre
    return np.asarray(np.linalg.norm(place, axis=-1))


def head(*, stripped: bool = True, dtype: str = "int16") -> NDArray[Any]:
    """A brain of two shells with noise; with a bright scalp, a dark skull and noise in the air if not stripped."""
    rng = np.random.default_rng(5)
    r = radius()
    values = np.zeros(SHAPE) if stripped else np.abs(rng.normal(0, 6, SHAPE))
    shells = ((0.8, 600), (0.6, 900)) if stripped else ((0.95, 1100), (0.87, 60), (0.8, 600), (0.6, 900))
    for outer, mean in shells:
        values = np.where(r < outer, rng.normal(mean, 20, SHAPE), values)
    return np.rint(values).astype(dtype)


def ball(size: float = 0.25, centre: Any = (0.3, 0.1, 0.15)) -> NDArray[np.bool_]:
    """A lesion on the right."""
    return np.asarray(radius(centre=centre) < size)


def image(values: NDArray[Any], affine: NDArray[np.float64] = AFFINE) -> Any:
    """A NIfTI image of these very values; a mask becomes one of bytes."""
    array = values.astype(np.uint8) if values.dtype == np.bool_ else values
    return nib.Nifti1Image(array, affine)


def turned(made: Any, codes: str, tilt_degrees: float = 0.0) -> Any:
    """The same image with its axes stored in another order and direction, and turned about the x axis."""
    axes = axcodes2ornt(tuple(codes))
    angle = np.deg2rad(tilt_degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ made.affine @ inv_ornt_aff(axes, made.shape)
    return nib.Nifti1Image(apply_orientation(np.asarray(made.dataobj), axes), affine)


def stored(result: Any) -> NDArray[Any]:
    """The stored voxels of an image, without scaling."""
    proxy = result.dataobj
    return np.asarray(proxy.get_unscaled() if hasattr(proxy, "get_unscaled") else proxy)


def save_network(folder: Path) -> Path:
    """A model folder with the smallest network, its weights random everywhere (untrained ones end in zeros)."""
    generator = torch.Generator().manual_seed(11)
    module = FastWavelet3D(PRESETS["tiny"])
    weights = {
        name: torch.randn(value.shape, generator=generator) * 0.08
        for name, value in module.state_dict().items()
    }
    save_model(
        folder,
        weights,
        name="tiny",
        description="random weights",
        method="fastwavelet3d",
        config=asdict(module.config),
        trained_range=TrainedRange(
            modalities=("T1w",), spacing_mm=(1.0, 2.0), coverage=("skull-stripped", "whole-head")
        ),
        licence="CC0-1.0",
        licence_text="CC0-1.0",
        card="# random",
        training={},
        ema=True,
        dtype=torch.float32,
    )
    return folder


def save_pair(folder: Path, name: str = "scan.nii.gz", **changes: Any) -> tuple[Path, Path]:
    """A scan and its lesion mask on the disk."""
    scan, mask = folder / name, folder / "lesion.nii.gz"
    nib.save(changes.get("scan", image(head())), scan)
    nib.save(changes.get("mask", image(ball())), mask)
    return scan, mask


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
