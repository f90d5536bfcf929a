"""The two-dimensional U-Net of the slice-wise methods, with optional convolutions along the slice axis.

Architecture of Dhariwal and Nichol 2021 (ADM, arXiv 2105.05233): residual blocks with group normalisation and
SiLU, the noise level added between the two convolutions, self-attention on coarse grids, concatenated
skips. ``pseudo_3d`` puts a one-dimensional convolution of width 3 along the slices behind both convolutions
of every residual block; it starts as the identity, so that training starts from the two-dimensional network.

Module names are those of the published checkpoints (``input_blocks``, ``middle_block``, ``output_blocks``,
``in_layers_tem`` ...), so that these load strictly and without renaming. In reduced precision (autocast) the
layout is channels_last: convolutions run faster, and the one along the slices is a view of the same memory, so
no axis is ever moved. In plain float32 it is contiguous, which is nearer to the published numbers
(1.4e-6 instead of 9.5e-6 of the norm on the worst case at hand: a different order of summation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromend.networks.normalisation import GroupNorm
from neuromend.networks.recomputing import recomputed

Layer = TypeVar("Layer", bound=nn.Module)

GROUPS = 32
"""Groups of every GroupNorm (ADM; group size 4 at the published width 128)."""

STACK = 16
"""Slices of one stack: the depth over which the published pseudo-3-D network was trained."""

LARGE = 1 << 26
"""A residual block that gives more numbers than this (256 MB in float32) is computed again in the backward pass: at
the published width and 16 slices of 224 x 224 those at full resolution, which hold most of the memory."""


class UNet2D(nn.Module):
    """Predict from noisy slices, their condition and their noise level.

    Args:
        in_channels: condition channels and the noisy slice.
        out_channels: what is predicted.
        model_channels: channels at full resolution, a multiple of 32.
        channel_mult: width of each level relative to ``model_channels``; each level halves the sides.
        num_res_blocks: residual blocks a level (one more on the way up).
        attention_resolutions: factors of down-sampling at which blocks attend over the slice.
        pseudo_3d: convolve along the slices too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        *,
        pseudo_3d: bool = False,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        width = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, width), nn.SiLU(), nn.Linear(width, width))

        def block(channels_in: int, channels_out: int, factor: int) -> list[nn.Module]:
            residual = ResBlock(channels_in, channels_out, width, pseudo_3d=pseudo_3d)
            attends = factor in attention_resolutions
            return [residual, AttentionBlock(channels_out)] if attends else [residual]

        channels = channel_mult[0] * model_channels
        self.input_blocks = nn.ModuleList([Stage(_conv3(in_channels, channels))])
        skips = [channels]
        last = len(channel_mult) - 1
        for level, multiplier in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                self.input_blocks.append(Stage(*block(channels, multiplier * model_channels, 2**level)))
                channels = multiplier * model_channels
                skips.append(channels)
            if level < last:
                self.input_blocks.append(Stage(Downsample(channels)))
                skips.append(channels)

        self.middle_block = Stage(
            ResBlock(channels, channels, width, pseudo_3d=pseudo_3d),
            AttentionBlock(channels),
            ResBlock(channels, channels, width, pseudo_3d=pseudo_3d),
        )
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(channel_mult))):
            for number in range(num_res_blocks + 1):
                layers = block(channels + skips.pop(), multiplier * model_channels, 2**level)
                channels = multiplier * model_channels
                if level > 0 and number == num_res_blocks:
                    layers.append(Upsample(channels))
                self.output_blocks.append(Stage(*layers))
        self.out = nn.Sequential(
            GroupNorm(GROUPS, channels), nn.SiLU(), _zero(_conv3(channels, out_channels))
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, *, positions: Tensor | None = None, depth: int | None = None
    ) -> Tensor:
        """One prediction a slice.

        Args:
            x: (N, in_channels, H, W), sides divisible by 2 ** (levels - 1). With ``pseudo_3d`` the slices of
                a stack are neighbours along N.
            timesteps: (N,) published indices of the noise level, 0 to 999.
            positions: (N,) slice numbers; they go through the same embedding as the noise level.
            depth: slices a stack, a divisor of N; by default all N, up to 16.

        Returns:
            (N, out_channels, H, W).

        Raises:
            ValueError: N is not a multiple of the depth.
        """
        depth = depth or min(len(x), STACK)
        if len(x) % depth:
            raise ValueError(f"{len(x)} slices cannot be cut into stacks of {depth}")
        embedding = self.time_embed(sinusoid(timesteps, self.model_channels))
        if positions is not None:
            embedding = embedding + self.time_embed(sinusoid(positions, self.model_channels))
        fast = torch.is_autocast_enabled(x.device.type)
        h = x.contiguous(memory_format=torch.channels_last if fast else torch.contiguous_format)
        skips = []
        for stage in self.input_blocks:
            h = stage(h, embedding, depth)
            skips.append(h)
        h = self.middle_block(h, embedding, depth)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding, depth)
        result: Tensor = self.out(h)
        return result


