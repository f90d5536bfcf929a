"""The optional wavelet U-Net of WDM (Friedrich et al. 2024, arXiv 2402.19043): levels change by Haar.

On the way down the last block of a level splits its features into eight Haar bands: the lowest goes on,
divided by 3, and the seven others wait as the skip connection. On the way up they are joined again. Beside
it a pyramid of wavelet bands of the input is added at every level. Nothing else is skipped, so all detail
travels in the bands. On the way up the last residual block of a level runs twice: the published network
holds the same weights under two names there. The idea of the blocks is from Phung et al. 2023 (arXiv 2211.16152).

Module names and shapes are the published ones. Weights for this network were never published, and no
outputs are on record to compare with, so that equal names are all that is promised.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from neuromend.networks.normalisation import GroupNorm
from neuromend.networks.unet3d import convolved, timestep_embedding, to_channels_last
from neuromend.wavelets import haar, inverse_haar

LOWEST_SHRINK = 3.0
"""The lowest band is divided by this where features go down, and multiplied again where they come up."""

Direction = Literal["stay", "down", "up"]


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, X, Y, Z) -> the lowest Haar band over 3 (B, C, X/2, ...) and the seven others (B, 7*C, X/2, ...)."""
    bands, channels = haar(x), x.shape[1]
    return bands[:, :channels] / LOWEST_SHRINK, bands[:, channels:]


def join(low: Tensor, high: Tensor) -> Tensor:
    """The inverse of ``split``."""
    return inverse_haar(torch.cat((low * LOWEST_SHRINK, high.to(low.dtype)), dim=1))


class WaveletBlock(nn.Module):
    """A residual block that may split its features into Haar bands, or join them, before its first convolution.

    Both ways around the block change their level; the high bands kept, or joined, are those of the main way.
    """

    def __init__(
        self, channels: int, out: int, embedding: int, groups: int, direction: Direction = "stay"
    ) -> None:
        super().__init__()
        self.direction = direction
        self.in_layers = nn.Sequential(
            GroupNorm(groups, channels), nn.SiLU(), nn.Conv3d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        self.out_layers = nn.Sequential(
            GroupNorm(groups, out), nn.SiLU(), nn.Identity(), nn.Conv3d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv3d(channels, out, 1)

    def forward(
        self, x: Tensor, embedding: Tensor, high: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Features and high bands in, features and high bands out; a block that joins uses the bands up."""
        norm, activation, conv = self.in_layers
        h = activation(norm(x))
        if self.direction == "down":
            h, high = split(h)
            x, _ = split(x)
        elif self.direction == "up" and high is not None:
            h, x, high = join(h, high), join(x, high), None
        h = convolved(conv, to_channels_last(h), self.emb_layers(embedding))
        return self.skip_connection(x) + self.out_layers(h), high


class WaveletPyramid(nn.Module):
    """The next level of the input pyramid: (B, C, X, Y, Z) -> (B, out, X/2, Y/2, Z/2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(8 * channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the eight bands, the lowest over 3."""
        out: Tensor = self.conv(to_channels_last(torch.cat(split(x), dim=1)))
        return out


class WaveletUNet(nn.Module):
    """Time-conditioned 3-D U-Net whose levels change by Haar transforms.

    Args:
        in_channels, out_channels: channels of the input and of the output.
        width: channels at the finest level; the time embedding is four times as wide.
        multipliers: channels of each level in units of ``width``, finest first.
        blocks: residual blocks of each level on the way down, less the one that splits; at least 2.
        groups: of every group normalisation.

    Raises:
        ValueError: if ``blocks`` is below 2: the block that runs twice must keep its width.
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
    ) -> None:
        super().__init__()
        if blocks < 2:
            raise ValueError(f"the wavelet U-Net needs blocks of 2 or more; found {blocks}")
        self.width, self.blocks = width, blocks
        widths, embedding = [width * m for m in multipliers], 4 * width

        def block(channels: int, out: int, direction: Direction = "stay") -> WaveletBlock:
            return WaveletBlock(channels, out, embedding, groups, direction)

        def chain(first: int, wide: int, count: int) -> list[nn.Module]:
            return [block(first if k == 0 else wide, wide) for k in range(count)]

        self.time_embed = nn.Sequential(
            nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        down: list[nn.Module] = [nn.Conv3d(in_channels, width, 3, padding=1)]
        now, pyramid = width, in_channels
        for wide in widths:
            down += [*chain(now, wide, blocks), block(wide, wide, "down"), WaveletPyramid(pyramid, wide)]
            now = pyramid = wide
        self.input_blocks = nn.ModuleList(nn.Sequential(layer) for layer in down)
        self.middle_block = nn.Sequential(block(now, now), block(now, now))
        up: list[nn.Module] = []
        for wide in reversed(widths):
            rows = chain(now, wide, blocks)
            up += [nn.Sequential(layer) for layer in rows]
            up.append(nn.Sequential(rows[-1], block(wide, wide, "up")))
            now = wide
        self.output_blocks = nn.ModuleList(up)
        self.out_res = nn.ModuleList(nn.Sequential(block(now, now)) for _ in range(blocks))
        self.out = nn.Sequential(
            GroupNorm(groups, now), nn.SiLU(), nn.Conv3d(now, out_channels, 3, padding=1)
        )
        self.register_state_dict_post_hook(_copy_what_is_shared)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, in, X, Y, Z), sides divisible by 2**levels, and (B,) time index -> (B, out, X, Y, Z)."""
        embedding = self.time_embed(timestep_embedding(t, self.width))
        pyramid = to_channels_last(x)
        waiting: list[Tensor | None] = []
        h, high = pyramid, None
        for stage in self.input_blocks:
            layer = stage[0]  # type: ignore[index]
            if isinstance(layer, WaveletPyramid):
                h = pyramid = h + layer(pyramid)
                waiting.append(high)
            elif isinstance(layer, WaveletBlock):
                h, high = layer(h, embedding)
            else:
                h = layer(h)
        for layer in self.middle_block:
            h, _ = layer(h, embedding)
        for i, stage in enumerate(self.output_blocks):
            bands = waiting.pop() if i % (self.blocks + 1) == self.blocks else None
            for layer in stage:  # type: ignore[attr-defined]
                h, bands = layer(h, embedding, bands)
        for stage in self.out_res:
            h, _ = stage[0](h, embedding)  # type: ignore[index]
        out: Tensor = self.out(h)
        return out


def _copy_what_is_shared(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give the weights with two names two memories: safetensors refuses to store shared ones."""
    seen: set[int] = set()
    for key in [key for key in state if key.startswith(f"{prefix}output_blocks.")]:
        if state[key].data_ptr() in seen:
            state[key] = state[key].clone()
        seen.add(state[key].data_ptr())
