"""Group normalisation (Wu and He 2018, arXiv 1803.08494) that is exact in float32 and fast in bfloat16 on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` for channels-last memory, where torch 2.13 has two weak places on CPUs.

    It sums float32 volumes in one long chain: at 64^3 voxels the result is off by 4e-5 of its norm, against 6e-8 in
    the other layout, so float32 goes through a copy. Half precision needs none, but the derivative takes thirty
    times as long as the normalisation itself; it is computed here from that of batch normalisation.

    With one group a channel this is instance normalisation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        if x.dtype == torch.float32:
            return super().forward(x.contiguous())
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        out: Tensor = _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-untyped-call]
        return out


class _GroupNorm(torch.autograd.Function):
    """Group normalisation whose derivative passes over the volume three times, in any memory layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels = x.shape[:2]
        out, mean, rate = torch.native_group_norm(
            x, weight, bias, batch, channels, x[0, 0].numel(), groups, eps
        )
        ctx.save_for_backward(x, weight, mean, rate)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, rate = ctx.saved_tensors
        repeat = weight.numel() // mean.shape[1]  # channels of a group
        voxels = x[0].numel() // mean.shape[1]  # values of a group
        gain = weight.float()
        found, by_weight, by_bias = torch.empty_like(x), torch.zeros_like(gain), torch.zeros_like(gain)
        for item, (m, r) in enumerate(zip(mean.float(), rate.float(), strict=True)):
            given, went = x[item : item + 1], gradient[item : item + 1]
            wide_m, wide_r = m.repeat_interleave(repeat), r.repeat_interleave(repeat)
            # With the statistics of the groups, batch normalisation gives the sums over voxels, a channel each.
            _, scaled, shifted = torch.ops.aten.native_batch_norm_backward(
                went, given, gain, None, None, wide_m, wide_r, True, 0.0, [False, True, True]
            )
            by_weight += scaled
            by_bias += shifted
            # The sums of a group, over its values; the derivative is linear in the volume and in the gradient.
            scaled, shifted = ((gain * s).view(-1, repeat).sum(1) / voxels for s in (scaled, shifted))
            slope = -scaled * r.square()
            offset = -shifted * r - slope * m
            slope, offset, rise = (
                v.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))
                for v in (slope.repeat_interleave(repeat), offset.repeat_interleave(repeat), wide_r * gain)
            )
            torch.addcmul(torch.addcmul(offset, given, slope), went, rise, out=found[item : item + 1])
        return found, by_weight, by_bias, None, None
