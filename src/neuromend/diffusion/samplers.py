"""Samplers: from a noisy state down to clean data, over an explicit list of levels.

Each sampler is a function of the same form, so that a method can take any of them::

    x0 = sampler(denoise, xt, levels, schedule=..., generator=..., on_step=...)

- ``denoise(xt, t) -> x0`` predicts clean data from the state at level t (an int, 1 to T). Conditioning,
  prediction type and clipping live inside it.
- ``xt`` is the state at ``levels[0]``: (B, ...), normally ``noise_like``. It is kept in float32 (or
  float64) whatever ``denoise`` returns.
- ``levels`` falls strictly from at most T to 0 (``Schedule.levels``). A step goes from one entry to the
  next; nobody computes "the previous timestep" again. The last step adds no noise.
- ``generator`` provides all noise; a sampler that needs none leaves it alone.
- ``on_step(i, n)`` is called after the i-th of n network evaluations, i from 1.

All coefficients are Python numbers known before the loop, so nothing in it waits for a GPU. Inference mode
is the caller's choice.

Papers: DDPM = Ho et al. 2020; DDIM = Song, Meng and Ermon 2021; DPM-Solver++ = Lu et al. 2022; RePaint =
Lugmayr et al. 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from neuromend.diffusion.process import (
    add_more_noise,
    add_noise,
    eps_from_x0,
    large_variance,
    learned_range_variance,
    noise_like,
    posterior_mean,
    small_variance,
)
from neuromend.diffusion.schedule import Schedule

Denoise = Callable[[Tensor, int], Tensor]
DenoiseWithVariance = Callable[[Tensor, int], tuple[Tensor, Tensor]]
OnStep = Callable[[int, int], None]


def ddpm(
    denoise: Denoise | DenoiseWithVariance,
    xt: Tensor,
    levels: Sequence[int],
    *,
    schedule: Schedule,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    variance: Literal["fixed_small", "fixed_large"] = "fixed_small",
) -> Tensor:
    """Ancestral sampling (DDPM, algorithm 2): draw x_s from the posterior of eq. 7, between any two levels.

    Args:
        denoise: a network that learned its variance too returns (x0, v), v in [-1, 1] of the shape of x0.
            Then v interpolates between the small and the large variance in the log domain (Nichol and
            Dhariwal 2021, eq. 15).
        variance: of the noise added by a step, where ``denoise`` returns x0 alone. ``"fixed_small"`` is
            that of q(x_s | x_t, x_0), ``"fixed_large"`` that of the noising step (DDPM, section 3.2).

    Returns:
        Clean data, (B, ...).

    Raises:
        ValueError: if ``variance`` has another name.
    """
    if variance not in ("fixed_small", "fixed_large"):
        raise ValueError(f"variance must be 'fixed_small' or 'fixed_large'; found {variance!r}")
    x, abar, n = _start(xt, levels, schedule)
    for i, (t, s) in enumerate(pairwise(levels), start=1):
        predicted = denoise(x, t)
        x0, v = predicted if isinstance(predicted, tuple) else (predicted, None)
        x = posterior_mean(x0.to(x.dtype), x, abar[s], abar[t])
        if s > 0:
            small, large = small_variance(abar[s], abar[t]), large_variance(abar[s], abar[t])
            if v is not None:
                std: Tensor | float = learned_range_variance(v.to(x.dtype), small, large).sqrt()
            else:
                std = (small if variance == "fixed_small" else large) ** 0.5
            x = x + std * noise_like(x, generator)
        if on_step is not None:
            on_step(i, n)
    return x


def ddim(
    denoise: Denoise,
    xt: Tensor,
    levels: Sequence[int],
    *,
    schedule: Schedule,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Non-Markovian sampling (DDIM, eq. 12 with the sigma of eq. 16).

    Args:
        eta: 0 is deterministic, 1 is ``ddpm`` with ``"fixed_small"``.

    Returns:
        Clean data, (B, ...).

    Raises:
        ValueError: if ``eta`` is outside 0 to 1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 (deterministic) and 1 (ancestral); found {eta}")
    x, abar, n = _start(xt, levels, schedule)
    for i, (t, s) in enumerate(pairwise(levels), start=1):
        x0 = denoise(x, t).to(x.dtype)
        variance = eta**2 * small_variance(abar[s], abar[t])
        direction = max(1 - abar[s] - variance, 0.0) ** 0.5
        x = abar[s] ** 0.5 * x0 + direction * eps_from_x0(x, x0, abar[t])
        if variance > 0:
            x = x + variance**0.5 * noise_like(x, generator)
        if on_step is not None:
            on_step(i, n)
    return x


def dpmpp_2m(
    denoise: Denoise,
    xt: Tensor,
    levels: Sequence[int],
    *,
    schedule: Schedule,
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> Tensor:
    """Second-order multistep solver of the probability-flow ODE (DPM-Solver++, algorithm 2).

    It predicts data, extrapolating linearly in the half log signal-to-noise ratio
    lambda = log(sqrt(abar) / sqrt(1 - abar)) from the last two predictions. The first step, and the last,
    across which lambda goes to infinity, are of first order. Deterministic: ``generator`` is not used.

    Returns:
        Clean data, (B, ...).
    """
    x, abar, n = _start(xt, levels, schedule)
    previous: tuple[Tensor, float] | None = None
    for i, (t, s) in enumerate(pairwise(levels), start=1):
        x0 = denoise(x, t).to(x.dtype)
        if s == 0:
            x = x0
        else:
            step = _half_log_snr(abar[s]) - _half_log_snr(abar[t])
            target = x0
            if previous is not None:
                last_x0, last_step = previous
                target = x0 + step / (2 * last_step) * (x0 - last_x0)
            noise_ratio = ((1 - abar[s]) / (1 - abar[t])) ** 0.5
            x = noise_ratio * x - abar[s] ** 0.5 * math.expm1(-step) * target
            previous = x0, step
        if on_step is not None:
            on_step(i, n)
    return x


def repaint(
    denoise: Denoise,
    xt: Tensor,
    levels: Sequence[int],
    *,
    schedule: Schedule,
    generator: torch.Generator,
    known: Tensor,
    mask: Tensor,
    on_step: OnStep | None = None,
    jump_length: int = 10,
    resamples: int = 10,
) -> Tensor:
    """Inpainting with a model that was trained without a condition (RePaint, algorithm 1).

    For networks that were trained on whole data; the methods that are here see the known tissue as a condition and do
    without. After each ancestral step the known part is replaced by the known data at that noise level. So that
    both parts grow together, every stretch of ``jump_length`` levels is walked ``resamples`` times: back up
    by adding noise, and down again.

    Args:
        known: clean data, (B, ...); what it holds where ``mask`` is True has no influence.
        mask: bool, broadcastable to ``known``, True where data must be invented (the paper's m is the
            opposite).
        jump_length: how many entries of ``levels`` one jump back up covers (the paper's j).
        resamples: how often each stretch is walked; 1 means no jump (the paper's r).

    Returns:
        Clean data, (B, ...), equal to ``known`` where ``mask`` is False.

    Raises:
        ValueError: if ``jump_length`` or ``resamples`` is below 1.
    """
    if jump_length < 1 or resamples < 1:
        found = f"{jump_length} and {resamples}"
        raise ValueError(f"jump_length and resamples must be 1 or more; found {found}")
    x, abar, _ = _start(xt, levels, schedule)
    known = known.to(x.dtype)
    path = _walk(levels, jump_length, resamples)
    n, i = sum(s < t for t, s in pairwise(path)), 0
    for t, s in pairwise(path):
        if s > t:
            x = add_more_noise(x, noise_like(x, generator), abar[t], abar[s])
            continue
        x = posterior_mean(denoise(x, t).to(x.dtype), x, abar[s], abar[t])
        seen = known
        if s > 0:
            x = x + small_variance(abar[s], abar[t]) ** 0.5 * noise_like(x, generator)
            seen = add_noise(known, noise_like(x, generator), abar[s])
        x = torch.where(mask, x, seen)
        i += 1
        if on_step is not None:
            on_step(i, n)
    return x


def _start(xt: Tensor, levels: Sequence[int], schedule: Schedule) -> tuple[Tensor, list[float], int]:
    """The state in float32 at least, abar as Python numbers, and the number of steps."""
    falls = all(s < t for t, s in pairwise(levels))
    if len(levels) < 2 or not falls or levels[0] > schedule.T or levels[-1] != 0:
        raise ValueError(f"levels must fall strictly from at most {schedule.T} to 0; found {list(levels)}")
    x = xt.to(torch.promote_types(xt.dtype, torch.float32))
    return x, schedule.abar.tolist(), len(levels) - 1


def _half_log_snr(abar: float) -> float:
    return 0.5 * math.log(abar / (1 - abar))


def _walk(levels: Sequence[int], jump_length: int, resamples: int) -> list[int]:
    """The levels RePaint visits (its appendix B): down, with jumps back up from every jump_length-th level.

    Jumps start one level above clean data, and reach at most the first level.
    """
    last = len(levels) - 1
    jumps_left = dict.fromkeys(range(last - 1, jump_length - 1, -jump_length), resamples - 1)
    path, k = [levels[0]], 0
    while k < last:
        k += 1
        path.append(levels[k])
        if jumps_left.get(k, 0) > 0:
            jumps_left[k] -= 1
            k -= jump_length
            path.append(levels[k])
    return path
