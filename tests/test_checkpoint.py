"""Weights on disk: a round trip, and every way a model folder can be wrong (rows MO-01 to MO-15)."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialise
from torch import nn

from neuromend import checkpoint
from neuromend.checkpoint import load_into, load_weights, save_model
from neuromend.errors import CheckpointError, OutputError, OutputPermissionError, StorageError
from neuromend.manifest import (
    CARD_NAME,
    LICENCE_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    TrainedRange,
    config_digest,
    load_manifest,
    manifest_findings,
)

SOURCE = Path(__file__).resolve().parents[1] / "src" / "neuromend"


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, width, 1)
        self.norm = nn.BatchNorm3d(width)


def save(folder: Path, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "name": "tiny",
        "description": "a test model",
        "method": "fastwavelet3d",
        "config": {"width": 3, "levels": (1, 2)},
        "trained_range": TrainedRange(modalities=("T1w",), spacing_mm=(0.7, 2.0), coverage=("whole-head",)),
        "licence": "CC-BY-NC-4.0",
        "licence_text": "terms",
        "card": "# tiny",
        "training": {"seed": 5, "steps": 40},
        "ema": True,
    }
    torch.manual_seed(3)
    state = changes.pop("state", None)
    return save_model(folder, Net().state_dict() if state is None else state, **(arguments | changes))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(tmp_path / "tiny")
    return tmp_path / "tiny"


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_weights(folder: Path, data: bytes) -> None:
    """Put other bytes in place, and a manifest that vouches for them (an attacker can write both)."""
    (folder / WEIGHTS_NAME).write_bytes(data)
    edit_manifest(folder, weights_bytes=len(data), weights_sha256=hashlib.sha256(data).hexdigest())


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_weights(folder, load_manifest(folder))
    assert caught.value.exit_status == 78
    return caught.value


def test_weights_come_back_as_float32_and_integers_unchanged(model: Path) -> None:
    torch.manual_seed(3)
    original = Net().state_dict()
    state = load_weights(model, load_manifest(model))
    assert set(state) == set(original)
    for key, value in original.items():
        if value.is_floating_point():
            assert state[key].dtype is torch.float32
            assert torch.equal(state[key], value.bfloat16().float())
        else:
            assert torch.equal(state[key], value)


def test_float32_weights_are_bit_identical(tmp_path: Path) -> None:
    manifest = save(tmp_path / "m", dtype=torch.float32)
    torch.manual_seed(3)
    target, original = Net(), Net()
    torch.manual_seed(3)
    original = Net()
    load_into(target, load_weights(tmp_path / "m", manifest))
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), original.parameters(), strict=True))


def test_the_manifest_on_disk_is_the_one_returned(tmp_path: Path) -> None:
    manifest = save(tmp_path / "m")
    assert load_manifest(tmp_path / "m") == manifest
    assert manifest.config == {"width": 3, "levels": [1, 2]}
    assert manifest.dtype == "bfloat16"
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        WEIGHTS_NAME,
        MANIFEST_NAME,
        CARD_NAME,
        LICENCE_NAME,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_umask_is_respected(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        save(tmp_path / "m")
    finally:
        os.umask(old)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "m" / WEIGHTS_NAME).stat().st_mode & 0o777 == 0o644


def test_config_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert config_digest({"a": 1, "b": 2.5}) == config_digest({"b": 2.5, "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})


def test_saving_over_a_model_is_refused_unless_asked(model: Path) -> None:
    before = (model / WEIGHTS_NAME).read_bytes()
    with pytest.raises(OutputError) as caught:
        save(model)
    assert caught.value.exit_status == 73
    assert (model / WEIGHTS_NAME).read_bytes() == before
    save(model, dtype=torch.float32, overwrite=True)
    assert load_manifest(model).dtype == "float32"
    load_weights(model, load_manifest(model))


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["first.bias"][1] = float("inf")
    with pytest.raises(CheckpointError, match=r"first\.bias") as caught:
        save(tmp_path / "m", state=state)
    assert caught.value.code == "MO-05"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind", "status"),
    [
        (errno.ENOSPC, StorageError, 74),
        (errno.EIO, StorageError, 74),
        (errno.EACCES, OutputPermissionError, 77),
        (errno.EROFS, OutputPermissionError, 77),
    ],
)
@pytest.mark.parametrize("call", ["_write", "_fsync"])
def test_a_failed_write_leaves_the_older_model_and_no_stump(
    model: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type, status: int, call: str
) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, call, fail)
    with pytest.raises(kind) as caught:
        save(model, overwrite=True, dtype=torch.float32)
    assert caught.value.exit_status == status
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert [path.name for path in model.parent.iterdir()] == ["tiny"]


def test_the_older_model_returns_when_the_last_rename_fails(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = Path.rename, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.EIO, "device error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(StorageError):
        save(model, overwrite=True, dtype=torch.float32)
    assert load_manifest(model).dtype == "bfloat16"
    assert [path.name for path in model.parent.iterdir()] == ["tiny"]


class Payload:
    """Runs when unpickled; no test may ever see it run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.system, ("exit 1",))


