"""What every replay of published numbers needs: a line of the table, its error, recorded arrays, a recorded walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuromend.diffusion import process
from neuromend.diffusion.schedule import Schedule

TOLERANCE = 1e-5
"""Largest accepted error: norm of the difference over the norm of the published value, in float32."""

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a part of a method, and how far it is from the published numbers."""

    method: str
    part: str
    error: float
    parameters: int | None = None
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Within the tolerance; an error that is no number is a miss."""
        return self.error <= self.tolerance


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; infinite where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    difference, size = (found.double() - expected.double()).norm(), expected.double().norm()
    return float(difference / size) if size > 0 else float(difference)


def arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz file by name, as they are stored."""
    with np.load(path) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def recorded_walk(
    denoise: Callable[[Tensor, int], Tensor],
    x: Tensor,
    draws: Tensor,
    levels: Sequence[int],
    schedule: Schedule,
    variance: Callable[[float, float], float],
) -> Tensor:
    """Ancestral sampling with recorded noise: ``draws[k]`` is what step k adds, times its standard deviation."""
    abar = schedule.abar.tolist()
    for k, (t, s) in enumerate(pairwise(levels)):
        x0 = denoise(x, t)
        if s == 0:
            return x0
        mean = process.posterior_mean(x0, x, abar[s], abar[t])
        x = mean + variance(abar[s], abar[t]) ** 0.5 * draws[k].reshape(x.shape)
    return x
