"""The VQ-GAN: published outputs, a codebook that learns, little memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from neuromend.networks.autoencoder import VQGAN
from neuromend.networks.autoencoder_loss import (
    ADVERSARIES_FROM_STEP,
    Discriminators,
    autoencoder_loss,
    discriminator_loss,
)
from neuromend.networks.codebook import Codebook

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "parity" / "LDM_3D"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the fixtures beside the checkout are absent"
)
JUDGES = ("image_discriminator", "video_discriminator")


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def published_weights() -> dict[str, Tensor]:
    stored = load_file(FIXTURES / "tiny_vqgan" / "weights.safetensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}


def published_io() -> dict[str, Tensor]:
    with np.load(FIXTURES / "tiny_vqgan" / "io.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def small(*, low_memory: bool = False) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(4, 2, 4, 32, 5, low_memory=low_memory)


@pytest.fixture
def thin_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several slabs in small volumes, the last one thinner."""
    monkeypatch.setattr("neuromend.networks.autoencoder.SLAB", 6)


@pytest.mark.shared
@needs_fixtures
@pytest.mark.usefixtures("thin_slabs")
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("case", [0, 1, 2])
def test_latents_codes_and_volumes_are_published(case: int, low_memory: bool) -> None:
    io = published_io()
    weights = {k: v for k, v in published_weights().items() if not k.startswith(JUDGES)}
    network = VQGAN(8, 2, 8, 48, 8, low_memory=low_memory).eval()
    network.load_state_dict(weights | {"codebook.initialised": torch.ones(1)})
    with torch.inference_mode():
        latents = network.encode(io[f"x_{case}"].float())
        volume = network.decode(io[f"latent_{case}"])
    assert relative_error(latents, io[f"latent_{case}"]) < 1e-5
    assert relative_error(volume, io[f"decode_of_latent_{case}"]) < 1e-5
    assert torch.equal(network.codebook.nearest(latents), io[f"encodings_{case}"].long())


@pytest.mark.shared
@needs_fixtures
def test_logits_of_both_discriminators_are_published() -> None:
    io, judges = published_io(), Discriminators(4).eval()
    judges.load_state_dict({k: v for k, v in published_weights().items() if k.startswith(JUDGES)})
    with torch.inference_mode():
        flat, _ = judges.image_discriminator(io["disc2d_x"].float())
        solid, _ = judges.video_discriminator(io["disc3d_x"].float())
    assert relative_error(flat, io["disc2d_logits"]) < 1e-5
    assert relative_error(solid, io["disc3d_logits"]) < 1e-5


@pytest.mark.shared
@needs_fixtures
def test_names_and_shapes_at_published_size_are_published() -> None:
    part = json.loads((FIXTURES / "published_parameters.json").read_text())["autoencoder"]
    published = {
        e["key"]: e["shape"] for e in part["state_dict"] if not e["key"].startswith("perceptual_model.")
    }
    with torch.device("meta"):
        network, judges = VQGAN(16, 2, 32, 16384, 8, low_memory=False), Discriminators()
    ours = {key: list(value.shape) for key, value in (network.state_dict() | judges.state_dict()).items()}
    assert ours.pop("codebook.initialised") == [1]
    assert ours == published
    assert sum(p.numel() for p in network.parameters()) == part["parameters_encoder_decoder_pre_post"]


@pytest.mark.usefixtures("thin_slabs")
def test_little_memory_gives_the_same_volume_and_gradients() -> None:
    volume, results = torch.randn(2, 1, 20, 8, 12), []
    for low_memory in (False, True):
        network = small(low_memory=low_memory)
        made = network(volume, generator())
        (made.image.square().mean() + made.commitment).backward()
        results.append((made.image.detach(), [p.grad for p in network.parameters()]))
    (plain, gradients), (lean, lean_gradients) = results
    torch.testing.assert_close(lean, plain, atol=1e-5, rtol=1e-5)
    for a, b in zip(gradients, lean_gradients, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-3)


