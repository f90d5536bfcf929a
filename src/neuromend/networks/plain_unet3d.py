"""A plain 3-D U-Net in the manner of nnU-Net (Isensee et al. 2021, Nature Methods 18:203), without a time.

Each level holds two rows of 3x3x3 convolution, instance normalisation and leaky ReLU; strided convolutions go
down, transposed ones go up, and skips are concatenated.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from neuromend.networks.normalisation import GroupNorm
from neuromend.networks.unet3d import to_channels_last


def rows(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """Two rows; the first changes channels and, with a stride, the grid."""
    layers: list[nn.Module] = []
    for before, step in ((channels, stride), (out, 1)):
        # The normalisation removes any constant, so these convolutions have none.
        layers += [
            nn.Conv3d(before, out, 3, stride=step, padding=1, bias=False),
            GroupNorm(out, out),
            nn.LeakyReLU(0.01),
        ]
    return nn.Sequential(*layers)


class PlainUNet3D(nn.Module):
    """The network.

    Args:
        in_channels, out_channels: channels of the input and of the output.
        widths: channels at each level, finest first.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.stem = rows(in_channels, widths[0])
        self.down = nn.ModuleList(rows(fine, coarse, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.join = nn.ModuleList(rows(2 * fine, fine) for fine, _ in steps)
        self.head = nn.Conv3d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, X, Y, Z), sides divisible by 2**(levels-1), -> (B, out, X, Y, Z)."""
        h = self.stem(to_channels_last(x))
        skips: list[Tensor] = []
        for down in self.down:
            skips.append(h)
            h = down(h)
        for level in reversed(range(len(skips))):
            h = self.join[level](torch.cat((self.up[level](h), skips[level]), dim=1))
        out: Tensor = self.head(h)
        return out
