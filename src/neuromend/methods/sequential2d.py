"""sequential2d: axial slices one after the other, each told its neighbour that is already filled.

Paper: Durrer et al. 2024, "Denoising Diffusion Models for 3D Healthy Brain Tissue Inpainting" (arXiv 2403.14499;
2-D sequential with slice position). Idea: consistency between slices by conditioning on the slice before.

Input channels, in order: the voided slice b, the mask m, the neighbouring slice, the noisy slice x_t. The number
of the slice goes through the embedding of the noise level and is added to it. Intensities in 0 to 1.

Network: the ADM U-Net (``networks/unet.py``), 113.7 M parameters at ``paper``. Target: the noise eps, and v of
the variance (learned range). Loss over the whole slice: mean square of eps plus the variational bound; the
neighbour is the true one.

Sampling: DDIM by default, any number of steps; the clean image outside the mask is the known tissue at each
step. With ``order="inwards"`` each lesion is filled from its lowest and its highest slice towards the middle,
always the one of the two with more known tissue first, so that every slice has a neighbour that is known or filled;
lesions are filled side by side. ``order="up"`` goes upwards through all masked slices, as published.
``sampler="published"`` is the recipe of the authors: 1000 ancestral steps a slice, clean slices clipped to
[-1, 1], the state replaced by the clean prediction at the last three; the neighbour is the whole generated slice.

Differences from the published code: known tissue is kept; a slice at the end of the volume has air for a
neighbour (training used the slice at the other end, sampling stopped); ``order="inwards"``, which is trained with
neighbours from both sides; the variational bound is computed against the clean slice (the released code
overwrites it with the noisy one before); few-step samplers work.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from neuromend.diffusion.process import noise_like
from neuromend.diffusion.samplers import OnStep
from neuromend.methods import axial
from neuromend.methods.contract import Sampler, Sides, check_volumes
from neuromend.networks.unet import UNet2D

Turn = tuple[int, int, int]
"""A slice to fill: item, z, and z of the neighbour that is known by then."""


@dataclass(frozen=True, slots=True)
class Sequential2DConfig:
    """Architecture, order and sampler.

    Attributes:
        model_channels: channels at full resolution, a multiple of 32.
        channel_mult: width of each level relative to that; each level halves the sides.
        num_res_blocks: residual blocks a level.
        attention_resolutions: factors of down-sampling at which the network attends.
        slices: height of the volume in which slices are numbered; other volumes are taken as centred in it.
        order: in which order slices are filled; the weights must have been trained for it.
        sampler: "ddim", "dpmpp", "ddpm" or "published".
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    slices: int = 224
    order: Literal["up", "inwards"] = "up"
    sampler: Sampler = "ddim"


PRESETS: dict[str, Sequential2DConfig] = {
    "paper": Sequential2DConfig(),
    "small": Sequential2DConfig(
        model_channels=64,
        channel_mult=(1, 2, 2, 4),
        num_res_blocks=1,
        attention_resolutions=(8,),
        order="inwards",
    ),
    "tiny": Sequential2DConfig(
        model_channels=64,
        channel_mult=(1, 1),
        num_res_blocks=1,
        attention_resolutions=(2,),
        order="inwards",
    ),
}


