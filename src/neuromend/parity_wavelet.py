"""The recorded diffusion of WDM_3D: Haar bands, losses band by band, and both recorded walks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from neuromend.diffusion.process import large_variance, posterior_mean
from neuromend.methods.wavelet3d import SCHEDULE, Wavelet3D, Wavelet3DConfig, from_bands, to_bands
from neuromend.parity_rows import recorded_walk, relative_error
from neuromend.wavelets import haar, inverse_haar

BANDS = ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH")


class _Answer(nn.Module):
    """A network that gives one tensor, whatever it is asked; keeps its last input."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.asked = answer, answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked = x
        return self.answer.expand(len(x), -1, -1, -1, -1)


class _ClosedForm(nn.Module):
    """The network of the recorded walks."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = 0.1 * t.float()[:, None, None, None, None] / 1000
        return 0.5 * x[:, :8] + 0.3 * x[:, 8:16] - 0.2 * x[:, 16:] + time


def wavelet_diffusion(data: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    """Everything in the arrays of ``WDM_3D/diffusion.npz`` but the noising, which all methods share."""
    volume = data["dwt_input"]
    found = haar(volume[:, :1]), haar(volume[:, 1:2])
    expected = torch.stack([data[f"dwt_{name}"] for name in BANDS], dim=2)
    yield "bands", relative_error(torch.stack(found, dim=1), expected)
    yield "bands to volume", relative_error(inverse_haar(data["idwt_input_bands"]), data["idwt_output"])

    method = Wavelet3D(Wavelet3DConfig(width=2, multipliers=(1,), blocks=1, groups=1, sampler="published"))
    yield from _step(method, data)
    yield from _losses(method, data)
    method.network = _ClosedForm()
    condition = torch.cat((data["traj_image_dwt"], data["traj_mask_dwt"]), dim=1)
    denoise = method.denoiser(condition, None)
    for steps, draws, final in (
        (10, data["traj_step_noise"], "traj_final_image_01"),
        (1000, data["full_step_noise"], "full_final_image_01"),
    ):
        bands = recorded_walk(
            denoise, data["traj_initial_noise"], draws,
            SCHEDULE.levels(steps, "linspace"), SCHEDULE, large_variance,
        )  # fmt: skip
        yield f"trajectory of {steps} steps", relative_error((from_bands(bands) + 1) / 2, data[final])


def _step(method: Wavelet3D, data: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    """The clean prediction, clamped in image space, and the mean of one step, at four levels."""
    condition = torch.cat((data["pmv_input_masked"], data["pmv_mask"]), dim=1)
    clean, means = [], []
    for k, index in enumerate(data["pmv_t"].tolist()):
        one = slice(k, k + 1)
        method.network = _Answer(data["pmv_model_output"][one])
        clean.append(method.denoiser(condition[one], None)(data["pmv_x"][one], index + 1))
        abar = SCHEDULE.abar[index].item(), SCHEDULE.abar[index + 1].item()
        means.append(posterior_mean(clean[-1], data["pmv_x"][one], *abar))
    yield "clean prediction", relative_error(torch.cat(clean), data["pmv_clip1_pred_xstart"])
    yield "step mean", relative_error(torch.cat(means), data["pmv_clip1_mean"])


def _losses(method: Wavelet3D, data: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    network = _Answer(data["loss_model_output"])
    method.network = network
    count = len(data["loss_t"])
    voided, mask, truth = (
        to_bands(data["loss_x_start"][:, c : c + 1]).expand(count, -1, -1, -1, -1) for c in range(3)
    )
    noise = haar(data["loss_noise_image_space"]).expand(count, -1, -1, -1, -1)
    errors = method.band_errors(truth, torch.cat((voided, mask), dim=1), data["loss_t"] + 1, noise)
    yield "input of the network", relative_error(network.asked, data["loss_network_input"])
    yield "loss, each band", relative_error(errors, data["loss_mse_wav"])
    yield "loss", relative_error(errors.mean(1), data["loss_total"])