class Stage(nn.Sequential):
    """Layers one after the other; residual blocks are told the noise level and the depth of a stack too."""

    def forward(self, x: Tensor, embedding: Tensor, depth: int) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) and (N, E) -> (N, C', H', W')."""
        for layer in self:
            x = layer(x, embedding, depth) if isinstance(layer, ResBlock) else layer(x)
        return x


class ResBlock(nn.Module):
    """Normalise, activate, convolve, twice; the embedding is added in between and the input at the end."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, *, pseudo_3d: bool) -> None:
        super().__init__()
        self.channels_out = channels_out
        self.in_layers = nn.Sequential(
            GroupNorm(GROUPS, channels_in), nn.SiLU(), _conv3(channels_in, channels_out)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, channels_out))
        # The identity stands where published blocks have dropout (of probability 0), so that names agree.
        self.out_layers = nn.Sequential(
            GroupNorm(GROUPS, channels_out),
            nn.SiLU(),
            nn.Identity(),
            _zero(_conv3(channels_out, channels_out)),
        )
        self.in_layers_tem = SliceConv(channels_out) if pseudo_3d else None
        self.out_layers_tem = SliceConv(channels_out) if pseudo_3d else None
        same = channels_in == channels_out
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor, depth: int) -> Tensor:
        """(N, C, H, W) and (N, E) -> (N, C', H, W)."""
        large = x[:, 0].numel() * self.channels_out > LARGE
        return recomputed(self._run, x, embedding, depth, enabled=large)

    def _run(self, x: Tensor, embedding: Tensor, depth: int) -> Tensor:
        h = self.in_layers(x)
        if self.in_layers_tem is not None:
            h = self.in_layers_tem(h, depth)
        h = self.out_layers(h + self.emb_layers(embedding)[:, :, None, None])
        if self.out_layers_tem is not None:
            h = self.out_layers_tem(h, depth)
        result: Tensor = self.skip_connection(x) + h
        return result


class SliceConv(nn.Module):
    """Convolution of width 3 along the slices of a stack, with zeros beyond its ends; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal_conv = nn.Conv1d(channels, channels, 3, padding=1)
        nn.init.dirac_(self.temporal_conv.weight)
        nn.init.zeros_(self.temporal_conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, depth: int) -> Tensor:
        """(N, C, H, W) -> the same shape; every ``depth`` slices are a stack of their own."""
        n, channels, height, width = x.shape
        # In channels_last memory a stack is an image of depth by H*W pixels: no voxel moves.
        image = x.permute(0, 2, 3, 1).reshape(n // depth, depth, height * width, channels)
        weight = self.temporal_conv.weight.unsqueeze(-1).contiguous(memory_format=torch.channels_last)
        h = functional.conv2d(image.permute(0, 3, 1, 2), weight, self.temporal_conv.bias, padding=(1, 0))
        return h.permute(0, 2, 3, 1).reshape(n, height, width, channels).permute(0, 3, 1, 2)


class AttentionBlock(nn.Module):
    """Self-attention of one head over the pixels of a slice, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        n, channels, height, width = x.shape
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        # Convolutions of width 1 are linear maps, which need no other order of the axes.
        q, k, v = functional.linear(pixels, self.qkv.weight[..., 0], self.qkv.bias).chunk(3, dim=-1)
        seen = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        change = functional.linear(seen, self.proj_out.weight[..., 0], self.proj_out.bias)
        return x + change.transpose(1, 2).reshape(n, channels, height, width)


class Downsample(nn.Module):
    """Half the sides by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H/2, W/2)."""
        result: Tensor = self.op(x)
        return result


class Upsample(nn.Module):
    """Double the sides: repeat each pixel, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W)."""
        result: Tensor = self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))
        return result


def sinusoid(numbers: Tensor, width: int) -> Tensor:
    """Embed numbers by cosines, then sines, of geometrically spaced frequencies (ADM; Vaswani et al. 2017).

    Args:
        numbers: (N,) noise levels or slice numbers.
        width: even.

    Returns:
        (N, width) float32.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=numbers.device) / half
    angles = numbers.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def _zero(layer: Layer) -> Layer:
    """Start a layer at zero, so that its residual block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
