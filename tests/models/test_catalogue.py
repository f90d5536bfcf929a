"""The list of models: found by name or path, broken folders listed but refused, networks built strictly."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import neuromend.methods
from neuromend.checkpoint import save_model
from neuromend.errors import CheckpointError
from neuromend.manifest import LICENCE_NAME, MANIFEST_NAME, WEIGHTS_NAME, TrainedRange
from neuromend.methods.classical import CLASSICAL
from neuromend.models import available_models, catalogue, load_method, resolve_model, verify_model


@dataclass(frozen=True)
class Config:
    width: int
    levels: tuple[int, ...] = (1, 2)
    scale: float = 0.5


class Method(nn.Module):
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(2, config.width)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user folder of models, one method, and no packaged weights."""
    monkeypatch.setattr(neuromend.methods, "METHODS", {"toy": Method}, raising=False)
    monkeypatch.setattr(catalogue, "PACKAGED", tmp_path / "packaged")
    monkeypatch.setenv("NEUROMEND_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def save(folder: Path, **changes: Any) -> None:
    config = Config(3)
    arguments: dict[str, Any] = {
        "name": folder.name,
        "description": "a toy",
        "method": "toy",
        "config": asdict(config),
        "trained_range": TrainedRange(
            modalities=("T1w",), spacing_mm=(1.0, 2.0), coverage=("skull-stripped",)
        ),
        "licence": "CC-BY-NC-4.0",
        "licence_text": "terms",
        "card": "# toy",
        "training": {},
        "ema": True,
        "dtype": torch.float32,
    }
    save_model(folder, Method(config).state_dict(), **(arguments | changes))


def names() -> list[str]:
    return [entry.name for entry in available_models()]


def test_the_classical_fills_are_there_without_any_weights() -> None:
    assert names() == ["harmonic", "ring-mean", "mirror", "patch", "white-matter"]
    assert set(names()) == set(CLASSICAL)
    entry = resolve_model("harmonic")
    assert entry.is_classical
    assert [finding.level for finding in verify_model(entry)] == ["pass"]
    with pytest.raises(ValueError, match="classical"):
        load_method(entry, torch.device("cpu"))


def test_listing_models_does_not_import_torch(place: Path) -> None:
    save(place / "toy-a")
    code = (
        "import sys; from neuromend.models import available_models, resolve_model; "
        "assert resolve_model('toy-a').manifest; available_models(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_are_found_by_name_and_by_path(place: Path, tmp_path: Path) -> None:
    save(place / "toy-a")
    save(tmp_path / "elsewhere" / "toy-b")
    save(tmp_path / "packaged" / "toy-c")
    assert names()[len(CLASSICAL) :] == ["toy-c", "toy-a"]
    assert resolve_model("toy-a").folder == place / "toy-a"
    entry = resolve_model(tmp_path / "elsewhere" / "toy-b")
    assert (entry.name, entry.licence) == ("toy-b", "CC-BY-NC-4.0")
    assert entry.manifest is not None
    assert entry.manifest.trained_range.spacing_mm == (1.0, 2.0)


def test_a_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "harmonic")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("harmonic").is_classical
    assert not resolve_model("./harmonic").is_classical


def test_a_taken_name_is_listed_but_not_used(place: Path, tmp_path: Path) -> None:
    save(tmp_path / "packaged" / "toy")
    save(place / "toy")
    save(place / "mirror")
    assert resolve_model("toy").folder == tmp_path / "packaged" / "toy"
    taken = [entry for entry in available_models() if entry.problem is not None]
    assert [entry.folder for entry in taken] == [place / "mirror", place / "toy"]
    with pytest.raises(CheckpointError, match="name 'toy' is taken"):
        verify_model(taken[1])
    assert resolve_model(place / "toy").folder == place / "toy"


def test_a_broken_folder_is_listed_and_refused(place: Path) -> None:
    save(place / "good")
    save(place / "broken")
    (place / "broken" / MANIFEST_NAME).write_text("{")
    entries = {entry.name: entry for entry in available_models()}
    assert entries["good"].problem is None
    assert entries["broken"].problem is not None
    assert entries["broken"].licence == "unknown"
    for attempt in (
        lambda: resolve_model("broken"),
        lambda: verify_model(entries["broken"]),
        lambda: load_method(entries["broken"], torch.device("cpu")),
    ):
        with pytest.raises(CheckpointError) as caught:
            attempt()
        assert (caught.value.code, caught.value.exit_status) == ("MO-03", 78)


def test_an_unknown_name_lists_the_known_ones(place: Path) -> None:
    save(place / "toy-a")
    with pytest.raises(CheckpointError) as caught:
        resolve_model("toy-z")
    assert (caught.value.code, caught.value.exit_status) == ("MO-16", 78)
    assert "'toy-z'; known: harmonic, ring-mean, mirror, patch, white-matter, toy-a" in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".bin", ".PT"])
def test_a_pickle_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(CheckpointError) as caught:
        resolve_model(path)
    assert (caught.value.code, caught.value.exit_status) == ("MO-01", 78)
    assert str(path) in str(caught.value)


def test_a_bare_weights_file_is_refused_with_its_folder(place: Path) -> None:
    save(place / "toy-a")
    with pytest.raises(CheckpointError) as caught:
        resolve_model(place / "toy-a" / WEIGHTS_NAME)
    assert caught.value.code == "MO-16"
    assert caught.value.fix == f"--model {place / 'toy-a'}"


def test_verifying_reads_the_weights_and_tells_missing_papers(place: Path) -> None:
    save(place / "toy-a")
    findings = verify_model(resolve_model("toy-a"))
    assert [(f.code, f.level) for f in findings] == [("MO-04", "pass"), ("MO-15", "note")]
    (place / "toy-a" / LICENCE_NAME).unlink()
    assert verify_model(resolve_model("toy-a"))[-1].message.endswith(f"has no {LICENCE_NAME}.")
    weights = place / "toy-a" / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError) as caught:
        verify_model(resolve_model("toy-a"))
    assert caught.value.code == "MO-04"


def test_a_method_is_built_from_its_manifest(place: Path) -> None:
    save(place / "toy-a")
    module = load_method(resolve_model("toy-a"), torch.device("cpu"))
    assert isinstance(module, Method)
    assert module.config == Config(3)
    assert not module.training


def test_an_unknown_method_is_refused_with_the_known_ones(place: Path) -> None:
    save(place / "toy-a", method="latent3d")
    with pytest.raises(CheckpointError) as caught:
        load_method(resolve_model("toy-a"), torch.device("cpu"))
    assert (caught.value.code, caught.value.exit_status) == ("MO-06", 78)
    assert "'latent3d', expected one of toy" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"width": 3, "levels": [1, 2]}, "scale"),
        ({"width": 3, "levels": [1, 2], "scale": 0.5, "depth": 2}, "depth"),
        ({"width": "3", "levels": [1, 2], "scale": 0.5}, "width"),
        ({"width": 3, "levels": [1, 2.5], "scale": 0.5}, "levels"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_naming_the_field(
    place: Path, config: dict[str, Any], named: str
) -> None:
    save(place / "toy-a", config=config)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_method(resolve_model("toy-a"), torch.device("cpu"))
    assert caught.value.code == "MO-06"


def test_weights_of_another_width_are_refused(place: Path) -> None:
    save(place / "toy-a", config=json.loads(json.dumps(asdict(Config(4)))))
    with pytest.raises(CheckpointError, match=r"'layer\.weight' has shape \(3, 2\), expected \(4, 2\)"):
        load_method(resolve_model("toy-a"), torch.device("cpu"))
