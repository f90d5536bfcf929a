"""The wavelet U-Net: the published names and shapes, a lossless split, and one whole pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from neuromend.networks.wavelet_unet import WaveletUNet, join, split

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"


@pytest.mark.shared
def test_names_and_shapes_at_full_size_are_published() -> None:
    path = PARITY / "WDM_3D" / "published_parameters.json"
    if not path.exists():
        pytest.skip("the parity fixtures are not beside this checkout")
    facts = json.loads(path.read_text())["alternative_WavUNetModel_ours_wnet_256"]
    with torch.device("meta"):
        network = WaveletUNet(24, 8, width=64, multipliers=(1, 2, 2, 4, 4, 4), blocks=2, groups=32)
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == {entry["key"]: entry["shape"] for entry in facts["state_dict"]}
    assert sum(p.numel() for p in network.parameters()) == facts["total_parameters"]


def test_what_is_split_is_joined_again() -> None:
    x = torch.randn(2, 3, 4, 6, 8)
    low, high = split(x)
    assert (low.shape, high.shape) == ((2, 3, 2, 3, 4), (2, 21, 2, 3, 4))
    torch.testing.assert_close(join(low, high), x)


def test_output_has_the_grid_of_the_input_and_every_parameter_matters() -> None:
    torch.manual_seed(3)
    network = WaveletUNet(3, 2, width=4, multipliers=(1, 2), blocks=2, groups=2)
    out = network(torch.randn(2, 3, 4, 8, 12), torch.tensor([5, 700]))
    assert out.shape == (2, 2, 4, 8, 12)
    out.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_what_has_two_names_is_one_weight_and_can_be_stored() -> None:
    network = WaveletUNet(3, 2, width=4, multipliers=(1, 2), blocks=2, groups=2)
    state = network.state_dict()
    name = "in_layers.2.weight"
    assert network.output_blocks[1][0] is network.output_blocks[2][0]
    assert torch.equal(state[f"output_blocks.1.0.{name}"], state[f"output_blocks.2.0.{name}"])
    loaded = safetensors.torch.load(safetensors.torch.save(state))
    network.load_state_dict(loaded, strict=True)


def test_too_few_blocks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="blocks of 2 or more; found 1"):
        WaveletUNet(3, 2, width=4, multipliers=(1, 2), blocks=1, groups=2)
