"""How much signal is left at every noise level, and which levels a sampler visits.

One convention everywhere: level t = 0 is clean data and t = T is almost pure noise, with

    x_t = sqrt(abar[t]) x_0 + sqrt(1 - abar[t]) eps,   eps ~ N(0, 1)   (Ho et al. 2020, eq. 4)

and abar[0] = 1. Published code counts its noisy levels from 0 instead and has no index for clean data:
**published index i is our level t = i + 1**. A network trained with published indices is therefore called
with t - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["trailing", "linspace", "leading"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The noise levels of one diffusion process.

    Args:
        abar: (T + 1,) float64 on the CPU, the share of signal variance left at each level: abar[0] = 1,
            strictly decreasing, positive. It stays on the CPU, so that reading a level never waits for a
            GPU; for a batch of levels index it there and move the result.

    Raises:
        ValueError: if ``abar`` is not such a sequence.
    """

    abar: Tensor

    def __post_init__(self) -> None:
        abar = self.abar
        if abar.dtype != torch.float64 or abar.dim() != 1 or len(abar) < 2:
            raise ValueError(
                f"abar must be a float64 vector; found {abar.dtype} of shape {tuple(abar.shape)}"
            )
        if abar[0] != 1 or not bool((abar.diff() < 0).all()) or not abar[-1] > 0:
            raise ValueError("abar must begin with 1, decrease at every level and stay positive")

    @property
    def T(self) -> int:
        """The highest level, which is the number of noisy levels."""
        return len(self.abar) - 1

    @cached_property
    def betas(self) -> Tensor:
        """(T,) float64; betas[t - 1] is the noise variance added by the step from level t - 1 to t."""
        return 1 - self.abar[1:] / self.abar[:-1]

    @classmethod
    def from_betas(cls, betas: Tensor) -> Schedule:
        """The schedule with these T noise variances, each in (0, 1)."""
        return cls(torch.cat((torch.ones(1), 1 - betas)).double().cumprod(0))

    @classmethod
    def linear(cls, T: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Schedule:
        """Noise variances that grow linearly (Ho et al. 2020, section 4).

        The two bounds are meant for 1000 levels; for another T they are scaled by 1000/T, so that the
        last level holds about the same noise (as in the code of Nichol and Dhariwal 2021). T must
        exceed 1000 * beta_max, which is 20.
        """
        scale = 1000 / T
        return cls.from_betas(torch.linspace(scale * beta_min, scale * beta_max, T, dtype=torch.float64))

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008, max_beta: float = 0.9999) -> Schedule:
        """The cosine schedule (Nichol and Dhariwal 2021, eq. 17), each beta clipped to ``max_beta``."""
        t = torch.arange(T + 1, dtype=torch.float64) / T
        f = torch.cos((t + s) / (1 + s) * math.pi / 2).square()
        return cls.from_betas((1 - f[1:] / f[:-1]).clamp(max=max_beta))

    @classmethod
    def variance_preserving(
        cls, T: int, beta_min: float = 0.1, beta_max: float = 20.0, eps: float = 1e-3
    ) -> Schedule:
        """The variance-preserving SDE cut into a few big steps.

        abar(u) = exp(-u beta_min - u^2 (beta_max - beta_min) / 2) (Song et al. 2021, eq. 33, squared), at
        T + 1 equally spaced times from ``eps`` to 1 and divided by its first value, so that level 0 is
        clean (the few-step form of Xiao et al. 2022).
        """
        u = torch.linspace(eps, 1, T + 1, dtype=torch.float64)
        exponent = u * beta_min + u.square() * (beta_max - beta_min) / 2
        return cls(torch.exp(exponent[0] - exponent))

    def levels(self, steps: int, spacing: Spacing = "trailing") -> list[int]:
        """The levels that a sampler visits: ``steps`` noisy ones in descending order, then 0.

        Args:
            steps: how many network evaluations to spend, 1 to T.
            spacing: the names of Lin et al. 2024, table 2. ``"trailing"``: every T/steps-th level counted
                down from T; the best choice for few steps. ``"linspace"``: evenly from T to 1, both
                included (the published respacing). ``"leading"``: every (T // steps)-th level counted up
                from 1; it starts below T, where some signal is left that a start from pure noise lacks.

        Raises:
            ValueError: if ``steps`` is outside 1 to T or the spacing has another name.
        """
        T = self.T
        if not 1 <= steps <= T:
            raise ValueError(f"steps must be between 1 and {T}, the levels of this schedule; found {steps}")
        if spacing == "trailing":
            noisy = [round(k * T / steps) for k in range(steps, 0, -1)]
        elif spacing == "linspace":
            gap = (T - 1) / (steps - 1) if steps > 1 else 0.0
            noisy = [1 + round(k * gap) for k in range(steps - 1, 0, -1)] + [1 if steps > 1 else T]
        elif spacing == "leading":
            noisy = [1 + k * (T // steps) for k in range(steps - 1, -1, -1)]
        else:
            raise ValueError(f"spacing must be 'trailing', 'linspace' or 'leading'; found {spacing!r}")
        return [*noisy, 0]
