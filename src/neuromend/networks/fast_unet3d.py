"""A 3-D residual U-Net that is fast on CPUs: dense bf16 convolutions, no spatial statistics.

Each block is x + conv(SiLU(FiLM(conv(norm(x))))). The normalisation runs over the channels of one
voxel, so the output at a voxel does not depend on how much of the volume is shown (a crop in
training, the whole brain when filling), and in channels-last memory it is one fused kernel.
Levels change by average pooling and nearest-neighbour repetition: both are exact adjoints of each
other and cheap forward and backward, unlike strided and transposed convolutions on CPUs.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def noise_embedding(log_snr: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of the log signal-to-noise ratio, (batch,) -> (batch, width).

    Frequencies are geometric between 1/4 and 8 cycles over the range -10..10 (Vaswani 2017, eq. in 3.5,
    with our range).
    """
    half = width // 2
    frequency = torch.exp(torch.linspace(math.log(0.25), math.log(8.0), half, device=log_snr.device))
    angle = log_snr.float()[:, None] * frequency * (2 * math.pi / 20)
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each voxel, (B, C, X, Y, Z) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; a channels-last input is not copied."""
        last = x.permute(0, 2, 3, 4, 1)
        out = F.layer_norm(last, (x.shape[1],), self.weight.to(x.dtype), self.bias.to(x.dtype), 1e-5)
        return out.permute(0, 4, 1, 2, 3)


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions around a FiLM of the noise level; starts near the identity."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv_in = nn.Conv3d(channels, channels, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * channels)
        self.conv_out = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.conv_out.weight.data.mul_(0.5)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, X, Y, Z) and (B, E) -> (B, C, X, Y, Z)."""
        scale, shift = self.modulate(embedding)[:, :, None, None, None].to(x.dtype).chunk(2, dim=1)
        h = torch.addcmul(shift, self.conv_in(self.norm(x)), 1 + scale)
        out: Tensor = x + self.conv_out(F.silu(h))
        return out


def repeat_twice(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling of the three spatial axes, channels-last kept."""
    b, c, i, j, k = x.shape
    last = x.permute(0, 2, 3, 4, 1)[:, :, None, :, None, :, None]
    last = last.expand(b, i, 2, j, 2, k, 2, c).reshape(b, 2 * i, 2 * j, 2 * k, c)
    return last.permute(0, 4, 1, 2, 3)


class FastUNet3D(nn.Module):
    """Residual U-Net with additive skips.

    Args:
        in_channels, out_channels: channels of the input and the output.
        widths: channels at each level, finest first.
        blocks: residual blocks on the way down at each level; the way up has as many, less the bottom.
        embedding: width of the noise embedding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        embedding: int,
    ) -> None:
        super().__init__()
        self.embedding_width = embedding
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.stem = nn.Conv3d(in_channels, widths[0], 3, padding=1)
        steps = list(pairwise(widths))

        def stage(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(width, embedding) for _ in range(count))

        self.down = nn.ModuleList(stage(w, n) for w, n in zip(widths, blocks, strict=True))
        self.widen = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in steps)
        self.narrow = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in steps)
        self.up = nn.ModuleList(stage(w, n) for w, n in zip(widths[:-1], blocks[:-1], strict=True))
        self.norm_out = ChannelNorm(widths[0])
        self.head = nn.Conv3d(widths[0], out_channels, 3, padding=1)
        self.head.weight.data.mul_(0.3)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """(B, in, X, Y, Z) with sides divisible by 2**(levels-1), and (B,) -> (B, out, X, Y, Z)."""
        embedding = self.embed(noise_embedding(log_snr, self.embedding_width))
        x = self.stem(x.contiguous(memory_format=torch.channels_last_3d))
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            if level:
                skips.append(x)
                x = self.widen[level - 1](F.avg_pool3d(x, 2))
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, embedding)
        for level in reversed(range(len(self.up))):
            x = skips[level] + repeat_twice(self.narrow[level](x))
            for block in self.up[level]:  # type: ignore[attr-defined]
                x = block(x, embedding)
        out: Tensor = self.head(F.silu(self.norm_out(x)))
        return out
