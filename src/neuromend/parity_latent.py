"""The recorded numbers of LDM_3D: two networks, their judges, the cosine diffusion, and both of them end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from neuromend.diffusion import process
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.latent3d import PRESETS, Latent3D, Latent3DConfig
from neuromend.networks.autoencoder import VQGAN
from neuromend.networks.autoencoder_loss import Discriminators
from neuromend.networks.video_unet import VideoUNet
from neuromend.parity_rows import Arguments, Row, arrays, recorded_walk, relative_error

METHOD = "latent3d"
JUDGES = ("image_discriminator.", "video_discriminator.")
INITIALISED = {"codebook.initialised": torch.ones(1)}
"""A buffer of ours: the published codebook is one that has been trained."""

ROUNDING = 2e-4
"""Tolerance of the latents after ten steps through two networks, which amplify the rounding of float32: the recorded
ones are themselves wrong by 5e-5 of their norm in float64. The codes, and with them the volume, are the same."""


def latent_rows(folder: Path) -> Iterator[Row]:
    """Every check for which the folder has files."""
    for part, error, *tolerance in _checks(folder):
        yield Row(METHOD, part, error, None, *tolerance)


def _checks(folder: Path) -> Iterator[tuple[str, float] | tuple[str, float, float]]:
    if (folder / "published_parameters.json").is_file():
        yield (
            "names and shapes",
            _names_and_shapes(json.loads((folder / "published_parameters.json").read_text())),
        )
    for part, replay in (("tiny_vqgan", _autoencoder), ("tiny_unet3d", _denoiser)):
        if (folder / part / "config.json").is_file():
            yield from replay(folder / part)
    if (folder / "diffusion.npz").is_file():
        data = {
            k: v.float() if v.is_floating_point() else v for k, v in arrays(folder / "diffusion.npz").items()
        }
        yield from _diffusion(data)
        if all((folder / part / "weights.safetensors").is_file() for part in ("tiny_vqgan", "tiny_unet3d")):
            yield from _end_to_end(folder, data)


def _names_and_shapes(facts: Arguments) -> float:
    """0 if all names and shapes at full size agree, else infinite; LPIPS is not ours."""
    published = {
        **{f"vqgan.{e['key']}": e["shape"] for e in facts["autoencoder"]["state_dict"]},
        **{
            e["key"]: e["shape"]
            for e in facts["denoiser"]["state_dict"]
            if e["key"].startswith("denoise_fn.")
        },
    }
    with torch.device("meta"):
        model, judges = Latent3D(PRESETS["paper"]), Discriminators()
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    ours |= {f"vqgan.{key}": list(value.shape) for key, value in judges.state_dict().items()}
    del ours["vqgan.codebook.initialised"]
    same = ours == {k: v for k, v in published.items() if not k.startswith("vqgan.perceptual_model.")}
    return 0.0 if same else float("inf")


def _weights(folder: Path) -> dict[str, Tensor]:
    stored = load_file(folder / "weights.safetensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}


@torch.inference_mode()
def _autoencoder(folder: Path) -> Iterator[tuple[str, float]]:
    size = json.loads((folder / "config.json").read_text())["model"]
    weights, data = _weights(folder), arrays(folder / "io.npz")
    levels = int(size["downsample"][0]).bit_length() - 1
    network = VQGAN(
        size["n_hiddens"],
        levels,
        size["num_groups"],
        size["n_codes"],
        size["embedding_dim"],
        low_memory=False,
    ).eval()
    network.load_state_dict({k: v for k, v in weights.items() if not k.startswith(JUDGES)} | INITIALISED)
    for case in sorted(key[2:] for key in data if key.startswith("x_")):
        latent = data[f"latent_{case}"]
        yield f"latents, case {case}", relative_error(network.encode(data[f"x_{case}"].float()), latent)
        yield f"volume, case {case}", relative_error(network.decode(latent), data[f"decode_of_latent_{case}"])
    judges = Discriminators(size["disc_channels"]).eval()
    judges.load_state_dict({k: v for k, v in weights.items() if k.startswith(JUDGES)})
    flat, _ = judges.image_discriminator(data["disc2d_x"].float())
    solid, _ = judges.video_discriminator(data["disc3d_x"].float())
    yield "judge of slices", relative_error(flat, data["disc2d_logits"])
    yield "judge of volumes", relative_error(solid, data["disc3d_logits"])


@torch.inference_mode()
def _denoiser(folder: Path) -> Iterator[tuple[str, float]]:
    size = json.loads((folder / "config.json").read_text())
    width = size["channels"] // 2  # image and mask
    network = VideoUNet(3 * width, width, size["dim"], tuple(size["dim_mults"]), low_memory=False).eval()
    network.load_state_dict(_weights(folder))
    data = arrays(folder / "io.npz")
    for case in sorted(key[2:] for key in data if key.startswith("x_")):
        found = network(data[f"x_{case}"].float(), data[f"timesteps_{case}"])
        yield f"network, case {case}", relative_error(found, data[f"out_{case}"])


def _diffusion(data: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    """Schedule, noising, one step, loss, and the walks with the network in closed form."""
    schedule = Schedule.cosine()
    yield "betas", relative_error(schedule.betas, data["buffer_betas"])
    t = data["loss_t"] + 1
    xt = process.add_noise(data["loss_gt"], data["loss_noise"], schedule.abar[t])
    yield "noising", relative_error(xt, data["q_x_t"])
    error = (data["loss_model_output"] - data["loss_gt"]).abs().mean()
    yield "loss", relative_error(error, data["loss_l1"])
    t = data["pmv_t"] + 1
    x0 = data["pmv_model_output_x0"].clamp(-1, 1)
    mean = process.posterior_mean(x0, data["pmv_x_t"], schedule.abar[t - 1], schedule.abar[t])
    yield "step mean", relative_error(mean, data["pmv_clip1_mean"])
    for steps, prefix in ((10, "traj"), (1000, "full")):
        condition, noise = data[f"{prefix}_condition"], data[f"{prefix}_noise"]
        image, mask = condition.chunk(2, dim=1)

        def denoise(x: Tensor, t: int, image: Tensor = image, mask: Tensor = mask) -> Tensor:
            return (0.5 * x + 0.4 * image - 0.3 * mask + 0.1 * (t - 1) / 1000).clamp(-1, 1)

        schedule = Schedule.cosine(steps)
        final = recorded_walk(
            denoise, noise[0].reshape(image.shape), noise[1:],
            schedule.levels(steps), schedule, process.small_variance,
        )  # fmt: skip
        expected = data["traj_samples"][-1] if steps == 10 else data["full_final"]
        yield f"trajectory of {steps} steps", relative_error(final, expected)


@torch.inference_mode()
def _end_to_end(
    folder: Path, data: dict[str, Tensor]
) -> Iterator[tuple[str, float] | tuple[str, float, float]]:
    """Training loss and sampling through both tiny networks."""
    codes = json.loads((folder / "tiny_vqgan" / "config.json").read_text())["model"]
    sizes = json.loads((folder / "tiny_unet3d" / "config.json").read_text())
    steps = len(data["e2e_noise"]) - 1
    model = Latent3D(
        Latent3DConfig(
            width=codes["n_hiddens"], groups=codes["num_groups"], codes=codes["n_codes"], dim=sizes["dim"],
            dim_mults=tuple(sizes["dim_mults"]), voxel_stride=1, timesteps=steps, sampler="published",
        )
    ).eval()  # fmt: skip
    weights = {
        f"vqgan.{k}": v for k, v in _weights(folder / "tiny_vqgan").items() if not k.startswith(JUDGES)
    }
    weights |= {f"denoise_fn.{k}": v for k, v in _weights(folder / "tiny_unet3d").items()}
    model.load_state_dict(weights | {f"vqgan.{k}": v for k, v in INITIALISED.items()})

    image, mask = data["train_x"].chunk(2, dim=1)
    condition, target = model.condition(image, mask), model.encode(data["train_gt"])
    loss = model.latent_error(condition, target, data["train_t"] + 1, data["train_noise"]).mean()
    yield "training loss, end to end", relative_error(loss, data["train_loss"])

    image, mask = data["e2e_data"][0].chunk(2, dim=1)
    condition = model.condition(image, mask)
    yield "condition, end to end", relative_error(condition, data["e2e_condition_latent"])

    def denoise(xt: Tensor, t: int) -> Tensor:
        found: Tensor = model.denoise_fn(torch.cat((condition, xt), dim=1), torch.tensor([t - 1]))
        return found.clamp(-1, 1)

    noise = data["e2e_noise"]
    latents = recorded_walk(
        denoise, noise[0], noise[1:], model.schedule.levels(steps), model.schedule, process.small_variance
    )
    yield "latents, end to end", relative_error(latents, data["e2e_final_latent"]), ROUNDING
    yield "volume, end to end", relative_error(model.decode(latents), data["e2e_output"])
