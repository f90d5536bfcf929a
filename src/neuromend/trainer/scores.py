"""How good the averaged weights are on fixed dev cases: the challenge's scores, against the harmonic fill."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from neuromend.methods.classical import harmonic
from neuromend.metrics import challenge_scores
from neuromend.networks.autoencoder import VQGAN
from neuromend.trainer.config import Running
from neuromend.trainer.feeding import seed_of
from neuromend.trainer.state import RunState
from neuromend.trainer.tasks import to_autoencoder

SHOWN = ("psnr_01", "ssim", "mse", "mae")
"""The scores that are logged; higher is better of the first two."""

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DevFill:
    """A dev case and its fill: (x, y, z) volumes in model units.

    Attributes:
        scores: by name, ``SHOWN``.
        harmonic_scores: of the harmonic fill, to compare with; empty for the autoencoder.
    """

    truth: Volume
    voided: Volume
    mask: NDArray[np.bool_]
    filled: Volume
    scores: dict[str, float]
    harmonic_scores: dict[str, float]


def fill_dev(
    state: RunState,
    dev: Sequence[Mapping[str, Tensor]],
    steps: int,
    fabric: Fabric,
    beat: Callable[[], None],
) -> list[DevFill]:
    """The dev cases, filled by all processes together and handed to every one, in order; a beat after each."""
    if not dev:
        return []
    network, stride = state.whole_average(fabric.device), getattr(state.task, "stride", 1)
    mine: list[tuple[int, DevFill]] = []
    for number in range(fabric.global_rank, len(dev), fabric.world_size):
        with fabric.autocast(), torch.inference_mode():
            mine.append((number, fill_dev_case(network, dev[number], number, steps, stride)))
        beat()
    if fabric.world_size > 1:
        gathered: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(gathered, mine)
        mine = [pair for part in gathered for pair in part]
    return [fill for _, fill in sorted(mine, key=lambda pair: pair[0])]


def fill_dev_case(
    network: nn.Module, case: Mapping[str, Tensor], number: int, steps: int, stride: int
) -> DevFill:
    """Fill dev case ``number`` (tensors (1, X, Y, Z)); the same noise every time. ``steps`` as ``dev_steps``."""
    device = next(iter(network.state_dict().values())).device
    healthy, voided, mask = (case[name][None].to(device) for name in ("healthy", "voided", "mask"))
    generator = torch.Generator(device).manual_seed(seed_of(0, number))
    truth, seen, hole = (_volume(v) for v in (healthy, voided, mask))
    if isinstance(network, VQGAN):
        return _reconstruct(network, healthy, stride, generator)
    method: Any = network
    usual = method.expected_steps or max(2, math.ceil(method.default_steps / 4))
    filled = method.sample(voided, mask, steps=steps or usual, generator=generator)
    inside = hole > 0.5
    fill = np.where(inside, _volume(filled), truth)
    plain = np.where(inside, harmonic(seen, inside), truth)
    return DevFill(
        truth, seen, inside, fill, _scores(fill, truth, seen, inside), _scores(plain, truth, seen, inside)
    )


def mean_scores(fills: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score; NaN where one case's is."""
    return (
        {name: round(float(np.mean([fill[name] for fill in fills])), 5) for name in fills[0]} if fills else {}
    )


def goodness(scores: Mapping[str, float], running: Running) -> float:
    """The score that decides, turned so that higher is better; minus infinity where it is not finite."""
    value = scores.get(running.best_by, math.nan)
    value = value if running.best_by in ("psnr_01", "ssim") else -value
    return value if math.isfinite(value) else -math.inf


def _reconstruct(network: VQGAN, healthy: Tensor, stride: int, generator: torch.Generator) -> DevFill:
    """The autoencoder's own score: how well it gives back a healthy volume, in the tissue."""
    volume = to_autoencoder(healthy, stride)
    made = _volume((network(volume, generator).image + 1) / 2)
    truth = _volume((volume + 1) / 2)
    tissue = truth > 0.05
    return DevFill(truth, truth, tissue, made, _scores(made, truth, truth, tissue), {})


def _scores(filled: Volume, truth: Volume, voided: Volume, mask: NDArray[np.bool_]) -> dict[str, float]:
    found = challenge_scores(filled, truth, voided, mask)
    return {name: found[name] for name in SHOWN}


def _volume(tensor: Tensor) -> Volume:
    volume: Volume = tensor[0, 0].float().cpu().numpy()
    return volume
