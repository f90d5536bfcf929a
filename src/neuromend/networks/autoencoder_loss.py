"""What the VQ-GAN and its two discriminators minimise while the autoencoder of ``latent3d`` is trained.

Autoencoder: 4 |reconstruction - volume| + commitment, and from step 30,000 on, when the reconstruction is good
enough for adversaries to judge details: 1 image GAN + 1 volume GAN + 4 feature matching. The published training
adds 4 LPIPS on one random slice; its weights (a VGG classifier's) have terms of their own and cannot be fetched
in every hospital, so it is left out: reconstructions are then somewhat smoother until the adversaries start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.networks.autoencoder import Reconstruction
from neuromend.networks.patchgan import PatchGAN, feature_matching, hinge_loss

L1_WEIGHT, FEATURE_WEIGHT = 4.0, 4.0
"""Weights of the reconstruction error and of feature matching, published; those of both GANs are 1."""

ADVERSARIES_FROM_STEP = 30_000
"""The discriminators start to learn, and to be heard, at this step; published."""


class Discriminators(nn.Module):
    """The judge of slices and the judge of volumes, under their published names.

    Args:
        width: channels after the first convolution of each (64 published).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.image_discriminator = PatchGAN(2, width)
        self.video_discriminator = PatchGAN(3, width)


@dataclass(frozen=True, eq=False, slots=True)
class AutoencoderLoss:
    """The parts of the loss, weighted; ``total`` is their sum. Scalars."""

    l1: Tensor
    commitment: Tensor
    gan: Tensor
    features: Tensor

    @property
    def total(self) -> Tensor:
        """What the autoencoder minimises."""
        return self.l1 + self.commitment + self.gan + self.features


def autoencoder_loss(
    made: Reconstruction, volume: Tensor, judges: Discriminators, *, step: int, generator: torch.Generator
) -> AutoencoderLoss:
    """The loss of the autoencoder.

    Args:
        made: what ``VQGAN.forward`` gave for ``volume``.
        volume: (B, 1, X, Y, Z) in [-1, 1].
        judges: the discriminators; gradients reach them too and are to be dropped.
        step: of training, from 0.
        generator: draws the slice that the judge of slices sees.
    """
    l1 = L1_WEIGHT * F.l1_loss(made.image, volume)
    gan = features = volume.new_zeros(())
    if step >= ADVERSARIES_FROM_STEP:
        index = _random_slices(volume, generator)
        for judge, real, fake in (
            (judges.image_discriminator, _slices(volume, index), _slices(made.image, index)),
            (judges.video_discriminator, volume, made.image),
        ):
            logits, seen = judge(fake)
            with torch.no_grad():
                _, wanted = judge(real)
            gan = gan - logits.mean()
            features = features + FEATURE_WEIGHT * feature_matching(wanted, seen)
    return AutoencoderLoss(l1, made.commitment, gan, features)


def discriminator_loss(
    made: Reconstruction, volume: Tensor, judges: Discriminators, *, step: int, generator: torch.Generator
) -> Tensor:
    """The hinge loss of both discriminators, one scalar; 0 before they start. Arguments as above."""
    if step < ADVERSARIES_FROM_STEP:
        return volume.new_zeros(())
    index, fake = _random_slices(volume, generator), made.image.detach()
    total = volume.new_zeros(())
    for judge, a, b in (
        (judges.image_discriminator, _slices(volume, index), _slices(fake, index)),
        (judges.video_discriminator, volume, fake),
    ):
        total = total + hinge_loss(judge(a)[0], judge(b)[0])
    return total


def _random_slices(volume: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) one index along the first spatial axis for each volume."""
    return torch.randint(volume.shape[2], (len(volume),), generator=generator, device=generator.device)


def _slices(volume: Tensor, index: Tensor) -> Tensor:
    """(B, 1, X, Y, Z) and (B,) -> (B, 1, Y, Z)."""
    return volume[torch.arange(len(volume), device=volume.device), :, index.to(volume.device)]
