"""The two-dimensional U-Net: shapes, stacks, and the published networks' own outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from neuromend.networks import unet
from neuromend.networks.unet import SliceConv, UNet2D, sinusoid

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
PUBLISHED = ("DDPM_2D_slice_wise", "DDPM_2D_seq_pos", "DDPM_Pseudo3D")
missing = pytest.mark.skipif(not PARITY.is_dir(), reason="the parity fixtures are not beside this checkout")


def tiny(*, pseudo_3d: bool = False) -> UNet2D:
    torch.manual_seed(3)
    network = UNet2D(3, 2, 64, (1, 1), 1, (2,), pseudo_3d=pseudo_3d).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


def built(name: str, arguments: dict[str, Any]) -> UNet2D:
    """The network of a method of the fixtures, from the arguments recorded there."""
    keys = ("in_channels", "out_channels", "model_channels", "channel_mult")
    keys += ("num_res_blocks", "attention_resolutions")
    return UNet2D(*(arguments[key] for key in keys), pseudo_3d=name == "DDPM_Pseudo3D")


def slices(count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 6, 4, generator=generator), torch.arange(count) * 100


@pytest.mark.parametrize("pseudo_3d", [False, True])
def test_a_slice_gives_noise_and_variance_of_its_own_shape(pseudo_3d: bool) -> None:
    with torch.no_grad():
        assert tiny(pseudo_3d=pseudo_3d)(*slices()).shape == (5, 2, 6, 4)


def test_large_blocks_are_computed_twice_in_training_and_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trained() -> tuple[Tensor, dict[str, Tensor], int]:
        network, kept = tiny(pseudo_3d=True), 0

        def keep(x: Tensor) -> Tensor:
            nonlocal kept
            kept += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = network(*slices())
        out.square().mean().backward()
        return out, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, kept

    plain, gradients, kept = trained()
    monkeypatch.setattr(unet, "LARGE", 0)
    again, others, kept_then = trained()
    assert torch.equal(plain, again)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-7)
    assert kept_then < 0.7 * kept


def test_slices_are_apart_without_the_third_dimension_and_coupled_with_it() -> None:
    x, t = slices()
    other = x.clone()
    other[3] += 1
    for pseudo_3d in (False, True):
        network = tiny(pseudo_3d=pseudo_3d)
        with torch.no_grad():
            change = (network(x, t) - network(other, t)).abs().amax((1, 2, 3))
        assert change[3] > 0.01
        assert bool(change[2] > 1e-3) is pseudo_3d


def test_stacks_do_not_talk_to_each_other() -> None:
    x, t = slices(6)
    network = tiny(pseudo_3d=True)
    with torch.no_grad():
        both = network(x, t, depth=3)
        alone = torch.cat([network(x[:3], t[:3]), network(x[3:], t[3:])])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-5)


def test_a_new_network_along_the_slices_is_the_two_dimensional_one() -> None:
    flat, deep = UNet2D(3, 2, 64, (1, 1), 1, (2,)), UNet2D(3, 2, 64, (1, 1), 1, (2,), pseudo_3d=True)
    absent = deep.load_state_dict(flat.state_dict(), strict=False).missing_keys
    assert all("_tem.temporal_conv." in key for key in absent)
    torch.nn.init.normal_(flat.out[2].weight)
    deep.out.load_state_dict(flat.out.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(deep(*slices()), flat(*slices()))


def test_fast_layout_in_autocast_stays_near_full_precision() -> None:
    network = tiny(pseudo_3d=True)
    with torch.no_grad():
        exact = network(*slices())
        with torch.autocast("cpu", torch.bfloat16):
            fast = network(*slices()).float()
    assert (fast - exact).norm() < 0.03 * exact.norm()


def test_slices_that_do_not_fill_the_stacks_are_refused() -> None:
    with pytest.raises(ValueError, match="17 slices cannot be cut into stacks of 16"):
        tiny(pseudo_3d=True)(*slices(17))


def test_the_embedding_has_cosines_first() -> None:
    embedded = sinusoid(torch.tensor([0, 2]), 6)
    assert embedded[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert embedded[1, 0].item() == pytest.approx(np.cos(2))
    assert embedded[1, 5].item() == pytest.approx(np.sin(2 * 10_000 ** (-2 / 3)))


@pytest.mark.shared
@missing
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_parameter_has_its_name_and_shape(name: str) -> None:
    facts = json.loads((PARITY / name / "published_parameters.json").read_text())
    with torch.device("meta"):
        network = built(name, facts["resolved_constructor"])
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert ours == {entry["key"]: tuple(entry["shape"]) for entry in facts["state_dict"]}
    assert sum(p.numel() for p in network.parameters()) == facts["total_parameters"]


@pytest.mark.shared
@missing
@pytest.mark.parametrize("name", PUBLISHED)
def test_outputs_are_the_published_ones(name: str) -> None:
    folder = PARITY / name / "tiny"
    network = built(name, json.loads((folder / "config.json").read_text())["resolved_constructor"]).eval()
    weights = load_file(folder / "weights.safetensors")
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    with np.load(folder / "io.npz") as arrays, torch.no_grad():
        for k in range(3):
            x, t, expected = (torch.from_numpy(arrays[f"{key}_{k}"]) for key in ("x", "timesteps", "out"))
            key = f"slice_numbers_{k}"
            positions = torch.from_numpy(arrays[key]) if key in arrays else None
            error = (network(x, t, positions=positions) - expected).norm() / expected.norm()
            assert error < 1e-5


@pytest.mark.shared
@missing
@pytest.mark.parametrize("depth", [1, 5, 15, 16, 32, 48])
def test_the_convolution_along_the_slices_is_the_published_one(depth: int) -> None:
    with np.load(PARITY / "DDPM_Pseudo3D" / "temporal_conv.npz") as arrays:
        got = {key: torch.from_numpy(arrays[key]) for key in arrays}
    layer = SliceConv(4)
    layer.temporal_conv.load_state_dict({"weight": got["weight"], "bias": got["bias"]})
    with torch.no_grad():
        torch.testing.assert_close(layer(got[f"x_{depth}"], min(depth, 16)), got[f"out_{depth}"])
