"""Group normalisation against torch's own, in float32 and in bfloat16, with its derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuromend.networks.normalisation import GroupNorm

LAYOUTS = {
    "contiguous slices": ((3, 8, 6, 10), torch.contiguous_format),
    "channels-last slices": ((3, 8, 6, 10), torch.channels_last),
    "channels-last volumes": ((2, 8, 4, 6, 10), torch.channels_last_3d),
}


def run(norm: nn.GroupNorm, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """Output, and gradients of the input, the weight and the bias."""
    x = x.clone().requires_grad_()
    out = norm(x)
    return [out, *torch.autograd.grad(out, (x, norm.weight, norm.bias), gradient)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [2, 8])
def test_bfloat16_gives_the_values_and_gradients_of_float32(layout: str, groups: int) -> None:
    shape, memory = LAYOUTS[layout]
    torch.manual_seed(groups)
    ours, reference = GroupNorm(groups, 8), nn.GroupNorm(groups, 8)
    for norm in (ours, reference):
        norm.weight.data = torch.linspace(0.5, 2, 8)
        norm.bias.data = torch.linspace(-1, 1, 8)
    x = (2 * torch.randn(shape) + 1).bfloat16().contiguous(memory_format=memory)
    gradient = torch.randn(shape).bfloat16().contiguous(memory_format=memory)
    found, expected = run(ours, x, gradient), run(reference, x.float(), gradient.float())
    assert found[1].is_contiguous(memory_format=memory)
    for a, b in zip(found, expected, strict=True):
        assert (a.float() - b).norm() < 5e-3 * b.norm()


def test_no_gradient_gives_the_same_values() -> None:
    norm = GroupNorm(4, 8)
    x = torch.randn(2, 8, 4, 6, 10).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        alone = norm(x)
    assert torch.equal(alone, norm(x))


def test_frozen_weights_leave_the_gradient_of_the_input() -> None:
    norm = GroupNorm(4, 8).requires_grad_(requires_grad=False)
    x = torch.randn(2, 8, 4, 6).bfloat16().requires_grad_()
    norm(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
