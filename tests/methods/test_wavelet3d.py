"""wavelet3d against the published numbers: bands, loss, trajectories, full-size parameters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuromend.diffusion import samplers
from neuromend.methods.walking import walk
from neuromend.methods.wavelet3d import SCHEDULE, Wavelet3D, Wavelet3DConfig, from_bands, to_bands
from neuromend.wavelets import haar

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity" / "WDM_3D"


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
    """The fixture's network: 0.5 x_t + 0.3 image - 0.2 mask + 0.1 t/1000; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.inputs.append(x)
        self.times.append(t)
        time = 0.1 * t.float()[:, None, None, None, None] / 1000
        return 0.5 * x[:, :8] + 0.3 * x[:, 8:16] - 0.2 * x[:, 16:] + time


class Fixed(ClosedForm):
    """A network that answers one tensor."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        super().forward(x, t)
        return self.answer.expand(len(x), -1, -1, -1, -1)


def method(network: nn.Module, sampler: Any = "published") -> Wavelet3D:
    """One level only, so that the fixture's small volumes fit."""
    module = Wavelet3D(Wavelet3DConfig(width=2, multipliers=(1,), blocks=1, groups=1, sampler=sampler))
    module.network = network
    return module


@pytest.mark.shared
def test_bands_are_laid_out_as_published() -> None:
    data = fixture()
    torch.testing.assert_close(to_bands(data["traj_image"]), data["traj_image_dwt"], rtol=1e-5, atol=1e-6)
    assert torch.allclose(from_bands(to_bands(data["traj_mask"])), data["traj_mask"], atol=1e-6)


@pytest.mark.shared
def test_loss_and_what_the_network_sees_are_published() -> None:
    data = fixture()
    voided, mask, truth = (to_bands(data["loss_x_start"][:, c : c + 1]) for c in range(3))
    network = Fixed(data["loss_model_output"])
    count = len(data["loss_t"])
    errors = method(network).band_errors(
        truth.expand(count, -1, -1, -1, -1),
        torch.cat((voided, mask), dim=1).expand(count, -1, -1, -1, -1),
        data["loss_t"] + 1,
        haar(data["loss_noise_image_space"]).expand(count, -1, -1, -1, -1),
    )
    torch.testing.assert_close(errors, data["loss_mse_wav"], rtol=1e-5, atol=0)
    torch.testing.assert_close(errors.mean(1), data["loss_total"].float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(network.inputs[0], data["loss_network_input"], rtol=1e-5, atol=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize(("steps", "prefix"), [(10, "traj"), (1000, "full")])
def test_the_published_sampler_walks_the_published_trajectory(
    steps: int, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, network = fixture(), ClosedForm()
    noise = data["traj_step_noise"] if steps == 10 else data["full_step_noise"][:, None]
    condition = torch.cat((data["traj_image_dwt"], data["traj_mask_dwt"]), dim=1)
    final = walk(
        "published", method(network).denoiser(condition, None), data["traj_initial_noise"], steps,
        schedule=SCHEDULE, generator=recorded(noise, monkeypatch), on_step=None,
    )  # fmt: skip
    if steps == 10:
        inputs = torch.stack(network.inputs)
        torch.testing.assert_close(inputs, data["traj_network_inputs"], rtol=1e-5, atol=1e-5)
        assert torch.equal(torch.stack(network.times), data["traj_network_t"])
    image = data[f"{prefix}_final_image_01"]
    assert ((from_bands(final) + 1) / 2 - image).norm() / image.norm() < 1e-5


def test_the_paper_preset_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        modules = [Wavelet3D(Wavelet3D.PRESETS[name]) for name in ("paper", "paper-wavelet-unet")]
    counts = [sum(p.numel() for p in module.parameters()) for module in modules]
    assert counts == [83_186_376, 125_748_552]
    assert [module.multiple for module in modules] == [64, 128]


@pytest.mark.parametrize("backbone", ["unet", "wavelet_unet"])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp", "ddpm", "published"])
def test_every_sampler_fills_the_hole_and_only_the_hole(sampler: Any, backbone: Any) -> None:
    torch.manual_seed(1)
    config = Wavelet3DConfig(backbone, width=4, multipliers=(1,), blocks=2, groups=2, sampler=sampler)
    voided = torch.rand(2, 1, 4, 8, 12)
    mask = torch.zeros_like(voided)
    mask[..., 1:3, 2:5, 3:6] = 1
    filled = Wavelet3D(config).sample(voided, mask, steps=3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(filled[mask == 0], voided[mask == 0])
    assert filled.isfinite().all()
    assert filled.min() >= -1e-5
    assert filled.max() <= 1 + 1e-5


def test_by_default_every_prediction_keeps_known_tissue() -> None:
    module = method(ClosedForm(), "ddim")
    known = torch.rand(1, 1, 2, 4, 6)
    hole = known > 0.5
    keep = (2 * known - 1, hole)
    bands = module.denoiser(module.condition(known, hole), keep)(torch.randn(1, 8, 1, 2, 3), 400)
    torch.testing.assert_close(from_bands(bands)[~hole], keep[0][~hole], rtol=0, atol=1e-6)
