"""The published code's own numbers, replayed with the generic functions.

The fixtures lie beside the checkout (../shared/parity). Published index i is our level i + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from neuromend.diffusion import process, samplers
from neuromend.diffusion.schedule import Schedule
from neuromend.wavelets import haar, inverse_haar

pytestmark = pytest.mark.shared

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
LINEAR = ("DDPM_2D_slice_wise", "DDPM_2D_seq_pos", "DDPM_Pseudo3D", "DDPM_3D_mem_eff", "WDM_3D")
LEARNED_RANGE = ("DDPM_2D_slice_wise", "DDPM_2D_seq_pos", "DDPM_Pseudo3D")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def fixture(method: str) -> dict[str, Tensor]:
    path = PARITY / method / "diffusion.npz"
    if not path.exists():
        pytest.skip("the parity fixtures are not beside this checkout")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def recorded(noise: Iterable[Tensor], monkeypatch: pytest.MonkeyPatch) -> torch.Generator:
    """Samplers draw the recorded noise, whatever the generator."""
    draws = iter(noise)
    monkeypatch.setattr(samplers, "noise_like", lambda x, generator: next(draws))
    return torch.Generator()


@pytest.mark.parametrize("method", LINEAR)
def test_linear_schedule_and_its_respacings_are_published(method: str) -> None:
    published = fixture(method)
    schedule = Schedule.linear()
    torch.testing.assert_close(schedule.betas, published["betas"], rtol=1e-9, atol=0)
    for prefix in ("respaced10", "respaced_ddim25", "respaced_3_4_6"):
        levels = [0, *(published[f"{prefix}_timestep_map"] + 1).tolist()]
        betas = process.large_variance(schedule.abar[levels[:-1]], schedule.abar[levels[1:]])
        torch.testing.assert_close(betas, published[f"{prefix}_betas"], rtol=1e-9, atol=0)
    assert schedule.levels(10, "linspace")[-2::-1] == (published["respaced10_timestep_map"] + 1).tolist()

    t = torch.tensor([0, 1, 2, 250, 500, 998, 999]) + 1
    torch.testing.assert_close(schedule.abar[t], published["alphas_cumprod_at_0_1_2_250_500_998_999"])
    torch.testing.assert_close(
        process.small_variance(schedule.abar[t - 1], schedule.abar[t]),
        published["posterior_variance_at_0_1_2_250_500_998_999"],
    )


@pytest.mark.parametrize(("T", "prefix"), [(1000, "buffer_"), (10, "T10_buffer_")])
def test_cosine_schedule_is_published(T: int, prefix: str) -> None:
    published = fixture("LDM_3D")
    schedule = Schedule.cosine(T)
    torch.testing.assert_close(schedule.betas.float(), published[f"{prefix}betas"])
    torch.testing.assert_close(schedule.abar[1:].float(), published[f"{prefix}alphas_cumprod"])
    variance = process.small_variance(schedule.abar[:-1], schedule.abar[1:])
    torch.testing.assert_close(variance.float(), published[f"{prefix}posterior_variance"])


@pytest.mark.parametrize("method", LINEAR)
def test_noising_and_posterior_are_published(method: str) -> None:
    published = fixture(method)
    abar, t = Schedule.linear().abar, published["q_t"] + 1
    x0 = published["q_x_start"]
    xt = process.add_noise(x0, published["q_noise"], abar[t])
    torch.testing.assert_close(xt, published["q_x_t"], **TOLERANCE)
    mean = process.posterior_mean(x0, xt, abar[t - 1], abar[t])
    torch.testing.assert_close(mean, published["q_posterior_mean"], **TOLERANCE)
    variance = process.small_variance(abar[t - 1], abar[t]).float()
    torch.testing.assert_close(variance, published["q_posterior_variance"].flatten(1)[:, 0], **TOLERANCE)


@pytest.mark.parametrize("clip", [0, 1])
@pytest.mark.parametrize("method", [*LINEAR[:4]])
def test_step_from_predicted_noise_is_published(method: str, clip: int) -> None:
    published = fixture(method)
    abar, t = Schedule.linear().abar, published["pmv_t"] + 1
    xt, output = published["pmv_x"][:, -1:], published["pmv_model_output"]
    x0 = process.x0_from_eps(xt, output[:, :1], abar[t])
    if clip:
        x0 = x0.clamp(-1, 1)
    torch.testing.assert_close(x0, published[f"pmv_clip{clip}_pred_xstart"], **TOLERANCE)
    mean = process.posterior_mean(x0, xt, abar[t - 1], abar[t])
    torch.testing.assert_close(mean, published[f"pmv_clip{clip}_mean"], **TOLERANCE)

    # published variances of the step to clean data borrow the small variance of the step before
    earlier = t.clamp(min=2)
    small = process.small_variance(abar[earlier - 1], abar[earlier])
    large = process.large_variance(abar[t - 1], abar[t])
    if method in LEARNED_RANGE:
        variance = process.learned_range_variance(output[:, 1:], small, large)
    else:
        variance = torch.where(t == 1, small, large).float().reshape(-1, 1, 1, 1, 1).expand_as(mean)
    torch.testing.assert_close(variance, published[f"pmv_clip{clip}_variance"], atol=0, rtol=1e-4)


@pytest.mark.parametrize("clip", [0, 1])
def test_step_from_predicted_data_is_published_for_the_latent_method(clip: int) -> None:
    published = fixture("LDM_3D")
    abar, t = Schedule.cosine().abar, published["pmv_t"] + 1
    x0 = published["pmv_model_output_x0"]
    x0 = x0.clamp(-1, 1) if clip else x0
    mean = process.posterior_mean(x0, published["pmv_x_t"], abar[t - 1], abar[t])
    torch.testing.assert_close(mean, published[f"pmv_clip{clip}_mean"], **TOLERANCE)
    variance = process.small_variance(abar[t - 1], abar[t]).float()
    torch.testing.assert_close(variance, published[f"pmv_clip{clip}_variance"].flatten(), **TOLERANCE)


def wavelet_clamp(x0: Tensor) -> Tensor:
    """Clamp to [-1, 1] in image space; the published network sees a third of the LLL band."""
    scale = torch.tensor([3.0] + [1.0] * 7).reshape(1, 8, 1, 1, 1)
    return haar(inverse_haar(x0 * scale).clamp(-1, 1)) / scale


@pytest.mark.parametrize("clip", [0, 1])
def test_step_from_predicted_data_is_published_for_the_wavelet_method(clip: int) -> None:
    published = fixture("WDM_3D")
    abar, t = Schedule.linear().abar, published["pmv_t"] + 1
    x0 = published["pmv_model_output"]
    x0 = wavelet_clamp(x0) if clip else x0
    torch.testing.assert_close(x0, published[f"pmv_clip{clip}_pred_xstart"], **TOLERANCE)
    mean = process.posterior_mean(x0, published["pmv_x"], abar[t - 1], abar[t])
    torch.testing.assert_close(mean, published[f"pmv_clip{clip}_mean"], **TOLERANCE)


Network = Callable[[Tensor, int], Tensor]


def full3d_network(condition: Tensor) -> Network:
    """eps = 0.6 x_t - 0.3 image + 0.2 mask + 0.1 t/1000 with the published index t, as x0 in [-1, 1]."""
    image, mask = condition[:, :1], condition[:, 1:2]
    abar = Schedule.linear().abar

    def denoise(x: Tensor, t: int) -> Tensor:
        eps = 0.6 * x - 0.3 * image + 0.2 * mask + 0.1 * (t - 1) / 1000
        return process.x0_from_eps(x, eps, abar[t]).clamp(-1, 1)

    return denoise


def wavelet_network(image: Tensor, mask: Tensor) -> Network:
    return lambda x, t: wavelet_clamp(0.5 * x + 0.3 * image - 0.2 * mask + 0.1 * (t - 1) / 1000)


def latent_network(condition: Tensor) -> Network:
    image, mask = condition[:, :8], condition[:, 8:]
    return lambda x, t: (0.5 * x + 0.4 * image - 0.3 * mask + 0.1 * (t - 1) / 1000).clamp(-1, 1)


def watched(network: Network, states: list[Tensor]) -> Network:
    def denoise(x: Tensor, t: int) -> Tensor:
        states.append(x)
        return network(x, t)

    return denoise


def test_full3d_trajectories_are_published(monkeypatch: pytest.MonkeyPatch) -> None:
    published = fixture("DDPM_3D_mem_eff")
    states: list[Tensor] = []
    schedule = Schedule.linear()
    network = full3d_network(published["traj_condition"])
    final = samplers.ddpm(
        watched(network, states),
        published["traj_initial_noise"],
        schedule.levels(10, "linspace"),
        schedule=schedule,
        generator=recorded(published["traj_step_noise"], monkeypatch),
        variance="fixed_large",
    )
    torch.testing.assert_close(torch.stack([*states[1:], final]), published["traj_samples"], **TOLERANCE)

    noise = published["full_step_noise"][:, None, None]
    final = samplers.ddpm(
        full3d_network(published["full_x_noisy"][:, :2]),
        noise[0],
        schedule.levels(1000),
        schedule=schedule,
        generator=recorded(noise[1:], monkeypatch),
        variance="fixed_large",
    )
    torch.testing.assert_close(final, published["full_final"], **TOLERANCE)


def test_wavelet_trajectories_are_published(monkeypatch: pytest.MonkeyPatch) -> None:
    published = fixture("WDM_3D")
    states: list[Tensor] = []
    schedule = Schedule.linear()
    network = wavelet_network(published["traj_image_dwt"], published["traj_mask_dwt"])
    for steps, noise in ((10, published["traj_step_noise"]), (1000, published["full_step_noise"][:, None])):
        final = samplers.ddpm(
            watched(network, states),
            published["traj_initial_noise"],
            schedule.levels(steps, "linspace"),
            schedule=schedule,
            generator=recorded(noise, monkeypatch),
            variance="fixed_large",
        )
        if steps == 10:
            found = torch.stack([*states[1:], final])
            torch.testing.assert_close(found, published["traj_samples"], **TOLERANCE)
    torch.testing.assert_close(final, published["full_final"], **TOLERANCE)


@pytest.mark.parametrize(("T", "prefix"), [(10, "traj"), (1000, "full")])
def test_latent_trajectories_are_published(T: int, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published = fixture("LDM_3D")
    schedule = Schedule.cosine(T)
    noise = published[f"{prefix}_noise"].reshape(T + 1, 1, *published[f"{prefix}_noise"].shape[-4:])
    final = samplers.ddpm(
        latent_network(published[f"{prefix}_condition"]),
        noise[0],
        schedule.levels(T),
        schedule=schedule,
        generator=recorded(noise[1:], monkeypatch),
    )
    expected = published["traj_samples"][-1] if prefix == "traj" else published["full_final"]
    torch.testing.assert_close(final, expected, **TOLERANCE)


@pytest.mark.parametrize("method", LEARNED_RANGE)
def test_learned_variance_trajectories_are_published(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first eight of ten states; then the published 2-D loops swap the sample for the prediction."""
    published = fixture(method)
    schedule = Schedule.linear()
    condition, states = published["traj_condition"], []
    offset = torch.zeros(())
    if method == "DDPM_2D_seq_pos":
        offset = -0.15 * condition[:, 2:3] + 0.05 * published["traj_slice_number"] / 100

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        states.append(x)
        eps = 0.6 * x - 0.3 * condition[:, :1] + 0.2 * condition[:, 1:2] + 0.1 * (t - 1) / 1000 + offset
        return process.x0_from_eps(x, eps, schedule.abar[t]).clamp(-1, 1), torch.sin(3 * x)

    samplers.ddpm(
        denoise,
        published["traj_initial_noise"],
        schedule.levels(10, "linspace"),
        schedule=schedule,
        generator=recorded(published["traj_step_noise"], monkeypatch),
    )
    torch.testing.assert_close(
        torch.stack(states)[:8], published["traj_network_inputs"][:8, :, -1:], **TOLERANCE
    )
