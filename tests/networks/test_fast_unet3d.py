"""The fast U-Net: shapes, layout, where gradients are, and that its statistics stay in one voxel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.networks.fast_unet3d import (
    ChannelNorm,
    FastUNet3D,
    ResidualBlock,
    noise_embedding,
    repeat_twice,
)


def small_network() -> FastUNet3D:
    """Three levels, all widths and counts distinct: 5 channels in, 7 out."""
    torch.manual_seed(3)
    return FastUNet3D(5, 7, widths=(6, 8, 10), blocks=(1, 2, 3), embedding=12)


def volume(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(8))


def test_the_output_has_the_shape_of_the_input_with_its_own_channels() -> None:
    out = small_network()(volume(3, 5, 4, 8, 12), torch.tensor([-9.0, 0.0, 5.0]))
    assert out.shape == (3, 7, 4, 8, 12)
    assert torch.isfinite(out).all()


def test_an_input_of_any_layout_gives_the_same_output() -> None:
    network = small_network()
    x, log_snr = volume(2, 5, 4, 8, 12), torch.tensor([1.0, -3.0])
    last = network(x.contiguous(memory_format=torch.channels_last_3d), log_snr)
    torch.testing.assert_close(network(x, log_snr), last)
    assert last.is_contiguous(memory_format=torch.channels_last_3d)


def test_bfloat16_autocast_stays_near_float32() -> None:
    network = small_network()
    x, log_snr = volume(2, 5, 4, 8, 12), torch.tensor([1.0, -3.0])
    exact = network(x, log_snr)
    with torch.autocast("cpu", torch.bfloat16):
        fast = network(x, log_snr)
    assert fast.dtype == torch.bfloat16
    assert (fast.float() - exact).norm() < 0.02 * exact.norm()


def test_at_the_start_only_the_noise_embedding_gets_no_gradient() -> None:
    """FiLM starts at zero, so the first gradient stops there; the second step reaches the embedding."""
    network = small_network()
    x, log_snr = volume(2, 5, 4, 8, 12), torch.tensor([1.0, -3.0])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for silent in ({"embed.0.weight", "embed.0.bias", "embed.2.weight", "embed.2.bias"}, set()):
        optimiser.zero_grad()
        network(x, log_snr).square().mean().backward()
        without = {
            name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
        }
        assert without == silent
        optimiser.step()


def test_the_noise_level_matters_once_trained_and_not_before() -> None:
    network = small_network()
    x = volume(1, 5, 4, 8, 12)
    low, high = (network(x, torch.tensor([s])) for s in (-10.0, 10.0))
    assert torch.equal(low, high)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.normal_(module.modulate.weight, std=0.1)
    low, high = (network(x, torch.tensor([s])) for s in (-10.0, 10.0))
    assert (low - high).abs().max() > 1e-3


def test_a_crop_and_the_whole_volume_agree_away_from_the_cut() -> None:
    """No statistics over space: what is trained on crops is right for whole brains.

    How far a voxel is felt: stem 1 and block 2 on the way down, pooling 1 and twice a block's 2 on the coarse
    grid, block 2 and head 1 on the way up; 11 voxels.
    """
    torch.manual_seed(3)
    network = FastUNet3D(2, 3, widths=(4, 6), blocks=(1, 1), embedding=8)
    whole, log_snr = volume(1, 2, 4, 6, 48), torch.tensor([0.5])
    torch.testing.assert_close(
        network(whole[..., :32], log_snr)[..., :20], network(whole, log_snr)[..., :20], atol=1e-5, rtol=1e-5
    )


def test_channel_norm_normalises_the_channels_of_one_voxel() -> None:
    norm, x = ChannelNorm(4), 3 + 2 * volume(2, 4, 3, 5, 6)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    voxel = x[1, :, 2, 3, 4]
    expected = (voxel - voxel.mean()) / (voxel.var(unbiased=False) + 1e-5).sqrt()
    expected = expected * norm.weight + norm.bias
    torch.testing.assert_close(norm(x)[1, :, 2, 3, 4], expected)


def test_repeating_is_nearest_neighbour_and_the_adjoint_of_pooling() -> None:
    x = volume(2, 3, 2, 4, 5)
    torch.testing.assert_close(repeat_twice(x), F.interpolate(x, scale_factor=2, mode="nearest"))
    y = volume(2, 3, 4, 8, 10)
    torch.testing.assert_close((repeat_twice(x) * y).sum(), 8 * (x * F.avg_pool3d(y, 2)).sum())


def test_repeating_keeps_the_channels_last() -> None:
    x = volume(2, 3, 2, 4, 5).contiguous(memory_format=torch.channels_last_3d)
    assert repeat_twice(x).is_contiguous(memory_format=torch.channels_last_3d)


def test_the_noise_embedding_has_the_stated_frequencies() -> None:
    log_snr = torch.tensor([-10.0, 0.0, 10.0])
    embedding = noise_embedding(log_snr, 6)
    assert embedding.shape == (3, 6)
    for k, cycles in enumerate((0.25, math.sqrt(0.25 * 8), 8.0)):  # over the 20 units from -10 to 10
        angle = 2 * math.pi * cycles * log_snr / 20
        torch.testing.assert_close(embedding[:, k], torch.cos(angle), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(embedding[:, 3 + k], torch.sin(angle), atol=1e-5, rtol=1e-5)


def test_neighbouring_noise_levels_are_told_apart() -> None:
    grid = torch.linspace(-10, 10, 41)
    distance = torch.cdist(noise_embedding(grid, 16), noise_embedding(grid, 16))
    assert (distance + 9 * torch.eye(41)).min() > 0.3
