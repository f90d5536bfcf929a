"""The replay of published numbers: what agrees passes, what does not is a miss, through the command line."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from neuromend.cli import main
from neuromend.errors import MissingInputError
from neuromend.networks.unet import UNet2D
from neuromend.parity import Row, relative_error, replay

SHARED = Path(__file__).resolve().parents[2] / "shared" / "parity"


def fixtures(root: Path, wrong_by: float = 0.0) -> Path:
    """A parity folder with a network of another size than the published fixtures."""
    folder = root / "DDPM_2D_slice_wise" / "tiny"
    folder.mkdir(parents=True)
    arguments = {
        "in_channels": 3,
        "out_channels": 2,
        "model_channels": 64,
        "channel_mult": [1, 1],
        "num_res_blocks": 1,
        "attention_resolutions": [2],
    }
    (folder / "config.json").write_text(json.dumps({"resolved_constructor": arguments}))
    torch.manual_seed(1)
    network = UNet2D(3, 2, 64, (1, 1), 1, (2,)).eval()
    torch.nn.init.normal_(network.out[2].weight)
    save_file(network.state_dict(), folder / "weights.safetensors")
    x, t = torch.randn(2, 3, 4, 6), torch.tensor([0, 999])
    with torch.inference_mode():
        out = network(x, t) * (1 + wrong_by)
    np.savez(folder / "io.npz", x_0=x, timesteps_0=t, out_0=out)
    return root


def test_the_same_numbers_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", str(fixtures(tmp_path))]) == 0
    table = capsys.readouterr().out
    assert "slice2d" in table
    assert "network, case 0" in table
    assert "MISS" not in table


def test_a_miss_ends_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixtures(tmp_path, wrong_by=1e-3)
    assert main(["parity", str(tmp_path)]) == 1
    assert "MISS" in capsys.readouterr().out
    assert main(["parity", str(tmp_path), "--json"]) == 1
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert row["error"] == pytest.approx(1e-3, rel=1e-2)
    assert row["passed"] is False


def test_a_folder_without_fixtures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nothing to replay") as caught:
        list(replay(tmp_path))
    assert (caught.value.code, caught.value.exit_status) == ("IN-38", 66)


def test_an_error_is_relative_and_never_hides_another_shape() -> None:
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_error(torch.zeros(1, 2), torch.zeros(2)) == math.inf
    assert not Row("m", "p", math.nan).passed


def test_import_weights_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = UNet2D(3, 2, 64, (1, 1), 1, (2,))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    arguments = ["import-weights", "--method", "slice2d", str(tmp_path / "weights.pt"), "--preset", "tiny"]
    assert main([*arguments, "--out", str(tmp_path / "model")]) == 0
    assert str(tmp_path / "model") in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "model"), "--json"]) == 73
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "RT-04"


@pytest.mark.shared
def test_every_published_number_is_replayed() -> None:
    if not SHARED.is_dir():
        pytest.skip("the parity fixtures are not beside this checkout")
    rows = list(replay(SHARED))
    assert [row for row in rows if not row.passed] == []
    assert {"slice2d", "sequential2d", "pseudo3d", "full3d", "wavelet3d", "latent3d"} == {
        row.method for row in rows
    }


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "array", "part"),
    [
        ("LDM_3D", "train_loss", "training loss, end to end"),
        ("LDM_3D", "full_final", "trajectory of 1000 steps"),
        ("WDM_3D", "loss_mse_wav", "loss, each band"),
        ("WDM_3D", "dwt_HLH", "bands"),
    ],
)
def test_one_changed_number_is_a_miss(folder: str, array: str, part: str, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the parity fixtures are not beside this checkout")
    shutil.copytree(SHARED / folder, tmp_path / folder)
    with np.load(SHARED / folder / "diffusion.npz") as stored:
        changed = dict(stored)
    changed[array] = changed[array] * np.float32(1.001)
    np.savez(tmp_path / folder / "diffusion.npz", **changed)
    assert [row.part for row in replay(tmp_path) if not row.passed] == [part]
