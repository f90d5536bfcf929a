"""What a person sees between the command and the first line of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend.corpus.shapes import load_shapes
from neuromend.train import train
from neuromend.trainer import beginning
from neuromend.trainer.config import make_config

from .test_train import SETTINGS
from .tiny_data import write_tiny_data


def write_shape(folder: Path) -> None:
    """One lesion of 5 x 4 x 6 voxels of 2 mm."""
    folder.mkdir()
    mask = np.zeros((30, 32, 34), np.uint8)
    mask[10:15, 11:15, 12:18] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2, 2, 1])), folder / "lesion.nii.gz")


def test_before_it_reads_anything_large_a_run_says_what_it_does_on_what_and_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path / "data")
    write_shape(tmp_path / "shapes")
    said: list[str] = []
    said_before: list[list[str]] = []

    def read(*sources: Any) -> Any:
        said_before.append(said.copy())
        return load_shapes(*sources)

    monkeypatch.setattr(beginning, "load_shapes", read)
    config = make_config(
        "unet3d",
        preset="tiny",
        overrides=(*SETTINGS, "steps=3", "accumulate=2", "log_every=2"),
        shapes=[f"{tmp_path / 'shapes'}:0.5"],
    )
    train(config, tmp_path / "data", tmp_path / "run", say=said.append)
    assert said_before == [said[:2]], "the shapes are read once, after the lines"
    weights = sum(p.numel() for p in beginning.make_task(config).parameters())
    assert said[0] == (
        f"unet3d, preset tiny: {weights:,} parameters, fp32 on cpu; 3 steps of 2 cases a step; "
        f"log: {tmp_path / 'run' / 'log.jsonl'}"
    )
    assert said[1].startswith("volumes: 3 of 3 subjects to train on, 1 of 1 for dev scores; now reading")
    assert said[1].endswith(str(tmp_path / "shapes"))
    assert said[2].startswith("first step after ")
    assert said[2].endswith(" s; a line every 2 steps")
    assert said[3].startswith("step 2, ")


def test_a_budget_of_minutes_is_told_as_such(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data")
    said: list[str] = []
    config = make_config("unet3d", preset="tiny", overrides=(*SETTINGS, "minutes=7.5"))
    train(config, tmp_path / "data", tmp_path / "run", max_minutes=0, say=said.append)
    assert "; 7.5 minutes of 1 case a step; " in said[0]
    assert "reading" not in said[1]
