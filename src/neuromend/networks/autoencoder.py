"""A 3-D VQ-GAN: volumes to latents of a quarter of the side and back, through a codebook (Esser et al. 2021).

Every convolution pads by repeating the border. Attribute names are those of the published weights; the codebook
has one entry more, ``initialised``, so that training that goes on from a file does not start its codes anew.

Memory. With ``low_memory`` normalisation, activation and convolution run together over slabs of the first
axis and are computed again in the backward pass, so that only the input of each residual block is kept. The
result is the same: group statistics are taken over the whole volume first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.networks.codebook import Codebook
from neuromend.networks.recomputing import recomputed

SLAB = 16
"""Voxels of the first axis that one step of a low-memory convolution gives."""

GROUP_EPS = 1e-6
"""Added to the variance of each group, published."""

COMMITMENT = 0.25
"""Weight of the commitment loss, published (van den Oord et al. 2017, eq. 3)."""

Before = Callable[[Tensor], Tensor]


class Conv3d(nn.Module):
    """A convolution padded with the border so that stride 1 keeps the size and stride 2 halves it.

    Args:
        kernel, stride: 3 and 1, 4 and 2, or 1 and 1.
        low_memory: work in slabs.
    """

    def __init__(self, a: int, b: int, kernel: int, stride: int = 1, *, low_memory: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(a, b, kernel, stride)
        self.kernel, self.stride, self.low_memory = kernel, stride, low_memory

    def forward(self, x: Tensor, before: Before | None = None) -> Tensor:
        """(B, a, X, Y, Z) -> (B, b, X', Y', Z'), of ``before(x)`` if that is given (it acts voxel by voxel)."""
        pad = (self.kernel - self.stride) // 2
        if not self.low_memory:
            return self._run(x, before, (pad, pad), pad)
        out = []
        for start in range(0, x.shape[2] // self.stride, SLAB):
            stop = min(start + SLAB, x.shape[2] // self.stride)
            first, last = start * self.stride - pad, (stop - 1) * self.stride - pad + self.kernel
            ends = max(0, -first), max(0, last - x.shape[2])
            out.append(recomputed(self._run, x[:, :, max(0, first) : last], before, ends, pad))
        return torch.cat(out, dim=2)

    def _run(self, x: Tensor, before: Before | None, ends: tuple[int, int], pad: int) -> Tensor:
        x = before(x) if before is not None else x
        if pad:
            x = F.pad(x, (pad, pad, pad, pad, *ends), mode="replicate")
        out: Tensor = self.conv(x)
        return out


class Doubling(nn.Module):
    """A transposed convolution, kernel 4 and stride 2, that doubles the size; padded with the border."""

    def __init__(self, a: int, b: int, *, low_memory: bool) -> None:
        super().__init__()
        self.convt = nn.ConvTranspose3d(a, b, 4, 2, padding=3)
        self.low_memory = low_memory

    def forward(self, x: Tensor) -> Tensor:
        """(B, a, X, Y, Z) -> (B, b, 2X, 2Y, 2Z)."""
        if not self.low_memory:
            return self._run(x, (1, 1))
        out, n = [], x.shape[2]
        for start in range(0, n, SLAB // 2):
            stop = min(start + SLAB // 2, n)
            ends = int(start == 0), int(stop == n)
            out.append(recomputed(self._run, x[:, :, max(0, start - 1) : stop + 1], ends))
        return torch.cat(out, dim=2)

    def _run(self, x: Tensor, ends: tuple[int, int]) -> Tensor:
        out: Tensor = self.convt(F.pad(x, (1, 1, 1, 1, *ends), mode="replicate"))
        return out


class GroupNorm(nn.GroupNorm):
    """Group normalisation and SiLU, at once or as a function for slabs."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=GROUP_EPS)

    def activate(self, x: Tensor) -> Tensor:
        """SiLU of the normalised volume."""
        return F.silu(self(x))

    def activation(self, x: Tensor) -> Before:
        """What ``activate`` does to parts of ``x``, with the statistics of the whole."""
        scale, shift = recomputed(self._affine, x)
        return lambda part: F.silu(torch.addcmul(shift.to(part.dtype), part, scale.to(part.dtype)))

    def _affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Per batch item and channel, (B, C, 1, 1, 1); variances of slabs are combined as by Chan et al. 1979."""
        mean, square, sizes = [], [], []
        for slab in x.split(SLAB, dim=2):  # type: ignore[no-untyped-call]
            part = slab.float().unflatten(1, (self.num_groups, -1)).flatten(2)
            variance, average = torch.var_mean(part, dim=2, correction=0)
            mean.append(average)
            square.append(variance)
            sizes.append(part.shape[2])
        weight = torch.tensor(sizes, device=x.device, dtype=torch.float32) / sum(sizes)
        averages, variances = torch.stack(mean, dim=-1), torch.stack(square, dim=-1)
        centre = (averages * weight).sum(-1)
        spread = ((variances + (averages - centre[..., None]).square()) * weight).sum(-1)
        repeat = self.num_channels // self.num_groups
        factor = (spread + self.eps).rsqrt().repeat_interleave(repeat, dim=1) * self.weight
        offset = self.bias - centre.repeat_interleave(repeat, dim=1) * factor
        return factor[..., None, None, None], offset[..., None, None, None]


class ResBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x))))))."""

    def __init__(self, channels: int, groups: int, *, low_memory: bool) -> None:
        super().__init__()
        self.low_memory = low_memory
        self.norm1 = GroupNorm(groups, channels)
        self.conv1 = Conv3d(channels, channels, 3, low_memory=low_memory)
        self.norm2 = GroupNorm(groups, channels)
        self.conv2 = Conv3d(channels, channels, 3, low_memory=low_memory)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape."""
        return recomputed(self._in_slabs, x) if self.low_memory else self._at_once(x)

    def _at_once(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.norm2.activate(self.conv1(self.norm1.activate(x))))
        return out

    def _in_slabs(self, x: Tensor) -> Tensor:
        hidden = self.conv1(x, self.norm1.activation(x))
        out: Tensor = x + self.conv2(hidden, self.norm2.activation(hidden))
        return out


