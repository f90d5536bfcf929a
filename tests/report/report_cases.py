"""Small synthetic cases for the tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from numpy.typing import NDArray

from neuromend.findings import Finding
from neuromend.report import ReportCase

EVIL_NAME = '"><img src=x onerror=alert(1)>.nii.gz'

FINDINGS = (
    Finding("IN-18", "note", "The scan is skull-stripped."),
    Finding("GE-01", "pass", "Scan and mask lie on one grid."),
    Finding("MA-07", "warning", "The mask touches the border of the brain."),
)


def record() -> dict[str, Any]:
    """A sidecar as the filling writes it."""
    return {
        "version": "0.1.0",
        "command": ["neuromend", "fill", "-i", "my scan.nii.gz"],
        "method": "fastwavelet3d",
        "model": {"name": "neuromend-t1", "version": "1", "sha256": "9f" * 32, "licence": "CC BY-NC 4.0"},
        "seed": 1234,
        "steps": 2,
        "device": "cpu",
        "outside_mask": {"identical": True, "voxels": 9000, "sha256": "c0" * 32},
    }


def affine_for(
    codes: str, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], turn_degrees: float = 0.0
) -> NDArray[np.float64]:
    """An affine whose array axes point to `codes`, turned about the S axis, with the grid centred on 0 mm."""
    to_codes = axcodes2ornt(tuple(codes))
    axes = inv_ornt_aff(to_codes, shape)[:3, :3]
    angle = np.deg2rad(turn_degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.linalg.inv(axes).T @ np.diag(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def world(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y, z, 3) world coordinates of every voxel."""
    voxels = np.moveaxis(np.indices(shape), 0, -1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def ball(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    centre: tuple[float, float, float],
    radius: float,
) -> NDArray[np.bool_]:
    """True within `radius` millimetres of a world point."""
    inside: NDArray[np.bool_] = ((world(shape, affine) - centre) ** 2).sum(axis=-1) <= radius**2
    return inside


def case(
    shape: tuple[int, int, int] = (24, 30, 26),
    codes: str = "RAS",
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0),
    mask: NDArray[np.bool_] | None = None,
    **changes: Any,
) -> ReportCase:
    """A noisy ball for a head, with a lesion (dark before, like the rest after) if no mask is given."""
    affine = affine_for(codes, shape, spacing_mm)
    rng = np.random.default_rng(7)
    extent = float((np.array(shape) * spacing_mm).min())
    healthy = np.where(ball(shape, affine, (0, 0, 0), 0.45 * extent), 100 + 5 * rng.normal(size=shape), 0.0)
    if mask is None:
        mask = ball(shape, affine, (-0.15 * extent, 0.05 * extent, 0.1 * extent), 0.12 * extent)
    fields: dict[str, Any] = {
        "title": "sub-01_T1w.nii.gz",
        "before": np.where(mask, 40.0, healthy).astype(np.float32),
        "after": healthy.astype(np.float32),
        "mask": mask,
        "affine": affine,
        "findings": FINDINGS,
        "record": record(),
    }
    return ReportCase(**(fields | changes))


def with_samples(base: ReportCase, count: int) -> ReportCase:
    """The same case with samples around the fill and their uncertainty."""
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(count, *base.mask.shape)).astype(np.float32)
    samples = tuple(np.where(base.mask, base.after + part, base.after) for part in noise)
    return ReportCase(
        title=base.title,
        before=base.before,
        after=base.after,
        mask=base.mask,
        affine=base.affine,
        uncertainty=np.std(samples, axis=0),
        samples=samples,
        findings=base.findings,
        record=base.record,
    )
