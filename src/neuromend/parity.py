"""Replay the published numbers: the same weights, inputs and noise must give the same outputs.

A parity folder holds one folder a method, each with any of ``published_parameters.json`` (names and shapes at full
size), ``tiny/`` (config.json, weights.safetensors, io.npz: inputs and outputs of a small network) and
``diffusion.npz`` (noising, losses, trajectories with a network in closed form). To add a method: one entry in
``PARITY``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neuromend.diffusion import process
from neuromend.diffusion.schedule import Schedule
from neuromend.diffusion.variational import variational_bound
from neuromend.errors import MissingInputError
from neuromend.networks.unet import SliceConv, UNet2D
from neuromend.networks.unet3d import Resampling, UNet3D
from neuromend.parity_latent import latent_rows
from neuromend.parity_rows import TOLERANCE, Arguments, Row, arrays, relative_error
from neuromend.parity_wavelet import wavelet_diffusion

__all__ = ["PARITY", "TOLERANCE", "Row", "relative_error", "replay"]


@dataclass(frozen=True, slots=True)
class Replay:
    """How the folder of a method with one network is replayed: called with it, gives the lines of the table.

    Attributes:
        method: its name here.
        build: the network, from the arguments in config.json.
        diffusion: the checks of ``diffusion.npz``: (part, error), given its arrays.
    """

    method: str
    build: Callable[[Arguments], nn.Module]
    diffusion: Callable[[dict[str, Tensor]], Iterator[tuple[str, float]]]

    def __call__(self, folder: Path) -> Iterator[Row]:
        """Every check for which the folder has files."""
        return _replay_method(folder, self)


def replay(folder: Path | str) -> Iterator[Row]:
    """Every check for which the folder has files, method by method.

    Raises:
        MissingInputError: IN-38, the folder has nothing to replay.
    """
    root, count = Path(folder), 0
    for name, rows in PARITY.items():
        if (root / name).is_dir():
            for row in rows(root / name):
                count += 1
                yield row
    if count == 0:
        raise MissingInputError(
            "IN-38",
            "there is nothing to replay here",
            why=f"a parity folder holds at least one of {', '.join(PARITY)}",
            fix="neuromend parity FOLDER_WITH_THE_FIXTURES",
            path=root,
        )


def _replay_method(folder: Path, entry: Replay) -> Iterator[Row]:
    facts = folder / "published_parameters.json"
    if facts.is_file():
        yield _names_and_shapes(json.loads(facts.read_text("utf-8")), entry)
    for config in sorted(folder.glob("tiny*/config.json")):
        yield from _outputs(config.parent, entry)
    if (folder / "diffusion.npz").is_file():
        for part, error in entry.diffusion(arrays(folder / "diffusion.npz")):
            yield Row(entry.method, part, error)
    if (folder / "temporal_conv.npz").is_file():
        error = _convolution_along_slices(arrays(folder / "temporal_conv.npz"))
        yield Row(entry.method, "convolution along slices", error)


def _names_and_shapes(facts: Arguments, entry: Replay) -> Row:
    with torch.device("meta"):
        network = entry.build(facts["resolved_constructor"])
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    same = ours == {item["key"]: item["shape"] for item in facts["state_dict"]}
    count = sum(parameter.numel() for parameter in network.parameters())
    return Row(entry.method, "names and shapes", 0.0 if same else float("inf"), count)


def _outputs(folder: Path, entry: Replay) -> Iterator[Row]:
    """Every case of io.npz; large outputs are stored at every second voxel."""
    network = entry.build(
        json.loads((folder / "config.json").read_text("utf-8"))["resolved_constructor"]
    ).eval()
    weights = load_file(folder / "weights.safetensors")
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    count = sum(parameter.numel() for parameter in network.parameters())
    data = arrays(folder / "io.npz")
    for case in sorted(key[2:] for key in data if key.startswith("x_")):
        arguments = [data[f"x_{case}"], data[f"timesteps_{case}"]]
        positions = data.get(f"slice_numbers_{case}")
        with torch.inference_mode():
            output = network(*arguments) if positions is None else network(*arguments, positions=positions)
        if f"out_{case}" in data:
            error = relative_error(output, data[f"out_{case}"])
        else:
            error = relative_error(output[..., ::2, ::2, ::2], data[f"out_{case}_every2"])
        yield Row(entry.method, f"network, case {case}", error, count)


def _convolution_along_slices(data: dict[str, Tensor]) -> float:
    layer = SliceConv(len(data["bias"]))
    layer.temporal_conv.load_state_dict({key: data[key] for key in ("weight", "bias")})
    depths = [int(key[2:]) for key in data if key.startswith("x_")]
    with torch.inference_mode():
        return max(relative_error(layer(data[f"x_{d}"], min(d, 16)), data[f"out_{d}"]) for d in depths)


def _noising(data: dict[str, Tensor], schedule: Schedule) -> Iterator[tuple[str, float]]:
    """Schedule, q(x_t | x_0) and the posterior; published index i is our level i + 1."""
    yield "betas", relative_error(schedule.betas, data["betas"])
    t, x0 = data["q_t"] + 1, data["q_x_start"]
    abar_s, abar_t = schedule.abar[t - 1], schedule.abar[t]
    xt = process.add_noise(x0, data["q_noise"], abar_t)
    yield "noising", relative_error(xt, data["q_x_t"])
    mean = process.posterior_mean(x0, xt, abar_s, abar_t)
    yield "posterior mean", relative_error(mean, data["q_posterior_mean"])
    variance = process.small_variance(abar_s, abar_t).float()
    yield "posterior variance", relative_error(variance, data["q_posterior_variance"].flatten(1)[:, 0])


def _bands(data: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    yield from _noising(data, Schedule.linear())
    yield from wavelet_diffusion(data)


def _noise_prediction(data: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    """One step and the losses of the methods that predict noise on the linear schedule."""
    schedule = Schedule.linear()
    yield from _noising(data, schedule)
    t, xt, output = data["pmv_t"] + 1, data["pmv_x"][:, -1:], data["pmv_model_output"]
    x0 = process.x0_from_eps(xt, output[:, :1], schedule.abar[t]).clamp(-1, 1)
    yield "clean prediction", relative_error(x0, data["pmv_clip1_pred_xstart"])
    mean = process.posterior_mean(x0, xt, schedule.abar[t - 1], schedule.abar[t])
    yield "step mean", relative_error(mean, data["pmv_clip1_mean"])
    eps, output, t = data["loss_noise"], data["loss_model_output"], data["loss_t"] + 1
    mse = (output[:, :1] - eps).square().flatten(1).mean(1)
    yield "loss, mse", relative_error(mse, data["loss_float32_mse"])
    if "loss_float64_vb" in data:
        x0 = data["loss_x_start"][:, -1:]
        xt = process.add_noise(x0, eps, schedule.abar[t])
        bound = variational_bound(output, x0, xt, t, schedule)
        yield "loss, variational bound", relative_error(bound, data["loss_float64_vb"])
        aliased = variational_bound(output, xt, xt, t, schedule)
        yield "loss, bound as released", relative_error(aliased, data["loss_float32_vb"])
    yield from _trajectories(data, schedule)


def _trajectories(data: dict[str, Tensor], schedule: Schedule) -> Iterator[tuple[str, float]]:
    """The recorded ancestral walks, with the recorded noise and the network in closed form."""
    learned = data["pmv_model_output"].shape[1] == 2
    walks = {"10": ("traj_condition", data["traj_initial_noise"], data["traj_step_noise"], "traj_samples")}
    if learned:
        full = data["full_step_noise"][:, None, None]
        walks["1000"] = ("full_network_input_call0", full[0], full[1:], "full_final")
    for name, (condition_key, x, draws, final_key) in walks.items():
        condition = data[condition_key] if name == "10" else data[condition_key][:, :-1]
        levels = schedule.levels(int(name), "linspace")
        for k, (t, s) in enumerate(pairwise(levels)):
            output = closed_form(torch.cat([condition, x], dim=1), t - 1, data)
            x0 = process.x0_from_eps(x, output[:, :1], schedule.abar[t]).clamp(-1, 1)
            if s == 0 or (learned and k >= len(levels) - 4):
                x = x0
                continue
            abar_s, abar_t = schedule.abar[s], schedule.abar[t]
            large = process.large_variance(abar_s, abar_t)
            small = process.small_variance(abar_s, abar_t)
            variance = process.learned_range_variance(output[:, 1:], small, large) if learned else large
            std = torch.as_tensor(variance).sqrt()
            x = (process.posterior_mean(x0, x, abar_s, abar_t) + std * draws[k]).to(x.dtype)
        final = data[final_key][-1] if name == "10" else data[final_key]
        yield f"trajectory of {name} steps", relative_error(x, final)


def closed_form(x: Tensor, index: int, data: Mapping[str, Tensor]) -> Tensor:
    """The network of the recorded trajectories, which are the same for all methods that predict noise."""
    eps = 0.6 * x[:, -1:] - 0.3 * x[:, :1] + 0.2 * x[:, 1:2] + 0.1 * index / 1000
    if "traj_slice_number" in data:
        eps = eps - 0.15 * x[:, 2:3] + 0.05 * float(data["traj_slice_number"]) / 100
    return torch.cat([eps, torch.sin(3 * x[:, -1:])], dim=1)


def _unet2d(arguments: Arguments, *, pseudo_3d: bool = False) -> nn.Module:
    return UNet2D(
        arguments["in_channels"],
        arguments["out_channels"],
        arguments["model_channels"],
        arguments["channel_mult"],
        arguments["num_res_blocks"],
        arguments["attention_resolutions"],
        pseudo_3d=pseudo_3d,
    )


def _unet3d(arguments: Arguments, *, resampling: Resampling = "conv") -> nn.Module:
    network = UNet3D(
        arguments["in_channels"],
        arguments["out_channels"],
        width=arguments["model_channels"],
        multipliers=tuple(arguments["channel_mult"]),
        blocks=arguments["num_res_blocks"],
        groups=arguments["num_groups"],
        resampling=resampling,
    )
    # As the methods hold it; contiguous 3-D convolutions on CPUs lose a digit (6e-5 of the norm).
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


PARITY: dict[str, Callable[[Path], Iterator[Row]]] = {
    "DDPM_2D_slice_wise": Replay("slice2d", _unet2d, _noise_prediction),
    "DDPM_2D_seq_pos": Replay("sequential2d", _unet2d, _noise_prediction),
    "DDPM_Pseudo3D": Replay("pseudo3d", partial(_unet2d, pseudo_3d=True), _noise_prediction),
    "DDPM_3D_mem_eff": Replay("full3d", _unet3d, _noise_prediction),
    "WDM_3D": Replay("wavelet3d", partial(_unet3d, resampling="residual"), _bands),
    "LDM_3D": latent_rows,
}
"""Folder -> how to replay it."""