def _zip_archive(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil", "x")
    return path.read_bytes()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_under_the_name_of_safetensors_is_refused_unopened(
    model: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    for module, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")]:
        monkeypatch.setattr(module, name, forbidden)
    replace_weights(model, pickle.dumps(Payload(), protocol=protocol))
    fault = refusal(model)
    assert fault.code == ("MO-01" if protocol >= 2 else "MO-03")
    assert WEIGHTS_NAME in str(fault)


def test_a_torch_save_archive_is_refused_unopened(model: Path, tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "w.pt")
    replace_weights(model, (tmp_path / "w.pt").read_bytes())
    assert refusal(model).code == "MO-01"
    replace_weights(model, _zip_archive(tmp_path / "a.zip"))
    assert refusal(model).code == "MO-01"


def test_no_module_of_the_package_can_unpickle() -> None:
    """MO-02: nobody imports pickle, calls torch.load or lets numpy unpickle, but two readers of checkpoints.

    The importer of published weights and the reader of a training run's own checkpoints call torch.load once each,
    with ``weights_only=True``, and need pickle's name for its error.
    """
    modules = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    importers = {SOURCE / "published_files.py", SOURCE / "trainer" / "checkpoints.py"}
    for path in importers:
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
        ]
        assert [ast.unparse(k.value) for c in calls for k in c.keywords if k.arg == "weights_only"] == [
            "True"
        ], path
        assert len(calls) == 1, path
    for path in set(SOURCE.rglob("*.py")) - importers:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not modules & {alias.name.split(".")[0] for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in modules, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
        assert "allow_pickle" not in path.read_text(), path


def test_weights_cut_at_200_lengths_are_refused_with_both_sizes(model: Path) -> None:
    manifest, data = load_manifest(model), (model / WEIGHTS_NAME).read_bytes()
    for length in random.Random(1).sample(range(len(data)), 200):
        (model / WEIGHTS_NAME).write_bytes(data[:length])
        with pytest.raises(CheckpointError) as caught:
            load_weights(model, manifest)
        assert caught.value.code == "MO-03"
        assert f"{length} bytes, expected {len(data)}" in str(caught.value)


def test_cut_weights_are_refused_even_where_the_manifest_vouches_for_them(model: Path) -> None:
    data = (model / WEIGHTS_NAME).read_bytes()
    for length in [1, 5, 7, 8, 20, len(data) // 2, len(data) - 1]:
        replace_weights(model, data[:length])
        assert refusal(model).code == "MO-03"


def test_trailing_bytes_are_refused_with_both_sizes(model: Path) -> None:
    path = model / WEIGHTS_NAME
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0" * 1000)
    assert f"{size + 1000} bytes, expected {size}" in str(refusal(model))
    replace_weights(model, path.read_bytes())
    assert refusal(model).code == "MO-03"


@pytest.mark.parametrize("length", [0, 9, 10**8, 2**40, 2**63 - 1, 2**64 - 1])
def test_an_absurd_header_length_is_refused_without_allocating(model: Path, length: int) -> None:
    replace_weights(model, struct.pack("<Q", length) + (model / WEIGHTS_NAME).read_bytes()[8:])
    assert refusal(model).code == "MO-03"


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><title>404</title>", "web page"),
        (b"\n  <html>proxy</html>", "web page"),
        (b"\0" * 300, "safetensors"),
        (b"{}", "safetensors"),
    ],
)
def test_a_file_of_another_kind_is_recognised(model: Path, data: bytes, hint: str) -> None:
    (model / WEIGHTS_NAME).write_bytes(data)
    assert refusal(model).code == "MO-03"
    replace_weights(model, data)
    assert hint in str(refusal(model))


def test_a_thousand_single_flipped_bits_are_all_refused(model: Path) -> None:
    manifest, data = load_manifest(model), (model / WEIGHTS_NAME).read_bytes()
    chance = random.Random(2)
    for _ in range(1000):
        broken = bytearray(data)
        broken[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (model / WEIGHTS_NAME).write_bytes(broken)
        with pytest.raises(CheckpointError) as caught:
            load_weights(model, manifest)
        assert caught.value.code == "MO-04"


def test_two_swapped_tensors_are_refused(tmp_path: Path) -> None:
    state = {"a": torch.ones(2, 3), "b": torch.zeros(2, 3)}
    save(tmp_path / "m", state=state)
    save(tmp_path / "n", state={"a": state["b"], "b": state["a"]})
    (tmp_path / "m" / WEIGHTS_NAME).write_bytes((tmp_path / "n" / WEIGHTS_NAME).read_bytes())
    assert refusal(tmp_path / "m").code == "MO-04"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_refused_by_name(
    model: Path, value: float, dtype: torch.dtype
) -> None:
    digest = load_manifest(model).config_sha256
    bad = torch.zeros(4, 5)
    bad[2, 3] = value
    tensors = {"good": torch.ones(3), "deep.layer.weight": bad.to(dtype)}
    replace_weights(model, serialise(tensors, metadata={"neuromend_config_sha256": digest}))
    fault = refusal(model)
    assert fault.code == "MO-05"
    assert "'deep.layer.weight' holds 1 values" in str(fault)


def test_an_edited_config_is_refused(model: Path) -> None:
    edit_manifest(model, config={"width": 4, "levels": [1, 2]})
    fault = refusal(model)
    assert fault.code == "MO-09"
    assert "'config'" in str(fault)
    config = {"width": 4, "levels": [1, 2]}
    edit_manifest(model, config=config, config_sha256=config_digest(config))
    assert refusal(model).code == "MO-09"


def test_weights_without_a_config_digest_are_refused(model: Path) -> None:
    replace_weights(model, serialise({"a": torch.ones(2)}))
    assert refusal(model).code == "MO-09"


@pytest.mark.parametrize("found", [2, 10**9, 0, -1, "1", 1.0, True, None])
def test_another_format_version_is_refused_with_the_version_needed(model: Path, found: object) -> None:
    edit_manifest(model, format_version=found, neuromend_version="7.8.9", a_new_field=1)
    fault = refusal(model)
    assert fault.code == "MO-08"
    assert "7.8.9" in str(fault)
    assert repr(found) in str(fault)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_file", "../../etc/passwd.safetensors"),
        ("weights_file", "weights.pt"),
        ("weights_file", "/abs/w.safetensors"),
        ("weights_bytes", "12"),
        ("weights_bytes", 0),
        ("weights_sha256", "ABC"),
        ("name", "../x"),
        ("name", "<img src=x>"),
        ("dtype", "float8"),
        ("ema", "yes"),
        ("ema", 1),
        ("licence", ""),
        ("config", []),
        ("trained_range", {"modalities": []}),
        ("unknown_field", 1),
    ],
)
def test_a_manifest_that_breaks_its_schema_is_refused_naming_the_field(
    model: Path, field: str, value: object
) -> None:
    edit_manifest(model, **{field: value})
    fault = refusal(model)
    assert fault.code == "MO-03"
    assert field in str(fault)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\0\1", '{"a":' * 5000, "NaN", "x" * (1 << 20) + "x"]
)
def test_a_manifest_that_is_no_json_object_is_refused(model: Path, text: str) -> None:
    (model / MANIFEST_NAME).write_text(text)
    assert refusal(model).code == "MO-03"


