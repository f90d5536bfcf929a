"""The arithmetic of Gaussian diffusion: noise on, noise off, and what lies between two levels.

Every formula takes ``abar`` itself, not an index: a float, a 0-dimensional tensor (one level for the whole
batch) or a (B,) tensor (one level an item), as found in ``Schedule.abar``. Tensors called x are of shape
(B, ...). Keep the state ``xt`` in float32 or float64: a prediction in half precision is then promoted.

Networks may predict the noise (eps), clean data (x0) or the velocity (v). The core converts between all three, so
that a new method may choose; those that are here predict eps or x0.

Papers: DDPM = Ho et al. 2020; iDDPM = Nichol and Dhariwal 2021; v = Salimans and Ho 2022.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Abar = Tensor | float
AbarT = TypeVar("AbarT", Tensor, float)


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, dtype and device of ``x``.

    It is drawn on the generator's device and then moved, so a CPU generator gives the same noise on
    every machine.
    """
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return noise.to(x.device, non_blocking=True)


def add_noise(x0: Tensor, eps: Tensor, abar: Abar) -> Tensor:
    """Noisy data at the level with ``abar`` (DDPM eq. 4)."""
    signal, noise = _weights(abar, x0)
    return signal * x0 + noise * eps


def add_more_noise(xs: Tensor, eps: Tensor, abar_s: Abar, abar_t: Abar) -> Tensor:
    """From level s up to a noisier level t in one step (DDPM eq. 2, over any distance)."""
    return add_noise(xs, eps, abar_t / abar_s)


def x0_from_eps(xt: Tensor, eps: Tensor, abar: Abar) -> Tensor:
    """Clean data, given the noise (DDPM eq. 4 solved for x_0)."""
    signal, noise = _weights(abar, xt)
    return (xt - noise * eps) / signal


def eps_from_x0(xt: Tensor, x0: Tensor, abar: Abar) -> Tensor:
    """The noise, given clean data; ``abar`` must be below 1 (DDPM eq. 4 solved for eps)."""
    signal, noise = _weights(abar, xt)
    return (xt - signal * x0) / noise


def v_from_x0(xt: Tensor, x0: Tensor, abar: Abar) -> Tensor:
    """The velocity sqrt(abar) eps - sqrt(1 - abar) x_0, given clean data; ``abar`` below 1 (v, section 4)."""
    signal, noise = _weights(abar, xt)
    return (signal * xt - x0) / noise


def x0_from_v(xt: Tensor, v: Tensor, abar: Abar) -> Tensor:
    """Clean data, given the velocity (v, appendix D)."""
    signal, noise = _weights(abar, xt)
    return signal * xt - noise * v


def eps_from_v(xt: Tensor, v: Tensor, abar: Abar) -> Tensor:
    """The noise, given the velocity (v, appendix D)."""
    signal, noise = _weights(abar, xt)
    return noise * xt + signal * v


def posterior_mean(x0: Tensor, xt: Tensor, abar_s: Abar, abar_t: Abar) -> Tensor:
    """Mean of q(x_s | x_t, x_0) for any s < t (DDPM eq. 7 with alpha_t read as abar_t / abar_s).

    At s = 0 it is x_0 itself.
    """
    x0_weight = _root(abar_s) * (1 - abar_t / abar_s) / (1 - abar_t)
    xt_weight = _root(abar_t / abar_s) * (1 - abar_s) / (1 - abar_t)
    return _spread(x0_weight, xt) * x0 + _spread(xt_weight, xt) * xt


def small_variance(abar_s: AbarT, abar_t: AbarT) -> AbarT:
    """Variance of q(x_s | x_t, x_0): right if the data were one point (DDPM eq. 7); 0 at s = 0."""
    return (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)


def large_variance(abar_s: AbarT, abar_t: AbarT) -> AbarT:
    """Variance of the noising step from s to t: right if the data were N(0, 1) (DDPM section 3.2)."""
    return 1 - abar_t / abar_s


def learned_range_variance(v: Tensor, small: Abar, large: Abar) -> Tensor:
    """Variance interpolated in the log domain by the network's second output (iDDPM eq. 15).

    Args:
        v: (B, ...), -1 for ``small``, +1 for ``large``.
        small: ``small_variance``, positive. Where it is 0 (the step to level 0), published losses take
            its value one step earlier instead; a sampler adds no noise there.
        large: ``large_variance``.
    """
    fraction = (v + 1) / 2
    log_small, log_large = _spread(_log(small), v), _spread(_log(large), v)
    return torch.exp(fraction * log_large + (1 - fraction) * log_small)


def _weights(abar: Abar, x: Tensor) -> tuple[Abar, Abar]:
    return _spread(_root(abar), x), _spread(_root(1 - abar), x)


def _root(value: Abar) -> Abar:
    return value**0.5


def _log(value: Abar) -> Abar:
    return torch.as_tensor(value, dtype=torch.float64).log()


def _spread(coefficient: Abar, x: Tensor) -> Abar:
    # One level for the whole batch becomes a Python number, which no device has to wait for. One level an
    # item becomes (B, 1, ..., 1): computed in float64 until here, then in the precision of the state.
    if not isinstance(coefficient, Tensor) or coefficient.dim() == 0:
        return float(coefficient)
    precision = torch.promote_types(x.dtype, torch.float32)
    return coefficient.to(x.device, precision).reshape(-1, *[1] * (x.dim() - 1))
