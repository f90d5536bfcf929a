"""The commands ``train`` and ``export`` as a user types them, from prepared data to a filled scan."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neuromend import cli

TINY_DATA = Path(__file__).parent / "trainer" / "tiny_data.py"
SETTINGS = (
    "steps=3", "crop=[16, 16, 16]", "dev_cases=1", "workers=0", "volume_ml=[0.3, 2.0]", "log_every=1", "threads=1",
    'trackers=["tensorboard","csv"]',
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    spec = importlib.util.spec_from_file_location("tiny_data", TINY_DATA)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_data"] = module
    spec.loader.exec_module(module)
    module.write_tiny_data(folder)
    return folder


def arguments(data: Path, run: Path, *more: str) -> list[str]:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        "train",
        "--method",
        "unet3d",
        "--preset",
        "tiny",
        "--data",
        str(data),
        "--out",
        str(run),
        *words,
        *more,
    ]


def test_from_prepared_data_to_a_filled_scan(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model, filled = tmp_path / "run", tmp_path / "model", tmp_path / "filled.nii.gz"
    assert cli.main(arguments(data, run, "--max-time", "0")) == 0
    assert "the same command goes on" in capsys.readouterr().err
    assert cli.main(arguments(data, run, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["step"], told["finished"]) == (3, True)
    assert list((run / "tensorboard").iterdir())
    lines = (run / "scalars.csv").read_text().splitlines()
    assert lines[0] == "step,name,value"
    assert [line for line in lines if ",loss," in line] == [line for line in lines if ",loss," in line][:3]
    notes = tmp_path / "notes.md"
    words = [
        "export",
        str(run),
        "--out",
        str(model),
        "--name",
        "mine",
        "--licence",
        "CC0-1.0",
        "--notes",
        str(notes),
    ]
    words += ["--coverage", "both"]
    assert cli.main(words) == 66  # the notes are not there
    assert "notes.md" in capsys.readouterr().err
    assert not model.exists()
    notes.write_text("## Data\n\nScans of {nobody}.\n")
    assert cli.main(words) == 0
    assert (model / "MODEL_CARD.md").read_text().endswith("\n\n## Data\n\nScans of {nobody}.\n")
    told = json.loads((model / "manifest.json").read_text())
    assert told["trained_range"]["coverage"] == ["skull-stripped", "whole-head"]
    assert cli.main(["models", "verify", str(model)]) == 0
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in (44, 52, 40)), indexing="ij"))
    brain = (grid**2).sum(0) < 1
    scan = np.where(brain, 500 + 20 * rng.standard_normal(brain.shape), 0).astype(np.float32)
    hole = np.zeros(brain.shape, np.uint8)
    hole[16:22, 20:27, 16:21] = 1
    affine = np.diag([2.0, 2, 2, 1])
    nib.save(nib.Nifti1Image(scan, affine), tmp_path / "T1.nii.gz")
    nib.save(nib.Nifti1Image(hole, affine), tmp_path / "mask.nii.gz")
    words = ["-i", str(tmp_path / "T1.nii.gz"), "-m", str(tmp_path / "mask.nii.gz"), "-o", str(filled)]
    assert cli.main(["fill", *words, "--model", str(model)]) == 0, capsys.readouterr().err
    result = nib.load(filled).get_fdata()
    assert np.array_equal(result[hole == 0], scan[hole == 0])


def test_the_autoencoder_leads_to_the_second_stage(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(
        data, tmp_path / "run", "--stage", "autoencoder", "--set", "steps=1", "--set", "dev_cases=0"
    )
    words[words.index("unet3d")] = "latent3d"
    assert cli.main(words) == 0
    told = capsys.readouterr().err
    assert f"neuromend train --method latent3d --init-from '{tmp_path / 'run'}'" in told
    assert "neuromend export" not in told


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--set", "nonsense=1"], "TR-20"),
        (["--preset", "huge"], "TR-20"),
        (["--set", "precision=fp16", "--set", "strategy=fsdp", "--set", "device=cpu"], "TR-21"),
    ],
)
def test_what_cannot_be_trained_is_a_usage_error(
    words: list[str], code: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(data, tmp_path, *words)) == 2
    assert code in capsys.readouterr().err


def test_data_that_are_not_prepared_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments(tmp_path / "nothing", tmp_path / "run")) == 66
    assert "TR-07" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_its_packages_training_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("neuromend.cli_train.find_spec", lambda name: None)
    assert cli.main(arguments(data, tmp_path)) == 2
    assert "pip install 'neuromend[train]'" in capsys.readouterr().err
