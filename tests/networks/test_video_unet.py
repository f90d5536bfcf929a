"""The denoiser of the latent method: published outputs, and the same with little memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from neuromend.networks.video_attention import RelativePositionBias
from neuromend.networks.video_unet import VideoUNet, sinusoidal_embedding

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "parity" / "LDM_3D"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the fixtures beside the checkout are absent"
)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def arrays(part: str) -> dict[str, Tensor]:
    with np.load(FIXTURES / part / "io.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def small(*, low_memory: bool) -> VideoUNet:
    torch.manual_seed(0)
    return VideoUNet(6, 2, 16, (1, 2), low_memory=low_memory)


@pytest.mark.shared
@needs_fixtures
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("case", [0, 1, 2])
def test_outputs_are_published(case: int, low_memory: bool) -> None:
    weights = {k: v.float() for k, v in load_file(FIXTURES / "tiny_unet3d" / "weights.safetensors").items()}
    network = VideoUNet(24, 8, 8, (1, 2, 4, 8), low_memory=low_memory)
    network.load_state_dict(weights)
    io = arrays("tiny_unet3d")
    with torch.inference_mode():
        found = network(io[f"x_{case}"].float(), io[f"timesteps_{case}"])
    assert relative_error(found, io[f"out_{case}"]) < 1e-5


@pytest.mark.shared
@needs_fixtures
def test_embeddings_of_time_and_distance_are_published() -> None:
    io = arrays("tiny_unet3d")
    bias = RelativePositionBias()
    weights = load_file(FIXTURES / "tiny_unet3d" / "weights.safetensors")
    bias.load_state_dict(
        {
            "relative_attention_bias.weight": weights[
                "time_rel_pos_bias.relative_attention_bias.weight"
            ].float()
        }
    )
    for frames in (8, 40):
        torch.testing.assert_close(bias(frames), io[f"relative_position_bias_n{frames}"])
    t = torch.tensor([0, 1, 500, 999])
    torch.testing.assert_close(sinusoidal_embedding(t, 8), io["time_embedding_sinusoidal_t_0_1_500_999"])


@pytest.mark.shared
@needs_fixtures
def test_names_and_shapes_at_published_size_are_published() -> None:
    entries = json.loads((FIXTURES / "published_parameters.json").read_text())["denoiser"]["state_dict"]
    prefix = "denoise_fn."
    published = {e["key"][len(prefix) :]: e["shape"] for e in entries if e["key"].startswith(prefix)}
    with torch.device("meta"):
        network = VideoUNet(24, 8, 32, (1, 2, 4, 8), low_memory=False)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published
    assert sum(p.numel() for p in network.parameters()) == 10_006_600


def test_little_memory_gives_the_same_output_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromend.networks.video_attention.TOKENS_AT_ONCE", 20)
    x, t = torch.randn(2, 6, 3, 4, 8), torch.tensor([7, 400])
    results = []
    for low_memory in (False, True):
        network = small(low_memory=low_memory)
        out = network(x, t)
        out.square().mean().backward()
        results.append((out.detach(), [p.grad for p in network.parameters()]))
    (plain, gradients), (lean, lean_gradients) = results
    torch.testing.assert_close(lean, plain, atol=1e-5, rtol=1e-5)
    for a, b in zip(gradients, lean_gradients, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)


def test_frames_know_of_each_other_through_attention_alone() -> None:
    network = small(low_memory=False).eval()
    x, t = torch.randn(1, 6, 5, 4, 8), torch.tensor([3])
    changed = x.clone()
    changed[:, :, 4] += 1
    with torch.no_grad():
        first, second = network(x, t), network(changed, t)
    assert not torch.equal(first[:, :, 0], second[:, :, 0])


def test_half_precision_stays_close() -> None:
    network = small(low_memory=False).eval()
    x, t = torch.randn(2, 6, 3, 4, 8), torch.tensor([7, 400])
    with torch.no_grad():
        exact = network(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            fast = network(x, t).float()
    assert relative_error(fast, exact) < 0.05
