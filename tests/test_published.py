"""Published checkpoints: every kind of file is read, everything that does not fit is refused by name."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from neuromend import published
from neuromend.errors import CheckpointError, MissingInputError, OutputError, TemporaryError, UsageError
from neuromend.methods import METHODS
from neuromend.models import load_method, resolve_model
from neuromend.published import PUBLISHED, import_weights


def authors_state(method: str = "pseudo3d") -> dict[str, Tensor]:
    """Weights with published names, at the tiny size."""
    torch.manual_seed(2)
    build: Any = METHODS[method]
    state = build(build.PRESETS["tiny"]).state_dict()
    prefix, added = PUBLISHED[method].prefix, PUBLISHED[method].ones
    return {
        key.removeprefix(prefix): torch.randn(value.shape) for key, value in state.items() if key not in added
    }


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


class Dangerous:
    """Would be built by a plain unpickler."""


@pytest.mark.parametrize("method", [name for name in PUBLISHED if name in METHODS])
def test_a_bare_state_dict_becomes_a_model_that_computes_the_same(method: str, tmp_path: Path) -> None:
    state = authors_state(method)
    file = saved(state, tmp_path / "savedmodel000010.pt")
    manifest = import_weights(method, file, tmp_path / "model", preset="tiny")
    assert (manifest.method, manifest.ema, manifest.licence) == (method, False, PUBLISHED[method].licence)
    module = load_method(resolve_model(tmp_path / "model"), torch.device("cpu"))
    ours = module.state_dict()
    assert all(torch.equal(ours[PUBLISHED[method].prefix + key], value) for key, value in state.items())
    licence = (tmp_path / "model" / "LICENSE-WEIGHTS.md").read_text()
    assert "not neuromend's" in licence
    assert manifest.training["source_sha256"] in licence


def test_what_the_latent_method_does_without_is_left_out(tmp_path: Path) -> None:
    state = authors_state("latent3d") | {"betas": torch.ones(3), "vqgan.perceptual_model.lin0": torch.ones(1)}
    file = saved({"step": 9, "model": {}, "ema": state}, tmp_path / "model-325.pt")
    assert import_weights("latent3d", file, tmp_path / "model", preset="tiny").ema
    module: Any = load_method(resolve_model(tmp_path / "model"), torch.device("cpu"))
    assert bool(module.vqgan.codebook.initialised)


@pytest.mark.parametrize(
    ("wrap", "name", "ema"),
    [
        (lambda s: s, "emasavedmodel_0.9999_000010.pt", True),
        (lambda s: {"step": 7, "model": {"x": torch.zeros(1)}, "ema": s, "scaler": None}, "model-1.pt", True),
        (lambda s: {"step": 7, "model": s}, "model.pt", False),
        (lambda s: {"module." + key: value for key, value in s.items()}, "netG_5.pth", False),
        (lambda s: {"state_dict": s, "hyper_parameters": argparse.Namespace(lr=1)}, "last.ckpt", False),
    ],
)
def test_every_kind_of_published_file_is_read(wrap: Any, name: str, ema: bool, tmp_path: Path) -> None:
    state = authors_state()
    tensors, is_ema = published.read_checkpoint(saved(wrap(state), tmp_path / name))
    assert is_ema is ema
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], value) for key, value in state.items())


def test_a_file_that_could_run_code_is_never_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="more than tensors") as caught:
        import_weights(
            "pseudo3d", saved({"a": Dangerous()}, tmp_path / "x.pt"), tmp_path / "m", preset="tiny"
        )
    assert (caught.value.code, caught.value.exit_status) == ("MO-01", 78)
    assert "x.pt" in str(caught.value)


def refused(state: dict[str, Tensor], tmp_path: Path, method: str = "pseudo3d") -> CheckpointError:
    file = saved(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError) as caught:
        import_weights(method, file, tmp_path / "model", preset="tiny")
    assert caught.value.exit_status == 78
    assert not (tmp_path / "model").exists()
    return caught.value


def test_a_missing_and_an_extra_tensor_are_named(tmp_path: Path) -> None:
    state = authors_state()
    state["surplus.weight"] = state.pop("out.2.bias")
    error = refused(state, tmp_path)
    assert error.code == "MO-07"
    assert "missing tensors: out.2.bias; unexpected tensors: surplus.weight" in str(error)


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    state = authors_state()
    state["out.2.bias"] = torch.zeros(5)
    error = refused(state, tmp_path)
    assert error.code == "MO-06"
    assert "tensor 'out.2.bias' has shape (5,), expected (2,)" in str(error)


@pytest.mark.parametrize(("given", "meant"), [("slice2d", "pseudo3d"), ("slice2d", "sequential2d")])
def test_weights_of_another_method_are_recognised(given: str, meant: str, tmp_path: Path) -> None:
    error = refused(authors_state(meant), tmp_path, method=given)
    assert error.fix == f"--method {meant}"


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = authors_state()
    state["out.2.bias"][0] = torch.nan
    assert refused(state, tmp_path).code == "MO-05"


@pytest.mark.parametrize("content", [{"state": {}, "param_groups": []}, {}, [torch.zeros(1)]])
def test_a_file_without_named_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    assert refused(content, tmp_path).code == "MO-06"


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = saved(authors_state(), tmp_path / "whole.pt")
    for name, data in (("cut.pt", file.read_bytes()[:5000]), ("text.pt", b"<html>"), ("empty.pt", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=name) as caught:
            import_weights("pseudo3d", tmp_path / name, tmp_path / "model", preset="tiny")
        assert caught.value.code in ("MO-03", "MO-01")


def test_a_file_method_or_preset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"absent\.pt") as missing:
        import_weights("pseudo3d", tmp_path / "absent.pt", tmp_path / "model")
    assert (missing.value.code, missing.value.exit_status) == ("IN-38", 66)
    with pytest.raises(UsageError, match="--method is 'gan', expected one of slice2d"):
        import_weights("gan", tmp_path / "absent.pt", tmp_path / "model")
    with pytest.raises(UsageError, match="--preset is 'huge', expected one of paper"):
        import_weights("pseudo3d", tmp_path / "absent.pt", tmp_path / "model", preset="huge")


def test_a_model_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    file = saved(authors_state(), tmp_path / "weights.pt")
    import_weights("pseudo3d", file, tmp_path / "model", preset="tiny")
    with pytest.raises(OutputError, match="the folder exists"):
        import_weights("pseudo3d", file, tmp_path / "model", preset="tiny")
    import_weights("pseudo3d", file, tmp_path / "model", preset="tiny", overwrite=True)


def test_the_hub_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="huggingface_hub is not installed") as caught:
        published.fetch_from_hub("savedmodel325000.pt")
    assert (caught.value.code, caught.value.exit_status) == ("MO-11", 78)


def test_without_a_network_the_hub_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    hub.hf_hub_download = lambda repo, name: answers.pop()(name)  # type: ignore[attr-defined]
    errors.EntryNotFoundError = type("EntryNotFoundError", (Exception,), {})  # type: ignore[attr-defined]
    errors.LocalEntryNotFoundError = type(  # type: ignore[attr-defined]
        "LocalEntryNotFoundError", (errors.EntryNotFoundError,), {}
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)

    def failing(kind: type[Exception]) -> Any:
        def fail(name: str) -> str:
            raise kind(name)

        return fail

    answers: list[Any] = [lambda name: str(tmp_path / name)]
    assert published.fetch_from_hub("a.pt") == tmp_path / "a.pt"
    for kind in (ConnectionError, errors.LocalEntryNotFoundError):
        answers = [failing(kind)]
        with pytest.raises(TemporaryError, match=r"'a.pt' could not be fetched from AliciaDurrer") as offline:
            published.fetch_from_hub("a.pt")
        assert (offline.value.code, offline.value.exit_status) == ("MO-11", 75)
    answers = [failing(errors.EntryNotFoundError)]
    with pytest.raises(CheckpointError, match=r"has no file 'a.pt'"):
        published.fetch_from_hub("a.pt")
