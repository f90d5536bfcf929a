"""The latent method: published arithmetic, published sampling, and what the default does better."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from neuromend.methods import latent3d
from neuromend.methods.latent3d import PRESETS, Latent3D, Latent3DConfig

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "parity" / "LDM_3D"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the fixtures beside the checkout are absent"
)
FIXTURE_CONFIG = Latent3DConfig(
    width=8, groups=8, codes=48, dim=8, voxel_stride=1, timesteps=10, sampler="published"
)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).norm() / expected.norm())


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def published() -> tuple[Latent3D, dict[str, Tensor]]:
    """The tiny published networks in one model, and the recorded diffusion."""
    weights = {"vqgan.codebook.initialised": torch.ones(1)}
    for folder, prefix in (("tiny_vqgan", "vqgan."), ("tiny_unet3d", "denoise_fn.")):
        for key, value in load_file(FIXTURES / folder / "weights.safetensors").items():
            if "discriminator" not in key:
                weights[prefix + key] = value.float()
    model = Latent3D(FIXTURE_CONFIG).eval()
    model.load_state_dict(weights)
    with np.load(FIXTURES / "diffusion.npz") as stored:
        arrays = {key: torch.from_numpy(stored[key]) for key in stored}
    return model, {k: v.float() if v.is_floating_point() else v for k, v in arrays.items()}


def replay(noise: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every draw of noise give the next recorded one."""
    draws: Iterator[Tensor] = iter(noise)
    monkeypatch.setattr(torch, "randn", lambda shape, **_: next(draws).reshape(shape))


def tiny(**changes: object) -> Latent3D:
    torch.manual_seed(1)
    return Latent3D(replace(PRESETS["tiny"], **changes)).eval()


def case(multiple: int) -> tuple[Tensor, Tensor, Tensor]:
    """(healthy, voided, mask) with distinct sides and a box to fill."""
    sides = (2 * multiple, 3 * multiple, 4 * multiple)
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in sides), indexing="ij")
    healthy = (0.6 + 0.3 * torch.sin(4 * x + 3 * y - 2 * z))[None, None]
    mask = torch.zeros_like(healthy)
    mask[..., 5:11, 6:15, 9:17] = 1
    return healthy, healthy * (1 - mask), mask


@pytest.mark.shared
@needs_fixtures
def test_the_training_loss_is_published() -> None:
    model, fixture = published()
    image, mask = fixture["train_x"].split(1, dim=1)
    condition, target = model.condition(image, mask), model.encode(fixture["train_gt"])
    assert relative_error(condition, fixture["train_condition_latent"]) < 1e-5
    assert relative_error(target, fixture["train_gt_latent"]) < 1e-5
    loss = model.latent_error(condition, target, fixture["train_t"] + 1, fixture["train_noise"]).mean()
    assert relative_error(loss, fixture["train_loss"]) < 1e-5


@pytest.mark.shared
@needs_fixtures
def test_the_loss_of_a_fixed_output_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fixture = published()
    model.schedule = latent3d.Schedule.cosine()
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        assert torch.equal(t, fixture["loss_t"])
        seen.append(x)
        return fixture["loss_model_output"]

    monkeypatch.setattr(model, "denoise_fn", torch.nn.Module())
    monkeypatch.setattr(model.denoise_fn, "forward", network)
    error = model.latent_error(
        fixture["loss_condition"], fixture["loss_gt"], fixture["loss_t"] + 1, fixture["loss_noise"]
    )
    assert relative_error(seen[0], fixture["loss_network_input"]) < 1e-6
    assert relative_error(error.mean(), fixture["loss_l1"]) < 1e-6


