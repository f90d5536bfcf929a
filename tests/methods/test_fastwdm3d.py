"""fastwdm3d against the published facts: parameter count, schedule, noise; and its crops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuromend.methods.fastwdm3d import SHRINK, FastWDM3D, FastWDM3DConfig
from neuromend.wavelets import haar

TINY = FastWDM3D.PRESETS["tiny"]


class Recorder(nn.Module):
    """A network that remembers its inputs and answers with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.inputs.append(x)
        self.times.append(t)
        return torch.zeros_like(x[:, :8])


def recording(config: FastWDM3DConfig) -> tuple[FastWDM3D, Recorder]:
    module, network = FastWDM3D(config), Recorder()
    module.network = network
    return module, network


def case(sides: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    healthy = torch.rand(1, 1, *sides)
    mask = torch.zeros_like(healthy)
    mask[:, :, 2:6, 4:9, 3:9] = 1
    return healthy, healthy * (1 - mask), mask


def test_the_published_network_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        module = FastWDM3D(FastWDM3D.PRESETS["paper"])
    assert sum(p.numel() for p in module.parameters()) == 65_525_320
    names = {key.removeprefix("network.") for key in module.state_dict()}
    skips = {
        name.removesuffix(".0.skip_connection.weight") for name in names if "skip_connection.weight" in name
    }
    assert skips == {"input_blocks.6", "input_blocks.21", "output_blocks.3", "output_blocks.18"}
    for k in (5, 10, 15, 20):
        assert f"input_blocks.{k}.0.in_layers.0.weight" in names
    for k in (4, 9, 14, 19):
        assert f"output_blocks.{k}.1.in_layers.0.weight" in names


@pytest.mark.parametrize(
    ("levels", "abar"),
    [
        (2, [0.078676, 4.3e-5]),
        (4, [0.521745, 0.078676, 0.003429, 4.3e-5]),
        (8, [0.843555, 0.521745, 0.236611, 0.078676, 0.019181, 0.003429, 0.000449, 4.3e-5]),
    ],
)
def test_the_noise_levels_are_the_published_ones(levels: int, abar: list[float]) -> None:
    schedule = FastWDM3D(replace(TINY, levels=levels)).schedule
    torch.testing.assert_close(schedule.abar[1:], torch.tensor(abar, dtype=torch.float64), atol=1e-6, rtol=0)


def test_channels_are_noisy_image_then_voided_then_mask() -> None:
    module, network = recording(TINY)
    healthy, voided, mask = case((8, 12, 16))
    module.loss(healthy, voided, mask, torch.Generator().manual_seed(0))
    (x,) = network.inputs
    turned = [volume.flip(2, 3) for volume in (voided, mask)]
    assert x.shape == (1, 24, 4, 6, 8)
    torch.testing.assert_close(x[:, 8:16], haar(2 * turned[0] - 1) / SHRINK)
    torch.testing.assert_close(x[:, 16:], haar(2 * turned[1] - 1) / SHRINK)
    assert x[:, 8:].abs().max() <= 1.0 + 1e-6


@pytest.mark.parametrize(("sampler", "std"), [("ddpm", 1 / SHRINK), ("published", 1.0)])
def test_the_first_state_has_the_noise_of_training_or_as_released(sampler: Any, std: float) -> None:
    module, network = recording(replace(TINY, sampler=sampler))
    _, voided, mask = case((24, 28, 32))
    module.sample(voided, mask, steps=4, generator=torch.Generator().manual_seed(0))
    assert network.inputs[0][:, :8].std() == pytest.approx(std, rel=0.02)
    assert [int(t) for t in network.times] == [3, 2, 1, 0]


def test_training_looks_at_a_crop_around_the_mask() -> None:
    module, network = recording(replace(TINY, crop=8))
    healthy, voided, mask = case((24, 28, 32))
    module.loss(healthy, voided, mask, torch.Generator().manual_seed(0))
    (x,) = network.inputs
    assert x.shape[2:] == (4, 4, 4)
    assert x[:, 16].max() > 0, "the mask is in the crop"


def test_a_fill_shows_the_network_a_crop() -> None:
    assert FastWDM3D(replace(TINY, crop=8)).window == (8, 8, 8)


def test_more_steps_than_levels_are_refused() -> None:
    module = FastWDM3D(TINY)
    _, voided, mask = case((8, 12, 16))
    with pytest.raises(ValueError, match="between 1 and 4"):
        module.sample(voided, mask, steps=5, generator=torch.Generator())


def test_a_crop_that_does_not_fit_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 4; found 6"):
        FastWDM3D(replace(TINY, crop=6))
