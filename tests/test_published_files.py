"""Every kind of file that the authors wrote is read, by the restricted loader alone; anything else is refused."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from neuromend.errors import CheckpointError
from neuromend.published_files import read_checkpoint


def weights() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {"out.2.bias": torch.randn(2), "out.2.weight": torch.randn(2, 3)}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


class Dangerous:
    """Would be built by a plain unpickler."""


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
    state = weights()
    tensors, is_ema = read_checkpoint(saved(wrap(state), tmp_path / name))
    assert is_ema is ema
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], value) for key, value in state.items())


def test_the_settings_in_a_lightning_file_are_read_as_empty_shells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As OmegaConf pickles them: objects of its own, which name builtin types; nothing of it is imported."""
    module = ModuleType("omegaconf.dictconfig")
    config = type("DictConfig", (), {"__module__": module.__name__, "__qualname__": "DictConfig"})
    module.DictConfig = config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings = config()
    settings.__dict__ |= {
        "_metadata": {"ref_type": Any, "object_type": dict, "key_type": int, "cache": defaultdict(list)},
        "_content": {"n_hiddens": 16, "root": PurePosixPath("/data"), "type": float, "name": str},
    }
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "1.6.4",
        "state_dict": weights(),
        "callbacks": {"ModelCheckpoint{'monitor': 'val/recon_loss'}": {"best_model_score": torch.ones(())}},
        "hyper_parameters": {"cfg": settings},
    }
    file = saved(content, tmp_path / "model-vqgan.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.delitem(sys.modules, "omegaconf")
    tensors, _ = read_checkpoint(file)
    assert all(torch.equal(tensors[key], value) for key, value in weights().items())
    assert "omegaconf" not in sys.modules


@pytest.mark.parametrize("name", ["getattr", "eval", "exec", "open", "__import__"])
def test_a_builtin_function_in_a_file_is_refused(name: str, tmp_path: Path) -> None:
    import builtins

    file = saved({"state_dict": weights(), "call": getattr(builtins, name)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="more than tensors") as caught:
        read_checkpoint(file)
    assert (caught.value.code, caught.value.exit_status) == ("MO-01", 78)


def test_a_file_that_could_run_code_is_never_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="more than tensors") as caught:
        read_checkpoint(saved({"a": Dangerous()}, tmp_path / "x.pt"))
    assert (caught.value.code, caught.value.exit_status) == ("MO-01", 78)
    assert "x.pt" in str(caught.value)


@pytest.mark.parametrize("content", [{"state": {}, "param_groups": []}, {}, [torch.zeros(1)]])
def test_a_file_without_named_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected (named tensors|a tensor)") as caught:
        read_checkpoint(saved(content, tmp_path / "opt000010.pt"))
    assert (caught.value.code, caught.value.exit_status) == ("MO-06", 78)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"<html>Sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-LFS pointer"),
        (b"hello, world", r"something else \(it begins with b'hello, w'\)"),
        (b"\x80\x02not a pickle", r"damaged|more than tensors"),
    ],
)
def test_a_file_that_is_something_else_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_checkpoint(tmp_path / "weights.pt")
    assert caught.value.exit_status == 78
    assert caught.value.code == "MO-03" or data.startswith(b"\x80")
    assert "weights.pt" in str(caught.value)


@pytest.mark.parametrize("keep", [20, 0.3, 0.9, -1])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_is_refused(keep: float, zipped: bool, tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pt").read_bytes()
    cut = int(keep if keep > 1 else len(whole) * keep if keep > 0 else len(whole) - 1)
    (tmp_path / "cut.pt").write_bytes(whole[:cut])
    with pytest.raises(CheckpointError, match=r"cut\.pt") as caught:
        read_checkpoint(tmp_path / "cut.pt")
    assert caught.value.code == "MO-03"


def test_one_wrong_bit_in_a_tensor_is_found(tmp_path: Path) -> None:
    file = saved({"a": torch.arange(1000.0)}, tmp_path / "weights.pt")
    data = bytearray(file.read_bytes())
    data[data.find(torch.arange(9.0).numpy().tobytes()) + 2001] ^= 0x40
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"weights\.pt.*the checksum of its part") as caught:
        read_checkpoint(file)
    assert (caught.value.code, caught.value.exit_status) == ("MO-03", 78)