def test_codes_come_from_the_first_latents_and_only_once() -> None:
    book, first, second = Codebook(4, 3), torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    book.initialise(first, generator())
    codes = book.embeddings.clone()
    rows = first.movedim(1, -1).flatten(0, -2)
    assert all((rows == code).all(1).any() for code in codes)
    book.initialise(second, generator())
    assert torch.equal(book.embeddings, codes)


def test_training_that_goes_on_from_a_file_keeps_its_codes() -> None:
    network, volume = small().train(), torch.randn(1, 1, 8, 12, 16)
    network(volume, generator())
    resumed = small().train()
    resumed.load_state_dict(network.state_dict())
    before = resumed.codebook.embeddings.clone()
    resumed.codebook.initialise(torch.full((1, 5, 2, 3, 4), 9.0), generator())
    assert torch.equal(resumed.codebook.embeddings, before)


def test_a_code_moves_to_the_mean_of_the_latents_that_choose_it() -> None:
    book = Codebook(2, 1)
    cloud = torch.tensor([-2.0, -1.0, 3.0, 5.0]).repeat(8).reshape(1, 1, 2, 4, 4)
    book.embeddings.copy_(torch.tensor([[-0.5], [1.5]]))
    book.z_avg.copy_(book.embeddings)
    book.N.fill_(1)
    for _ in range(800):
        book.update(cloud, book.nearest(cloud), generator())
    torch.testing.assert_close(book.embeddings, torch.tensor([[-1.5], [4.0]]), atol=2e-3, rtol=0)


def test_a_code_that_nothing_chooses_becomes_a_latent_and_stays_in_use() -> None:
    book = Codebook(2, 1)
    book.embeddings.copy_(torch.tensor([[0.0], [50.0]]))
    book.z_avg.copy_(book.embeddings)
    book.N.fill_(1)
    latents = torch.linspace(-1, 1, 24).reshape(1, 1, 2, 3, 4)
    book.update(latents, book.nearest(latents), generator())
    assert book.embeddings.abs().max() <= 1
    book.update(latents, book.nearest(latents), generator())
    assert book.embeddings.abs().max() <= 1


def test_codes_stay_in_evaluation_mode() -> None:
    network = small().eval()
    before = network.codebook.embeddings.clone()
    network(torch.randn(1, 1, 8, 12, 16), generator())
    assert torch.equal(network.codebook.embeddings, before)


def test_adversaries_are_silent_until_their_step() -> None:
    network, judges, volume = small().train(), Discriminators(2), torch.rand(2, 1, 16, 20, 24)
    made = network(volume, generator())
    early = autoencoder_loss(made, volume, judges, step=ADVERSARIES_FROM_STEP - 1, generator=generator())
    assert early.gan == 0
    assert early.features == 0
    torch.testing.assert_close(early.total, 4 * (made.image - volume).abs().mean() + made.commitment)
    assert discriminator_loss(made, volume, judges, step=0, generator=generator()) == 0


def test_every_part_of_the_losses_has_a_gradient() -> None:
    network, judges, volume = small().train(), Discriminators(2), torch.rand(2, 1, 16, 20, 24)
    made, step = network(volume, generator()), ADVERSARIES_FROM_STEP
    autoencoder_loss(made, volume, judges, step=step, generator=generator()).total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    judges.zero_grad()
    network.zero_grad()
    discriminator_loss(made, volume, judges, step=step, generator=generator()).backward()
    assert all(p.grad is not None for p in judges.parameters())
    assert all(p.grad is None for p in network.parameters())


def test_a_volume_can_be_learnt_by_heart() -> None:
    network, judges = small().train(), Discriminators(2)
    x, y, z = torch.meshgrid(
        torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 16), indexing="ij"
    )
    volume = torch.sin(3 * x + 2 * y * z)[None, None]
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    errors = []
    for step in range(40):
        loss = autoencoder_loss(
            network(volume, generator(step)), volume, judges, step=step, generator=generator()
        )
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        errors.append(loss.l1.item())
    assert errors[-1] < 0.5 * errors[0]
