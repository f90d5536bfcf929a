"""The latent method's denoiser: a U-Net that treats the first axis of the volume as the frames of a video.

Convolutions work within a frame (kernels 1 x k x k) and down-sampling halves the two axes of the frame only.
Frames exchange information through attention over the first axis alone, with rotary embedding (Su et al.
2021) and a relative position bias (Raffel et al. 2020); within a frame there is linear attention (Shen et al.
2021), and full attention at the lowest resolution (video diffusion, Ho et al. 2022). Attribute names are those
of the published weights.

Memory. With ``low_memory`` the activations inside residual blocks and attentions are computed again in the
backward pass, and attention takes a bounded number of sequences at a time; the result is the same.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.networks.normalisation import GroupNorm
from neuromend.networks.recomputing import recomputed
from neuromend.networks.video_attention import (
    AlongFrames,
    Attention,
    LinearAttention,
    PreNorm,
    RelativePositionBias,
    Residual,
    WithinFrames,
)

GROUPS = 8
"""Groups of every group normalisation, published."""


def sinusoidal_embedding(t: Tensor, width: int) -> Tensor:
    """[sin | cos] of t at geometric frequencies from 1 to 1/10000, both included; (B,) -> (B, width)."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - 1)))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class SinusoidalEmbedding(nn.Module):
    """``sinusoidal_embedding`` as the first layer of the time network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        """(B,) published time index -> (B, width)."""
        return sinusoidal_embedding(t, self.width)


class ConvBlock(nn.Module):
    """In-plane 3x3 convolution, group normalisation, scale and shift, SiLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1))
        self.norm = GroupNorm(GROUPS, out_channels)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, in, F, H, W) -> (B, out, F, H, W)."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return F.silu(x)


class ResidualBlock(nn.Module):
    """Two ConvBlocks; the time embedding scales and shifts the first. ``time_width`` 0 takes no time."""

    def __init__(self, in_channels: int, out_channels: int, time_width: int, *, low_memory: bool) -> None:
        super().__init__()
        self.low_memory = low_memory
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * out_channels)) if time_width else None
        self.block1 = ConvBlock(in_channels, out_channels)
        self.block2 = ConvBlock(out_channels, out_channels)
        same = in_channels == out_channels
        self.res_conv = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """(B, in, F, H, W) and (B, time_width) -> (B, out, F, H, W)."""
        return recomputed(self._run, x, time, enabled=self.low_memory)

    def _run(self, x: Tensor, time: Tensor | None) -> Tensor:
        scale_shift = None
        if self.mlp is not None:
            scale, shift = self.mlp(time)[:, :, None, None, None].chunk(2, dim=1)
            scale_shift = scale, shift
        out: Tensor = self.block2(self.block1(x, scale_shift)) + self.res_conv(x)
        return out


class VideoUNet(nn.Module):
    """The denoiser of the latent method.

    Args:
        in_channels: 24 published: 8 of the voided image, 8 of the mask, 8 noisy ones.
        out_channels: 8 published.
        dim: channels at the finest level (a multiple of 8).
        dim_mults: channels at each level as a multiple of ``dim``.
        low_memory: recompute activations and chunk attention.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dim: int, dim_mults: tuple[int, ...], *, low_memory: bool
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(dim_mults) - 1)
        time_width = 4 * dim
        widths = [dim, *(dim * m for m in dim_mults)]
        pairs = list(pairwise(widths))

        def block(a: int, b: int, time: int = time_width) -> ResidualBlock:
            return ResidualBlock(a, b, time, low_memory=low_memory)

        def temporal(c: int) -> Residual:
            return Residual(PreNorm(c, AlongFrames(Attention(c, rotary=True, low_memory=low_memory))))

        def level(a: int, b: int, resample: nn.Module) -> nn.ModuleList:
            spatial = Residual(PreNorm(b, LinearAttention(b, low_memory=low_memory)))
            return nn.ModuleList([block(a, b), block(b, b), spatial, temporal(b), resample])

        def down(c: int, last: bool) -> nn.Module:
            return nn.Identity() if last else nn.Conv3d(c, c, (1, 4, 4), (1, 2, 2), (0, 1, 1))

        def up(c: int, last: bool) -> nn.Module:
            return nn.Identity() if last else nn.ConvTranspose3d(c, c, (1, 4, 4), (1, 2, 2), (0, 1, 1))

        end, bottom = len(pairs) - 1, widths[-1]
        self.time_rel_pos_bias = RelativePositionBias()
        self.init_conv = nn.Conv3d(in_channels, dim, (1, 7, 7), padding=(0, 3, 3))
        self.init_temporal_attn = temporal(dim)
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(dim), nn.Linear(dim, time_width), nn.GELU(), nn.Linear(time_width, time_width)
        )
        self.downs = nn.ModuleList(level(a, b, down(b, i == end)) for i, (a, b) in enumerate(pairs))
        self.mid_block1 = block(bottom, bottom)
        self.mid_spatial_attn = Residual(
            PreNorm(bottom, WithinFrames(Attention(bottom, rotary=False, low_memory=low_memory)))
        )
        self.mid_temporal_attn = temporal(bottom)
        self.mid_block2 = block(bottom, bottom)
        self.ups = nn.ModuleList(level(2 * b, a, up(a, i == end)) for i, (a, b) in enumerate(reversed(pairs)))
        self.final_conv = nn.Sequential(block(2 * dim, dim, 0), nn.Conv3d(dim, out_channels, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict.

        Args:
            x: (B, in_channels, F, H, W), H and W divisible by ``multiple``.
            t: (B,) published time index, from 0.

        Returns:
            (B, out_channels, F, H, W).
        """
        bias, time = self.time_rel_pos_bias(x.shape[2]), self.time_mlp(t)
        # In half precision channels-last memory gains speed; float32 keeps the order of the published sums.
        if torch.is_autocast_enabled(x.device.type):
            x = x.contiguous(memory_format=torch.channels_last_3d)
        x = stem = self.init_conv(x)
        x = self.init_temporal_attn(x, bias)
        skips: list[Tensor] = []
        for block1, block2, spatial, temporal, down in cast("list[Any]", self.downs):
            x = temporal(spatial(block2(block1(x, time), time)), bias)
            skips.append(x)
            x = down(x)
        x = self.mid_temporal_attn(self.mid_spatial_attn(self.mid_block1(x, time)), bias)
        x = self.mid_block2(x, time)
        for block1, block2, spatial, temporal, up in cast("list[Any]", self.ups):
            x = block1(torch.cat([x, skips.pop()], dim=1), time)
            x = up(temporal(spatial(block2(x, time)), bias))
        out: Tensor = self.final_conv(torch.cat([x, stem], dim=1))
        return out
