"""The 3-D U-Net of the published volume methods: no attention, skips averaged instead of concatenated.

It is the residual U-Net of Dhariwal and Nichol (2021, arXiv 2105.05233) in three dimensions, made smaller by
additive skips, (h + skip)/2 (Bieder et al. 2023, arXiv 2303.15288): the way up then needs no wider
convolutions. Module names are the published ones, so that published weights load as they are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.networks.fast_unet3d import repeat_twice
from neuromend.networks.normalisation import GroupNorm

Resampling = Literal["conv", "residual"]
"""How levels change: strided convolution down and nearest + convolution up, or residual blocks that average
and repeat."""


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of t times width//2 geometric frequencies from 1 to 1/10000 (exclusive).

    Args:
        t: (B,) published time index, 0 to 999.
        width: of the result; an odd one ends with a zero.

    Returns:
        (B, width), float32.
    """
    half = width // 2
    rate = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = t.float()[:, None] * rate
    return F.pad(torch.cat((angle.cos(), angle.sin()), dim=1), (0, width % 2))


def to_channels_last(x: Tensor) -> Tensor:
    """The same values with the channels of one voxel side by side, where convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last_3d)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x))) + embedding))), (B, C, X, Y, Z) -> (B, out, X', Y', Z').

    With ``change`` 2 the sides double by repetition, with 0.5 they halve by averaging, on both ways and
    before the first convolution.
    """

    def __init__(self, channels: int, out: int, embedding: int, groups: int, change: float = 1.0) -> None:
        super().__init__()
        self.change = change
        self.in_layers = nn.Sequential(
            GroupNorm(groups, channels), nn.SiLU(), nn.Conv3d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        # The third layer is where the published block has its dropout, which all released configs set to 0.
        self.out_layers = nn.Sequential(
            GroupNorm(groups, out), nn.SiLU(), nn.Identity(), nn.Conv3d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv3d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The block at one noise level an item; ``embedding`` is (B, E)."""
        norm, activation, conv = self.in_layers
        h = convolved(conv, resized(activation(norm(x)), self.change), self.emb_layers(embedding))
        out: Tensor = self.skip_connection(resized(x, self.change)) + self.out_layers(h)
        return out


def convolved(conv: nn.Module, x: Tensor, offset: Tensor) -> Tensor:
    """``conv(x)`` plus ``offset`` (B, out) at every voxel; a single item takes it as the bias, without a pass."""
    if len(x) == 1 and isinstance(conv, nn.Conv3d) and conv.bias is not None:
        return F.conv3d(x, conv.weight, conv.bias + offset[0], padding=conv.padding)
    h: Tensor = conv(x)
    return h + offset.to(h.dtype)[:, :, None, None, None]


def resized(x: Tensor, change: float) -> Tensor:
    """Sides halved by averaging (0.5), doubled by repetition (2) or left alone (1); dtype and layout stay."""
    if change == 0.5:
        return F.avg_pool3d(x, 2) if x.dtype == torch.float32 else _halved(x)
    return repeat_twice(x) if change == 2 else x


def _halved(x: Tensor) -> Tensor:
    """``F.avg_pool3d(x, 2)`` in half precision, which torch 2.13 lacks on CPUs, in channels-last memory."""
    b, c, i, j, k = x.shape
    planes = x.permute(0, 2, 3, 4, 1).reshape(b * i, j, k, c).permute(0, 3, 1, 2)
    pairs = F.avg_pool2d(planes, 2).permute(0, 2, 3, 1).reshape(b, i // 2, 2, j // 2, k // 2, c)
    return torch.lerp(pairs[:, :, 0], pairs[:, :, 1], 0.5).permute(0, 4, 1, 2, 3)


class Downsample(nn.Module):
    """Strided 3x3x3 convolution that halves the sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv3d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, C, X/2, Y/2, Z/2)."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Repetition to twice the sides, then a 3x3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, C, 2X, 2Y, 2Z)."""
        out: Tensor = self.conv(resized(x, 2))
        return out


class Stage(nn.Sequential):
    """Layers in a row, of which the residual blocks are told the noise level."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, X, Y, Z) and (B, E) -> what the last layer returns."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class UNet3D(nn.Module):
    """Time-conditioned 3-D U-Net with averaged additive skips.

    Args:
        in_channels, out_channels: channels of the input and of the output.
        width: channels at the finest level; the time embedding is four times as wide.
        multipliers: channels of each level in units of ``width``, finest first.
        blocks: residual blocks on the way down at each level; one more on the way up.
        groups: of every group normalisation; must divide the channels of every level.
        resampling: see ``Resampling``.

    Raises:
        ValueError: if ``groups`` does not divide the channels of a level.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        multipliers: tuple[int, ...],
        blocks: int,
        groups: int,
        resampling: Resampling,
    ) -> None:
        super().__init__()
        widths = [width * m for m in multipliers]
        if any(w % groups for w in widths):
            raise ValueError(f"groups ({groups}) must divide the channels of every level; found {widths}")
        self.width = width
        embedding = 4 * width
        self.time_embed = nn.Sequential(
            nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        stages = [Stage(nn.Conv3d(in_channels, width, 3, padding=1))]
        skips, now = [width], width
        for level, wide in enumerate(widths):
            for _ in range(blocks):
                stages.append(Stage(ResidualBlock(now, wide, embedding, groups)))
                now = wide
                skips.append(now)
            if level < len(widths) - 1:
                down: nn.Module = Downsample(now)
                if resampling == "residual":
                    down = ResidualBlock(now, now, embedding, groups, 0.5)
                stages.append(Stage(down))
                skips.append(now)
        self.input_blocks = nn.ModuleList(stages)
        self.middle_block = Stage(*(ResidualBlock(now, now, embedding, groups) for _ in range(2)))

        # A block on the way up gives what the next skip has, because the two are averaged.
        ups, targets = [], [*skips[-2::-1], width]
        for i, target in enumerate(targets):
            layers: list[nn.Module] = [ResidualBlock(now, target, embedding, groups)]
            now = target
            if i % (blocks + 1) == blocks and i < len(targets) - 1:
                up: nn.Module = Upsample(now)
                if resampling == "residual":
                    up = ResidualBlock(now, now, embedding, groups, 2)
                layers.append(up)
            ups.append(Stage(*layers))
        self.output_blocks = nn.ModuleList(ups)
        self.out = nn.Sequential(
            GroupNorm(groups, now), nn.SiLU(), nn.Conv3d(now, out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, in, X, Y, Z), sides divisible by 2**(levels-1), and (B,) time index -> (B, out, X, Y, Z)."""
        embedding = self.time_embed(timestep_embedding(t, self.width))
        h = to_channels_last(x)
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(torch.lerp(h, skips.pop(), 0.5), embedding)
        out: Tensor = self.out(h)
        return out
