"""full3d against the published numbers: loss, ten-step and thousand-step trajectories, full-size parameters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuromend.diffusion import samplers
from neuromend.methods.full3d import SCHEDULE, Full3D, Full3DConfig
from neuromend.methods.walking import walk

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity" / "DDPM_3D_mem_eff"


def fixture() -> dict[str, Tensor]:
    if not PARITY.exists():
        pytest.skip("the parity fixtures are not beside this checkout")
    with np.load(PARITY / "diffusion.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def recorded(noise: Iterable[Tensor], monkeypatch: pytest.MonkeyPatch) -> torch.Generator:
    """Samplers draw the recorded noise, whatever the generator."""
    draws = iter(noise)
    monkeypatch.setattr(samplers, "noise_like", lambda x, generator: next(draws))
    return torch.Generator()


class ClosedForm(nn.Module):
    """The fixture's network: 0.6 x_t - 0.3 image + 0.2 mask + 0.1 t/1000; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.inputs.append(x)
        self.times.append(t)
        time = 0.1 * t.float()[:, None, None, None, None] / 1000
        return 0.6 * x[:, 2:] - 0.3 * x[:, :1] + 0.2 * x[:, 1:2] + time


class Fixed(ClosedForm):
    """A network that answers one tensor."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        super().forward(x, t)
        return self.answer


def method(network: nn.Module) -> Full3D:
    """One level only, so that the fixture's 4^3 volumes fit."""
    config = Full3DConfig(width=2, multipliers=(1,), blocks=1, groups=1, sampler="published")
    module = Full3D(config)
    module.network = network
    return module


@pytest.mark.shared
def test_loss_and_what_the_network_sees_are_published() -> None:
    data = fixture()
    x, network = data["loss_x_start"], Fixed(data["loss_model_output"])
    found = method(network).noise_error(
        x[:, 2:], x[:, :1], x[:, 1:2] > 0.5, data["loss_t"] + 1, data["loss_noise"]
    )
    torch.testing.assert_close(found, data["loss_float32_mse"], rtol=1e-5, atol=0)
    torch.testing.assert_close(network.inputs[0], data["loss_float32_network_input"], rtol=1e-5, atol=1e-6)
    assert torch.equal(network.times[0], data["loss_t"])


@pytest.mark.shared
def test_the_published_sampler_walks_the_published_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    data, network = fixture(), ClosedForm()
    denoise = method(network).denoiser(data["traj_condition"][:, :1], data["traj_condition"][:, 1:] > 0.5)
    final = walk(
        "published", denoise, data["traj_initial_noise"], 10, schedule=SCHEDULE,
        generator=recorded(data["traj_step_noise"], monkeypatch), on_step=None,
    )  # fmt: skip
    torch.testing.assert_close(torch.stack(network.inputs), data["traj_network_inputs"], rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.stack(network.times), data["traj_network_t"])
    torch.testing.assert_close(final, data["traj_samples"][-1], rtol=1e-5, atol=1e-5)


@pytest.mark.shared
def test_a_thousand_published_steps_end_where_they_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    data, network = fixture(), ClosedForm()
    noise = data["full_step_noise"][:, None, None]
    condition = data["full_x_noisy"]
    module = method(network)
    assert module.default_steps == 1000
    final = walk(
        "published", module.denoiser(condition[:, :1], condition[:, 1:2] > 0.5), noise[0], 1000,
        schedule=SCHEDULE, generator=recorded(noise[1:], monkeypatch), on_step=None,
    )  # fmt: skip
    assert (final - data["full_final"]).norm() / data["full_final"].norm() < 1e-5


def test_the_paper_preset_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        module = Full3D(Full3D.PRESETS["paper"])
    assert sum(p.numel() for p in module.parameters()) == 24_256_384
    assert module.multiple == 64


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp", "ddpm", "published"])
def test_every_sampler_fills_the_hole_and_only_the_hole(sampler: Any) -> None:
    torch.manual_seed(1)
    config = Full3DConfig(width=4, multipliers=(1, 2), blocks=1, groups=2, sampler=sampler)
    voided = torch.rand(2, 1, 4, 6, 8)
    mask = torch.zeros_like(voided)
    mask[..., 1:3, 2:5, 3:6] = 1
    filled = Full3D(config).sample(voided, mask, steps=3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(filled[mask == 0], voided[mask == 0])
    assert filled.isfinite().all()
    assert filled.abs().max() <= 1


def test_by_default_every_prediction_keeps_known_tissue() -> None:
    module = Full3D(Full3DConfig(width=2, multipliers=(1,), blocks=1, groups=1))
    known = torch.rand(1, 1, 3, 4, 5)
    hole = known > 0.5
    x0 = module.denoiser(known, hole)(torch.randn(1, 1, 3, 4, 5), 400)
    assert torch.equal(x0[~hole], known[~hole])