class Sequential2D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[Sequential2DConfig]] = Sequential2DConfig
    PRESETS: ClassVar[dict[str, Sequential2DConfig]] = PRESETS
    expected_steps: int | None = None
    default_steps: int = axial.DEFAULT_STEPS
    most_steps: int | None = axial.SCHEDULE.T
    window: Sides | None = axial.WINDOW

    def __init__(self, config: Sequential2DConfig) -> None:
        super().__init__()
        self.config = config
        if config.sampler == "published":
            self.default_steps = axial.PUBLISHED_STEPS
        self.network = UNet2D(
            4,
            2,
            config.model_channels,
            config.channel_mult,
            config.num_res_blocks,
            config.attention_resolutions,
        )

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(2 ** (len(self.config.channel_mult) - 1))

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        return axial.memory_bytes(self.config.model_channels, sides)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """Noise and variance loss of up to 16 masked slices of the batch, drawn at random, with true neighbours.

        Raises:
            ValueError: the shapes differ, or a side is not divisible by ``multiple``.
        """
        check_volumes(self.multiple, voided, mask, healthy=healthy)
        item, z = axial.masked_slices(mask)
        if len(z) == 0:
            return axial.no_loss()
        chosen = torch.randperm(len(z), generator=generator, device=generator.device).cpu()[: axial.BATCH]
        item, z = item[chosen], z[chosen]
        side = -torch.ones_like(z)
        if self.config.order == "inwards":
            side += 2 * torch.randint(2, z.shape, generator=generator, device=generator.device).cpu()
        target = torch.where(mask > 0.5, healthy, voided)
        hole = axial.cut(mask, item, z) > 0.5
        known = axial.cut(voided, item, z).masked_fill(hole, 0)
        condition = torch.cat([known, hole.to(known), neighbours(target, item, z + side)], dim=1)
        levels = axial.random_levels(len(z), generator)
        timesteps = (levels - 1).to(known.device)
        positions = self._positions(z, voided)

        def predict(xt: Tensor) -> Tensor:
            inputs = torch.cat([condition, xt], dim=1)
            result: Tensor = self.network(inputs, timesteps, positions=positions)
            return result

        return axial.noise_loss(predict, axial.cut(target, item, z), levels, generator)

    @torch.inference_mode()
    def sample(
        self,
        voided: Tensor,
        mask: Tensor,
        *,
        steps: int,
        generator: Generator,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Fill the mask; (B, 1, X, Y, Z) like ``voided``. ``on_step`` counts in ``steps`` equal parts of the work.

        Raises:
            ValueError: the shapes differ, a side is not divisible by ``multiple``, or ``steps`` is below 1.
        """
        check_volumes(self.multiple, voided, mask, steps=steps)
        hole = mask > 0.5
        work = voided.masked_fill(hole, 0)
        noise = noise_like(voided, generator)
        turns = turns_upwards(mask) if self.config.order == "up" else turns_inwards(mask)
        done = 0

        def progress(_: int, of: int) -> None:
            nonlocal done
            done += 1
            if on_step is not None and done % len(turns) == 0:
                on_step(done // len(turns), of)

        for turn in turns:
            self._fill_slices(turn, work, hole, noise, steps, generator, progress)
        return torch.where(hole, work, voided)

    def _fill_slices(
        self,
        turn: list[Turn],
        work: Tensor,
        hole: Tensor,
        noise: Tensor,
        steps: int,
        generator: Generator,
        on_step: OnStep,
    ) -> None:
        """Fill slices that do not depend on each other, in place in ``work`` (which is 0 where nothing is known)."""
        item, z, neighbour = torch.tensor(turn).unbind(1)
        inside, known = axial.cut(hole, item, z), axial.cut(work, item, z)
        condition = torch.cat([known, inside.to(known), neighbours(work, item, neighbour)], dim=1)
        positions = self._positions(z, work)

        def predict(xt: Tensor, level: int) -> Tensor:
            timesteps = torch.full((len(xt),), level - 1, device=xt.device)
            result: Tensor = self.network(torch.cat([condition, xt], dim=1), timesteps, positions=positions)
            return result

        sampler = self.config.sampler
        filled = axial.walk(
            predict,
            axial.cut(noise, item, z),
            known,
            inside,
            sampler=sampler,
            steps=steps,
            generator=generator,
            on_step=on_step,
        )
        axial.put(work, filled if sampler == "published" else torch.where(inside, filled, known), item, z)

    def _positions(self, z: Tensor, volume: Tensor) -> Tensor:
        """Slice numbers as the network knows them: those of the volume centred in ``slices``."""
        offset = (self.config.slices - volume.shape[4]) // 2
        return (z + offset).clamp(0, self.config.slices - 1).to(volume.device)


def neighbours(volume: Tensor, item: Tensor, z: Tensor) -> Tensor:
    """The slices z, (S, 1, X, Y); beyond the ends of the volume there is air."""
    top = volume.shape[4] - 1
    outside = ((z < 0) | (z > top)).to(volume.device)
    return axial.cut(volume, item, z.clamp(0, top)).masked_fill(outside[:, None, None, None], 0)


def turns_upwards(mask: Tensor) -> list[list[Turn]]:
    """All masked slices of a scan in ascending order; scans of a batch side by side."""
    item, z = axial.masked_slices(mask)
    scans: dict[int, list[Turn]] = {}
    for i, k in zip(item.tolist(), z.tolist(), strict=True):
        scans.setdefault(i, []).append((i, k, k - 1))
    return side_by_side(list(scans.values()))


def turns_inwards(mask: Tensor) -> list[list[Turn]]:
    """Each run of masked slices from both ends to its middle, smaller holes first; runs side by side."""
    item, z = axial.masked_slices(mask)
    area = (mask > 0.5).sum((1, 2, 3)).cpu()[item, z].tolist()
    scans, places = item.tolist(), z.tolist()
    orders: list[list[Turn]] = []
    for run in axial.runs(item, z):
        low, high, order = run.start, run.stop - 1, []
        while low <= high:
            if area[low] <= area[high]:
                order.append((scans[low], places[low], places[low] - 1))
                low += 1
            else:
                order.append((scans[high], places[high], places[high] + 1))
                high -= 1
        orders.append(order)
    return side_by_side(orders)


def side_by_side(orders: list[list[Turn]]) -> list[list[Turn]]:
    """The first turns of all orders together, then the second ones, and so on."""
    return [[turn for turn in turns if turn is not None] for turns in zip_longest(*orders)]