@pytest.mark.shared
@needs_fixtures
def test_sampling_from_end_to_end_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten steps amplify rounding: in float64 the recorded float32 latents are wrong by 5e-5 themselves.

    So are ours (7e-5); the codes are the same, and with them the volume.
    """
    model, fixture = published()
    image, mask = fixture["e2e_data"][0].split(1, dim=1)
    condition = model.condition(image, mask)
    assert relative_error(condition, fixture["e2e_condition_latent"]) < 1e-5
    replay(fixture["e2e_noise"], monkeypatch)
    with torch.inference_mode():
        latents = model.paint(condition, torch.zeros_like(mask), steps=10, generator=generator())
        volume = model.decode(latents)
    assert relative_error(latents, fixture["e2e_final_latent"]) < 2e-4
    assert relative_error(volume, fixture["e2e_output"]) < 1e-5


@pytest.mark.shared
@needs_fixtures
def test_names_at_published_size_are_published() -> None:
    entries = json.loads((FIXTURES / "published_parameters.json").read_text())
    autoencoder = {
        f"vqgan.{e['key']}"
        for e in entries["autoencoder"]["state_dict"]
        if not e["key"].startswith(("perceptual", "image_", "video_"))
    }
    denoiser = {e["key"] for e in entries["denoiser"]["state_dict"] if e["key"].startswith("denoise_fn.")}
    with torch.device("meta"):
        model = Latent3D(PRESETS["paper"])
    assert set(model.state_dict()) - {"vqgan.codebook.initialised"} == autoencoder | denoiser
    assert sum(p.numel() for p in model.parameters()) == 10_006_600


def test_the_autoencoder_is_kept_but_not_trained() -> None:
    model = tiny()
    assert not any(name.startswith("vqgan.") for name, _ in model.named_parameters())
    assert any(name.startswith("vqgan.encoder.") for name in model.state_dict())
    before = {key: value.clone() for key, value in model.vqgan.state_dict().items()}
    model.train()
    model.loss(*case(model.multiple), generator()).backward()
    assert all(torch.equal(value, before[key]) for key, value in model.vqgan.state_dict().items())


def test_latents_go_to_the_range_of_the_codebook_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    codes = model.vqgan.codebook.embeddings
    monkeypatch.setattr(model.vqgan, "encode", lambda volume: codes.T.reshape(1, 8, 4, 4, 4))
    latents = model.encode(torch.zeros(1, 1, 16, 16, 16))
    assert latents.min() == pytest.approx(-1, abs=1e-5)
    assert latents.max() == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr(model.vqgan, "decode", lambda latents: latents)
    torch.testing.assert_close(model.decode(latents), codes.T.reshape(1, 8, 4, 4, 4))


def test_the_fill_meets_the_known_tissue_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that is wrong by a constant and a slope leaves no trace."""
    model = tiny()
    healthy, voided, mask = case(model.multiple)
    slope = torch.linspace(0.1, 0.6, healthy.shape[2])[:, None, None]
    monkeypatch.setattr(model, "decode", lambda latents: 2 * (healthy + slope).flip(2, 3) - 1)
    filled = model.sample(voided, mask, steps=1, generator=generator())
    torch.testing.assert_close(filled, healthy, atol=2e-3, rtol=0)


def test_latents_far_from_the_hole_stay_those_of_the_known_tissue() -> None:
    model = tiny()
    condition, seen = torch.randn(1, 16, 4, 12, 8), torch.zeros(1, 1, 16, 48, 32)
    seen[..., 4:8, 8:10, 12:16] = 1
    with torch.inference_mode():
        latents = model.paint(condition, seen, steps=3, generator=generator())
    known = condition[:, :8]
    assert torch.equal(latents[..., 5:, :], known[..., 5:, :])
    assert (latents[..., :5, 1:6] != known[..., :5, 1:6]).all()


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp", "ddpm", "published"])
def test_every_sampler_fills_at_half_the_resolution(sampler: str) -> None:
    model = tiny(voxel_stride=2, sampler=sampler)
    _, voided, mask = case(model.multiple)
    filled = model.sample(voided, mask, steps=2, generator=generator())
    assert torch.isfinite(filled).all()
    assert torch.equal(filled[mask == 0], voided[mask == 0])


def test_a_straight_ramp_survives_the_way_to_half_resolution_and_back() -> None:
    model = tiny(voxel_stride=2)
    ramp = torch.arange(16.0)[None, None, :, None, None] + 2 * torch.arange(24.0)[:, None]
    ramp = (ramp + torch.zeros(32)).clone()
    image, seen = model.shrink(ramp, torch.zeros_like(ramp, dtype=torch.bool))
    assert image.shape == seen.shape == (1, 1, 8, 12, 16)
    back = model.enlarge(image)
    assert torch.equal(back[:, :, :-1, :-1], ramp[:, :, :-1, :-1])


def test_a_voxel_of_the_mask_between_samples_is_not_lost() -> None:
    model = tiny(voxel_stride=2)
    hole = torch.zeros(1, 1, 16, 24, 32, dtype=torch.bool)
    hole[..., 5, 7, 9] = True
    _, seen = model.shrink(torch.ones(hole.shape), hole)
    assert seen.sum() == 1


def test_the_published_sampler_takes_all_steps_unless_told_otherwise() -> None:
    assert tiny(sampler="published").default_steps == 1000
    assert tiny().default_steps == 20


def test_little_memory_gives_the_same_loss() -> None:
    plain, lean = tiny(), tiny(low_memory=True)
    lean.load_state_dict(plain.state_dict())
    volumes = case(plain.multiple)
    losses = [model.loss(*volumes, generator()) for model in (plain, lean)]
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-4)
