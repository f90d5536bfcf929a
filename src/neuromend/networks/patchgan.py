"""PatchGAN discriminators (Isola et al. 2017) of slices and of volumes, and their losses.

They judge overlapping patches, not the whole. Attribute names are those of the published weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = 3
"""Convolutions between the first and the last; published."""

MAX_WIDEN = 8
"""Channels double at each layer up to this multiple of the first width."""


class PatchGAN(nn.Module):
    """Convolutions with kernel 4: strides 2, 2, 2, 1, 1, batch normalisation in the three in the middle.

    Args:
        axes: 2 for slices, 3 for volumes.
        width: channels after the first convolution (64 published).
        in_channels: channels of what is judged.
    """

    def __init__(self, axes: int, width: int, in_channels: int = 1) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
        norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes]
        widths = [in_channels, *(width * min(2**n, MAX_WIDEN) for n in range(LAYERS + 1))]
        for n in range(LAYERS + 1):
            stride = 2 if n < LAYERS else 1
            layer: list[nn.Module] = [conv(widths[n], widths[n + 1], 4, stride, padding=2)]
            if n > 0:
                layer.append(norm(widths[n + 1]))
            self.add_module(f"model{n}", nn.Sequential(*layer, nn.LeakyReLU(0.2)))
        self.add_module(f"model{LAYERS + 1}", nn.Sequential(conv(widths[-1], 1, 4, 1, padding=2)))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, in_channels, ...) -> logits (B, 1, ...), positive for real, and the features of each layer."""
        features: list[Tensor] = []
        for layer in self.children():
            x = layer(x)
            features.append(x)
        return x, features[:-1]


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator minimises: real logits above 1, fake ones below -1 (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of the features, summed over the layers (Salimans et al. 2016)."""
    total = fake[0].new_zeros(())
    for a, b in zip(real, fake, strict=True):
        total = total + F.l1_loss(b, a.detach())
    return total