def test_a_missing_manifest_and_missing_weights_are_refused(model: Path, tmp_path: Path) -> None:
    (model / WEIGHTS_NAME).unlink()
    assert refusal(model).code == "MO-16"
    (model / MANIFEST_NAME).unlink()
    assert refusal(model).code == "MO-16"
    assert refusal(tmp_path / "nowhere").code == "MO-16"


def test_a_missing_or_unexpected_tensor_is_refused_by_name() -> None:
    state = dict(Net().state_dict())
    state["stranger"] = state.pop("first.bias")
    with pytest.raises(CheckpointError) as caught:
        load_into(Net(), state, path="m")
    assert (caught.value.code, caught.value.exit_status) == ("MO-07", 78)
    assert "missing tensors: first.bias; unexpected tensors: stranger" in str(caught.value)
    with pytest.raises(CheckpointError, match="and 3 more"):
        load_into(Net(), {})


def test_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_into(Net(3), Net(5).state_dict())
    assert caught.value.code == "MO-06"
    assert "'first.weight' has shape (5, 2, 1, 1, 1), expected (3, 2, 1, 1, 1)" in str(caught.value)


def test_licence_and_missing_average_are_told(tmp_path: Path) -> None:
    averaged, raw = save(tmp_path / "m"), save(tmp_path / "n", ema=False)
    assert [(f.code, f.level) for f in manifest_findings(averaged)] == [("MO-15", "note")]
    assert "CC-BY-NC-4.0" in manifest_findings(averaged)[0].message
    assert [(f.code, f.level) for f in manifest_findings(raw)] == [("MO-15", "note"), ("MO-10", "warning")]