class Encoder(nn.Module):
    """Volume (B, 1, X, Y, Z) -> features (B, channels, X/2**levels, ...)."""

    def __init__(self, width: int, levels: int, groups: int, *, low_memory: bool) -> None:
        super().__init__()
        self.conv_first = Conv3d(1, width, 3, low_memory=low_memory)
        self.conv_blocks = nn.ModuleList()
        for level in range(levels):
            a, b = width * 2**level, width * 2 ** (level + 1)
            block = nn.Module()
            block.down = Conv3d(a, b, 4, 2, low_memory=low_memory)
            block.res = ResBlock(b, groups, low_memory=low_memory)
            self.conv_blocks.append(block)
        self.channels = width * 2**levels
        self.final_block = nn.Sequential(GroupNorm(groups, self.channels), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        x = self.conv_first(x)
        for block in self.conv_blocks:
            x = block.res(block.down(x))  # type: ignore[operator]
        out: Tensor = self.final_block(x)
        return out


class Decoder(nn.Module):
    """Features (B, channels, x, y, z) -> volume (B, 1, 2**levels x, ...)."""

    def __init__(self, width: int, levels: int, groups: int, *, low_memory: bool) -> None:
        super().__init__()
        channels = width * 2**levels
        self.final_block = nn.Sequential(GroupNorm(groups, channels), nn.SiLU())
        self.conv_blocks = nn.ModuleList()
        for level in range(levels):
            a = channels if level == 0 else width * 2 ** (levels - level + 1)
            b = width * 2 ** (levels - level)
            block = nn.Module()
            block.up = Doubling(a, b, low_memory=low_memory)
            block.res1 = ResBlock(b, groups, low_memory=low_memory)
            block.res2 = ResBlock(b, groups, low_memory=low_memory)
            self.conv_blocks.append(block)
        self.conv_last = Conv3d(2 * width, 1, 3, low_memory=low_memory)

    def forward(self, x: Tensor) -> Tensor:
        """Decode; the published order: normalisation and activation come first."""
        x = self.final_block(x)
        for block in self.conv_blocks:
            x = block.res2(block.res1(block.up(x)))  # type: ignore[operator]
        out: Tensor = self.conv_last(x)
        return out


@dataclass(frozen=True, eq=False, slots=True)
class Reconstruction:
    """What one pass through the autoencoder gives in training.

    Attributes:
        image: (B, 1, X, Y, Z).
        commitment: how far latents are from their codes, weighted; a scalar to minimise.
        codes_used: how many different codes were chosen.
    """

    image: Tensor
    commitment: Tensor
    codes_used: int


class VQGAN(nn.Module):
    """The autoencoder. Volumes are (B, 1, X, Y, Z), sides divisible by ``factor``, intensities in [-1, 1].

    Args:
        width: channels at full resolution (16 published).
        levels: how often the side is halved (2 published).
        groups: of every group normalisation (32 published).
        codes, code_width: size of the codebook (16384 codes of 8 channels published).
        low_memory: slabs and recomputation.
    """

    def __init__(
        self, width: int, levels: int, groups: int, codes: int, code_width: int, *, low_memory: bool
    ) -> None:
        super().__init__()
        self.factor = 2**levels
        self.encoder = Encoder(width, levels, groups, low_memory=low_memory)
        self.decoder = Decoder(width, levels, groups, low_memory=low_memory)
        self.pre_vq_conv = Conv3d(self.encoder.channels, code_width, 1)
        self.post_vq_conv = Conv3d(code_width, self.encoder.channels, 1)
        self.codebook = Codebook(codes, code_width)

    def encode(self, volume: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> latents (B, code_width, X/factor, ...), not quantised."""
        latents: Tensor = self.pre_vq_conv(self.encoder(volume))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> volume, through the nearest codes."""
        volume: Tensor = self.decoder(self.post_vq_conv(self.codebook.codes(self.codebook.nearest(latents))))
        return volume

    def forward(self, volume: Tensor, generator: torch.Generator) -> Reconstruction:
        """Encode, quantise with straight-through gradient, decode; in training mode the codebook learns."""
        latents = self.encode(volume)
        if self.training:
            self.codebook.initialise(latents, generator)
        index = self.codebook.nearest(latents)
        codes = self.codebook.codes(index).to(latents.dtype)
        if self.training:
            self.codebook.update(latents, index, generator)
        commitment = COMMITMENT * F.mse_loss(latents, codes)
        image = self.decoder(self.post_vq_conv(latents + (codes - latents).detach()))
        return Reconstruction(image, commitment, index.unique().numel())  # type: ignore[no-untyped-call]
