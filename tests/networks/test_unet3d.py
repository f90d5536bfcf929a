"""The 3-D U-Net: names and shapes of the published networks, and the published outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neuromend.networks.unet3d import UNet3D, convolved, resized, timestep_embedding

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
METHODS = {"DDPM_3D_mem_eff": "conv", "WDM_3D": "residual"}


def published(method: str, name: str) -> Any:
    path = PARITY / method / name
    if not path.exists():
        pytest.skip("the parity fixtures are not beside this checkout")
    return json.loads(path.read_text())


def built(arguments: dict[str, Any], resampling: Any) -> UNet3D:
    """The network of a published argument list."""
    return UNet3D(
        arguments["in_channels"],
        arguments["out_channels"],
        width=arguments["model_channels"],
        multipliers=tuple(arguments["channel_mult"]),
        blocks=arguments["num_res_blocks"],
        groups=arguments["num_groups"],
        resampling=resampling,
    )


def error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.shared
@pytest.mark.parametrize(("method", "resampling"), METHODS.items())
def test_names_and_shapes_at_full_size_are_published(method: str, resampling: str) -> None:
    facts = published(method, "published_parameters.json")
    with torch.device("meta"):
        network = built(facts["resolved_constructor"], resampling)
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == {entry["key"]: entry["shape"] for entry in facts["state_dict"]}
    assert sum(p.numel() for p in network.parameters()) == facts["total_parameters"]


def test_the_few_step_network_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = UNet3D(
            24, 8, width=64, multipliers=(1, 2, 2, 2, 4), blocks=4, groups=32, resampling="residual"
        )
    assert sum(p.numel() for p in network.parameters()) == 65_525_320
    skips = {key.removesuffix(".weight") for key in network.state_dict() if "skip_connection.weight" in key}
    places = ("input_blocks.6", "input_blocks.21", "output_blocks.3", "output_blocks.18")
    assert skips == {f"{place}.0.skip_connection" for place in places}
    ups = {
        key.split(".")[1] for key in network.state_dict() if key.startswith("output_blocks.") and ".1." in key
    }
    assert {"4", "9", "14", "19"} <= ups


@pytest.mark.shared
@pytest.mark.parametrize(("method", "resampling"), METHODS.items())
def test_outputs_are_published(method: str, resampling: str) -> None:
    config = published(method, "tiny/config.json")
    network = built(config["resolved_constructor"], resampling).eval()
    weights = load_file(PARITY / method / "tiny" / "weights.safetensors")
    network.to(memory_format=torch.channels_last_3d)  # as the methods hold it
    network.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
    with np.load(PARITY / method / "tiny" / "io.npz") as arrays, torch.inference_mode():
        for case in (0, 1):  # the whole output, then every second voxel of another
            x, t = (torch.from_numpy(arrays[f"{key}_{case}"]) for key in ("x", "timesteps"))
            found = network(x.float(), t)
            if f"out_{case}" in arrays:
                expected = torch.from_numpy(arrays[f"out_{case}"])
            else:
                found = found[..., ::2, ::2, ::2]
                expected = torch.from_numpy(arrays[f"out_{case}_every2"])
            assert error(found, expected) < 1e-5


@pytest.mark.parametrize("resampling", ["conv", "residual"])
def test_output_has_the_grid_of_the_input(resampling: Any) -> None:
    network = UNet3D(3, 2, width=4, multipliers=(1, 3), blocks=1, groups=2, resampling=resampling)
    assert network(torch.randn(2, 3, 4, 6, 8), torch.tensor([5, 700])).shape == (2, 2, 4, 6, 8)


def test_an_odd_embedding_ends_with_zero_and_time_zero_is_all_cosine() -> None:
    assert timestep_embedding(torch.tensor([0]), 5).tolist() == [[1, 1, 0, 0, 0]]


def test_groups_that_do_not_divide_the_channels_are_named() -> None:
    with pytest.raises(ValueError, match=r"groups \(4\).*\[6, 12\]"):
        UNet3D(1, 1, width=6, multipliers=(1, 2), blocks=1, groups=4, resampling="conv")


def test_half_precision_is_halved_as_float32_is() -> None:
    x = torch.randn(2, 3, 4, 6, 10).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    found, expected = resized(x, 0.5), resized(x.float(), 0.5)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert (found.float() - expected).norm() < 5e-3 * expected.norm()


def test_a_single_item_is_offset_as_a_batch_is() -> None:
    conv, x, offset = nn.Conv3d(3, 5, 3, padding=1), torch.randn(2, 3, 4, 6, 10), torch.randn(2, 5)
    both = convolved(conv, x, offset)
    assert torch.allclose(convolved(conv, x[1:], offset[1:]), both[1:], atol=1e-5)
