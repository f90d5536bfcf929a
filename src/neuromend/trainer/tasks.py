"""What is trained, behind one face: a method, or the autoencoder of latent3d.

A task is a module whose ``forward`` is the loss (so that every wrapper of PyTorch for several devices works on it),
and whose ``networks`` each have an optimiser of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol, cast, get_type_hints

import torch
from torch import Tensor, nn

from neuromend.methods.contract import TURNED
from neuromend.methods.latent3d import Latent3D
from neuromend.networks.autoencoder import VQGAN
from neuromend.networks.autoencoder_loss import (
    ADVERSARIES_FROM_STEP,
    Discriminators,
    autoencoder_loss,
    discriminator_loss,
)
from neuromend.trainer.config import RunConfig, build_method

Case = Mapping[str, Tensor]
"""Tensors (B, 1, X, Y, Z): healthy, voided, mask, and the fields of the method's condition."""


class Task(Protocol):
    """What the loop needs; a task is an ``nn.Module`` besides.

    Attributes:
        averaged: the part whose moving average is kept, sampled and exported.
        networks: parts that are clipped and optimised separately.
        multiple: sides of the cases must be divisible by it.
        condition_names: what a case holds besides healthy, voided and mask.
    """

    multiple: int
    condition_names: tuple[str, ...]

    @property
    def averaged(self) -> nn.Module: ...

    @property
    def networks(self) -> tuple[nn.Module, ...]: ...

    def forward(self, case: Case, step: int, generator: torch.Generator) -> Tensor:
        """The loss of a batch, one scalar."""
        ...


class MethodTask(nn.Module):
    """A method, trained by its own ``loss``; a condition that the loss can take ready-made is handed over."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.method = build_method(config)
        self.multiple = int(self.method.multiple)
        self._condition_type = _condition_type(type(self.method))
        self.condition_names = (
            ()
            if self._condition_type is None
            else tuple(f.name for f in fields(cast(Any, self._condition_type)))
        )

    @property
    def averaged(self) -> nn.Module:
        """The method."""
        method: nn.Module = self.method
        return method

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The method."""
        return (self.method,)

    def forward(self, case: Case, step: int, generator: torch.Generator) -> Tensor:
        """The loss of a batch."""
        arguments: dict[str, Any] = {}
        if self._condition_type is not None and all(name in case for name in self.condition_names):
            arguments["condition"] = self._condition_type(
                **{name: case[name] for name in self.condition_names}
            )
        loss: Tensor = self.method.loss(case["healthy"], case["voided"], case["mask"], generator, **arguments)
        return loss


class AutoencoderTask(nn.Module):
    """The VQ-GAN of latent3d against its two judges (networks/autoencoder_loss.py), one scalar for both sides.

    While the autoencoder's loss is made, the judges are constants, and the reconstruction is one while theirs is
    made; so one backward pass gives each side the gradient of its own loss, and each has its own optimiser.
    """

    condition_names: tuple[str, ...] = ()

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.model.items()}
        model = Latent3D.Config(**values)
        self.vqgan = VQGAN(
            model.width,
            model.levels,
            model.groups,
            model.codes,
            model.code_width,
            low_memory=model.low_memory,
        )
        self.judges = Discriminators(64 if config.preset in ("paper", "full") else 16)
        self.stride = model.voxel_stride
        self.multiple = self.stride * self.vqgan.factor
        self.start = config.training.adversaries_from_step

    @property
    def averaged(self) -> nn.Module:
        """The autoencoder."""
        return self.vqgan

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The autoencoder and its judges."""
        return self.vqgan, self.judges

    def forward(self, case: Case, step: int, generator: torch.Generator) -> Tensor:
        """The sum of both losses for a batch of healthy volumes."""
        volume = to_autoencoder(case["healthy"], self.stride)
        made = self.vqgan(volume, generator)
        step = step - self.start + ADVERSARIES_FROM_STEP
        for parameter in self.judges.parameters():
            parameter.requires_grad_(False)
        ours = autoencoder_loss(made, volume, self.judges, step=step, generator=generator).total
        for parameter in self.judges.parameters():
            parameter.requires_grad_(True)
        return ours + discriminator_loss(made, volume, self.judges, step=step, generator=generator)


def to_autoencoder(healthy: Tensor, stride: int) -> Tensor:
    """(B, 1, X, Y, Z), background 0 and bright tissue 1 -> every ``stride``-th voxel, LPS, in [-1, 1]."""
    return 2 * healthy.flip(TURNED)[..., ::stride, ::stride, ::stride] - 1


def make_task(config: RunConfig) -> MethodTask | AutoencoderTask:
    """The task that a config describes, with random weights."""
    return AutoencoderTask(config) if config.stage == "autoencoder" else MethodTask(config)


def _condition_type(method: type[Any]) -> Callable[..., Any] | None:
    """The class of the ``condition`` that a method's loss accepts, or None if it accepts none."""
    if "condition" not in inspect.signature(method.loss).parameters:
        return None
    found: Callable[..., Any] = get_type_hints(method.condition)["return"]
    return found
