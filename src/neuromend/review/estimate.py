"""How long a fill will take, said before it starts, and what that is based on."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from neuromend.models import ModelEntry

FIXED_SECONDS = 3.0
"""Reading, checking, saving and the report of a 1 mm scan, with the program loaded: runs/bench-fill.md, the time of
a classical fill (2 cores)."""

SECONDS_PER_MEGAVOXEL = 0.3
"""One pass of the packaged network over a million voxels: same source, its time less that of a classical fill."""

HEAD_MM = (200.0, 240.0, 200.0)
"""A head with its margin; what lies beyond is cut away before the network sees it."""

EXPECTED_STEPS = {"fastwavelet3d": 1, "unet3d": 1}
"""Methods that know the expected fill, and its steps; repeated from the methods, which import torch."""

DEFAULT_STEPS = {
    "slice2d": 25, "sequential2d": 25, "pseudo3d": 25, "full3d": 50, "latent3d": 20, "wavelet3d": 50,
    "fastwavelet3d": 4, "fastwdm3d": 2, "unet3d": 2,
}  # fmt: skip
"""Steps of one random sample where none are asked for; repeated likewise."""


@dataclass(frozen=True, slots=True)
class Work:
    """How much a fill computes: passes of the network times millions of voxels; 0 for a classical fill."""

    model: str
    megavoxel_passes: float


def work_of(
    entry: ModelEntry,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    samples: int,
    steps: int | None,
) -> Work:
    """What a fill of a scan of this size will compute.

    Args:
        shape, spacing_mm: of the scan.
        samples, steps: as ``neuromend.fill``.
    """
    if entry.manifest is None:
        return Work(entry.name, 0.0)
    voxels = prod(min(n * size, most) for n, size, most in zip(shape, spacing_mm, HEAD_MM, strict=True))
    method = entry.manifest.method
    one = steps or DEFAULT_STEPS.get(method, 50)
    passes = samples * one if samples else EXPECTED_STEPS.get(method, one)
    return Work(entry.name, passes * voxels / 1e6)


class Estimator:
    """Learns from the fills of this session how fast this computer is, model by model."""

    def __init__(self) -> None:
        self._seconds_per_unit: dict[str, float] = {}
        self._fixed = FIXED_SECONDS
        self._seen: set[str] = set()

    def learn(self, work: Work, seconds: float) -> None:
        """Take note of a finished fill."""
        self._seen.add(work.model)
        if work.megavoxel_passes == 0:
            self._fixed = seconds
        else:
            beyond = max(seconds - self._fixed, 0.2 * seconds)
            self._seconds_per_unit[work.model] = beyond / work.megavoxel_passes

    def guess(self, work: Work) -> dict[str, Any]:
        """``{"seconds", "basis"}``; the basis says whether this computer was measured."""
        rate = self._seconds_per_unit.get(work.model, SECONDS_PER_MEGAVOXEL)
        if work.model in self._seen:
            basis = "measured: the last fill with this model in this session"
        elif work.megavoxel_passes == 0:
            basis = "a table measured on 2 CPU cores"
        else:
            basis = "a table measured on 2 CPU cores with the packaged model; other models can be far slower"
        return {"seconds": round(self._fixed + work.megavoxel_passes * rate, 1), "basis": basis}
