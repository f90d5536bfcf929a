"""What belongs to the default method alone: its levels of noise, its condition, its space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuromend.data.symmetry import midsagittal_reflection, mirrored
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.classical import harmonic
from neuromend.methods.fastwavelet3d import BETA_MAX, BETA_MIN, Condition, FastWavelet3D, FastWavelet3DConfig
from neuromend.wavelets import haar


@pytest.fixture
def tiny() -> FastWavelet3D:
    torch.manual_seed(4)
    return FastWavelet3D(FastWavelet3D.PRESETS["tiny"]).eval()


def head() -> tuple[Tensor, Tensor]:
    """(voided, mask), (1, 1, 16, 24, 32): an ellipsoid of uneven brightness with a hole in its right half."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (16, 24, 32)], indexing="ij")
    image = (x**2 + y**2 + z**2 < 0.8) * (0.6 + 0.2 * torch.sin(4 * y) + 0.1 * z)
    mask = ((x - 0.4) ** 2 + y**2 + z**2 < 0.07).float()
    return (image * (1 - mask))[None, None], mask[None, None]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_condition_is_the_harmonic_fill_and_its_reflection(tiny: FastWavelet3D) -> None:
    voided, mask = head()
    condition = tiny.condition(voided, mask)
    image, hole = voided[0, 0].numpy(), mask[0, 0].numpy() > 0.5
    fill = harmonic(image, hole)
    assert np.array_equal(condition.base[0, 0].numpy(), fill)
    expected, valid = mirrored(fill, np.zeros_like(hole), midsagittal_reflection(fill, hole))
    np.testing.assert_allclose(condition.mirror[0, 0].numpy()[valid], expected[valid], atol=1e-6)


def test_the_condition_is_made_once_for_all_samples_of_a_scan(
    tiny: FastWavelet3D, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Condition] = []
    whole = FastWavelet3D.condition

    def counted(self: FastWavelet3D, voided: Tensor, mask: Tensor) -> Condition:
        made.append(whole(self, voided, mask))
        return made[-1]

    monkeypatch.setattr(FastWavelet3D, "condition", counted)
    voided, mask = head()
    first = tiny.sample(voided, mask, steps=2, generator=seeded(1))
    tiny.sample(voided.clone(), mask.clone(), steps=2, generator=seeded(2))
    assert len(made) == 1
    tiny.sample(0.9 * voided, mask, steps=2, generator=seeded(1))
    assert len(made) == 2
    assert torch.equal(tiny.sample(voided, mask, steps=2, generator=seeded(1)), first)
    assert len(made) == 3


def test_the_network_sees_the_channels_in_the_stated_order(tiny: FastWavelet3D) -> None:
    voided, mask = head()
    condition = tiny.condition(voided, mask)
    xt, abar = mask * torch.randn(mask.shape, generator=seeded(1)), torch.tensor([0.3])
    seen: list[tuple[Tensor, Tensor]] = []

    def record(module: Any, inputs: tuple[Tensor, Tensor]) -> None:
        seen.append(inputs)

    tiny.network.register_forward_pre_hook(record)
    out = tiny._predict(xt, abar, mask, condition)
    stack, log_snr = seen[0]
    assert out.shape == xt.shape
    assert stack.shape == (1, 256, 4, 6, 8)
    for k, part in enumerate((condition.base, condition.mirror, mask, math.sqrt(0.3) * xt)):
        torch.testing.assert_close(stack[:, 64 * k : 64 * (k + 1)], haar(haar(part)))
    torch.testing.assert_close(log_snr, torch.tensor([math.log(0.3 / 0.7)]))


def test_the_loss_is_one_for_a_network_that_knows_nothing_about_data_of_unit_variance(
    tiny: FastWavelet3D,
) -> None:
    """With x0 = 0 predicted, the error is the mean square of x0; each case counts the same."""
    torch.nn.init.zeros_(tiny.network.head.weight)
    torch.nn.init.zeros_(tiny.network.head.bias)
    voided, mask = head()
    condition = tiny.condition(voided, mask)
    x0 = torch.tensor([1.0, -3.0])[:, None, None, None, None] * mask
    healthy = condition.base + tiny.config.residual_scale * x0
    both = Condition(condition.base.repeat(2, 1, 1, 1, 1), condition.mirror.repeat(2, 1, 1, 1, 1))
    masks = mask.repeat(2, 1, 1, 1, 1)
    loss = tiny.loss(healthy, voided.repeat(2, 1, 1, 1, 1), masks, seeded(2), both)
    assert loss.item() == pytest.approx((1 + 9) / 2, rel=1e-4)


def test_a_perfect_network_fills_with_the_truth(tiny: FastWavelet3D, monkeypatch: pytest.MonkeyPatch) -> None:
    voided, mask = head()
    truth = torch.where(mask > 0, 0.37 + 0.1 * torch.randn(mask.shape, generator=seeded(1)), voided)
    base = tiny.condition(voided, mask).base
    x0 = (truth - base) / tiny.config.residual_scale
    monkeypatch.setattr(tiny, "_predict", lambda xt, abar, mask, condition: x0)
    for steps in (1, 4):
        filled = tiny.sample(voided, mask, steps=steps, generator=seeded(2))
        torch.testing.assert_close(filled, truth, atol=1e-5, rtol=1e-5)


def test_three_quarters_of_the_training_levels_are_the_highest(tiny: FastWavelet3D) -> None:
    abar = tiny._random_abar(8000, seeded(3))
    highest = math.exp(-(BETA_MIN + BETA_MAX) / 2)
    at_top = torch.isclose(abar, torch.tensor(highest), rtol=1e-4)
    assert at_top.float().mean().item() == pytest.approx(tiny.config.expected_fraction, abs=0.02)
    assert abar.min().item() >= highest * 0.999
    assert 0.98 < abar.max().item() < 1


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_sampling_visits_levels_that_training_has_seen(steps: int) -> None:
    """Training draws t from 0.02 to 1; a sampler of few steps starts at t = 1 and ends above 0.02."""
    schedule = Schedule.variance_preserving(steps, BETA_MIN, BETA_MAX)
    assert schedule.abar[-1].item() == pytest.approx(math.exp(-(BETA_MIN + BETA_MAX) / 2), rel=1e-3)
    lowest_trained = math.exp(-(BETA_MIN * 0.02 + (BETA_MAX - BETA_MIN) * 0.02**2 / 2))
    assert schedule.abar[1].item() < lowest_trained


@pytest.mark.parametrize(("preset", "millions"), [("default", 14.69), ("small", 3.98), ("tiny", 0.09)])
def test_the_presets_have_the_sizes_that_the_docs_name(preset: str, millions: float) -> None:
    with torch.device("meta"):
        method = FastWavelet3D(FastWavelet3D.PRESETS[preset])
    assert sum(p.numel() for p in method.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_the_multiple_is_what_two_haar_levels_and_the_pooling_need() -> None:
    assert [FastWavelet3D(FastWavelet3D.PRESETS[p]).multiple for p in ("tiny", "default")] == [8, 16]
    assert FastWavelet3D(FastWavelet3DConfig(widths=(8,), blocks=(1,), embedding=4)).multiple == 4
