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
    """Learns from the fills of this session how long they take on this computer, model by model."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def learn(self, work: Work, seconds: float) -> None:
        """Take note of a finished fill."""
        self._last[work.model] = (work.megavoxel_passes, seconds)

    def guess(self, work: Work) -> dict[str, Any]:
        """``{"seconds", "basis"}``; the basis says whether this computer was measured."""
        if work.model in self._last:
            passes, seconds = self._last[work.model]
            fixed = min(FIXED_SECONDS, seconds / 2)
            grown = work.megavoxel_passes / passes if passes else 1.0
            guessed = fixed + (seconds - fixed) * grown
            basis = "measured: the last fill with this model in this session"
        else:
            guessed = FIXED_SECONDS + work.megavoxel_passes * SECONDS_PER_MEGAVOXEL
            basis = "a table measured on 2 CPU cores"
            if work.megavoxel_passes:
                basis += " with the packaged model; other models can be far slower"
        return {"seconds": round(guessed, 1), "basis": basis}
