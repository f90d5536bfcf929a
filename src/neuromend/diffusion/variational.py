"""The variational bound, which trains a predicted variance beside the mean square of the noise.

iDDPM = Nichol and Dhariwal 2021; DDPM = Ho et al. 2020. Levels are ours: 0 is clean, the published index is
level - 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuromend.diffusion.process import (
    large_variance,
    learned_range_variance,
    posterior_mean,
    small_variance,
    x0_from_eps,
)
from neuromend.diffusion.schedule import Schedule

HALF_BIN = 1 / 255
"""Half the width of a grey level in images of 256 levels scaled to [-1, 1] (DDPM section 3.3)."""


def variational_bound(output: Tensor, x0: Tensor, xt: Tensor, levels: Tensor, schedule: Schedule) -> Tensor:
    """One term of the variational bound, L_(t-1) or L_0 (DDPM eq. 5), as a loss for the predicted variance.

    Args:
        output: (N, 2, ...): the predicted noise, and v of the variance (iDDPM eq. 15).
        x0, xt: (N, 1, ...) clean data, and the state from which ``output`` was predicted.
        levels: (N,) on the CPU, from 1.

    Returns:
        (N,) in bits a pixel. It trains v alone: no gradient goes to the mean (iDDPM section 3.1).
    """
    predicted, v = output.to(xt.dtype).chunk(2, dim=1)
    abar_s, abar_t = schedule.abar[levels - 1], schedule.abar[levels]
    # The variance of the last step is that of the step before, which is not 0 (iDDPM section 3.1).
    earlier = levels.clamp(min=2)
    small = small_variance(schedule.abar[earlier - 1], schedule.abar[earlier])
    log_variance = learned_range_variance(v, small, large_variance(abar_s, abar_t)).log()

    guess = posterior_mean(x0_from_eps(xt, predicted.detach(), abar_t), xt, abar_s, abar_t)
    true = posterior_mean(x0, xt, abar_s, abar_t)
    log_small = small.log().to(xt).reshape(-1, *[1] * (xt.dim() - 1))
    gap = normal_divergence(true, log_small, guess, log_variance)
    first = (levels == 1).to(x0.device).reshape(log_small.shape)
    nats = torch.where(first, -log_likelihood(x0, guess, log_variance), gap)
    return nats.flatten(1).mean(1) / math.log(2)


def normal_divergence(
    mean_a: Tensor, log_variance_a: Tensor, mean_b: Tensor, log_variance_b: Tensor
) -> Tensor:
    """Kullback-Leibler divergence KL(a || b) of two normal distributions, in nats, element by element."""
    ratio = log_variance_a - log_variance_b
    return 0.5 * (ratio.exp() - 1 - ratio + (mean_a - mean_b).square() * torch.exp(-log_variance_b))


def log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of the grey level of x under a normal distribution, in nats (DDPM eq. 13).

    The normal distribution function is taken by its approximation
    (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2 (Page 1977), as in published code, because the values of the
    bound depend on it. The outermost grey levels reach to infinity.
    """
    precision = torch.exp(-0.5 * log_variance)
    above = _normal_cdf(precision * (x - mean + HALF_BIN))
    below = _normal_cdf(precision * (x - mean - HALF_BIN))
    inside = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return inside.clamp(min=1e-12).log()


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z.pow(3))))
