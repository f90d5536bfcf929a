"""Every method goes into a model folder and comes out the same; a fill from a folder never opens a pickle."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuromend
from neuromend.checkpoint import save_model
from neuromend.doctor import synthetic_head
from neuromend.manifest import TrainedRange
from neuromend.methods import METHODS
from neuromend.models import load_method, resolve_model, verify_model


def save_tiny(folder: Path, method: str) -> Any:
    """An untrained network of the smallest preset, saved in float32; returns it."""
    torch.manual_seed(4)
    cls: Any = METHODS[method]
    config = cls.PRESETS["tiny"]
    module = cls(config)
    save_model(
        folder,
        module.state_dict(),
        name=f"{method}-tiny",
        description="untrained",
        method=method,
        config=asdict(config),
        trained_range=TrainedRange(modalities=("T1w",), spacing_mm=(1.0, 2.0), coverage=("skull-stripped",)),
        licence="CC0-1.0",
        licence_text="CC0-1.0",
        card="# untrained",
        training={},
        ema=True,
        dtype=torch.float32,
    )
    return module


@pytest.mark.parametrize("method", METHODS)
def test_a_method_comes_back_with_its_config_and_every_bit(tmp_path: Path, method: str) -> None:
    saved = save_tiny(tmp_path / "m", method)
    entry = resolve_model(tmp_path / "m")
    assert verify_model(entry)[0].level == "pass"
    loaded: Any = load_method(entry, torch.device("cpu"))
    assert loaded.config == saved.config
    assert type(loaded) is METHODS[method]
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_a_fill_from_a_folder_opens_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "m", "fastwavelet3d")
    scan, lesion = synthetic_head()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    for module, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")]:
        monkeypatch.setattr(module, name, forbidden)
    result = neuromend.fill(scan, lesion, model=tmp_path / "m")
    hole = np.asarray(lesion.dataobj) > 0
    filled: Any = result.image
    assert np.array_equal(np.asarray(filled.dataobj)[~hole], np.asarray(scan.dataobj)[~hole])
    assert result.record["model"]["method"] == "fastwavelet3d"
