"""Which sources a run is bound to: those that decide its weights, and no others (TR-05)."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import neuromend
import neuromend.train
from neuromend.methods import METHODS
from neuromend.trainer import identity
from neuromend.trainer.config import make_config
from neuromend.trainer.identity import ASIDE, code_digests

from .test_train import SETTINGS
from .tiny_data import write_tiny_data

PACKAGE = Path(neuromend.__file__).parent


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, in whose place the identity is taken."""
    shutil.copytree(
        PACKAGE, tmp_path / "neuromend", ignore=lambda folder, names: [n for n in names if "." in n[:-3]]
    )
    monkeypatch.setattr(neuromend, "__file__", str(tmp_path / "neuromend" / "__init__.py"))
    return tmp_path / "neuromend"


DECIDING = (
    "train.py", "wavelets.py", "methods/fastwavelet3d.py", "networks/fast_unet3d.py", "diffusion/process.py",
    "corpus/holes.py", "data/intensity.py", "trainer/state.py", "trainer/feeding.py",
)  # fmt: skip
OTHERS = (
    "__init__.py", "cli.py", "cli_train.py", "filling.py", "report/__init__.py", "cohort/engine.py",
    "corpus/preparing.py", "data/outputs.py", "methods/__init__.py", "methods/slice2d.py", "networks/unet.py",
    "trainer/export.py", "trainer/journal.py", "trainer/presets.py", "trainer/locking.py",
)  # fmt: skip


def edit(file: Path) -> None:
    with file.open("a") as source:
        source.write("# edited\n")


def test_an_edit_of_what_decides_the_weights_is_told_by_name(copy: Path) -> None:
    before = code_digests("fastwavelet3d")
    for file in DECIDING:
        edit(copy / file)
        after = code_digests("fastwavelet3d")
        changed = [name for name in before if before[name] != after[name]]
        assert changed == [file.removesuffix(".py").replace("/", ".")]
        before = after


def test_an_edit_of_anything_else_lets_a_run_go_on(copy: Path) -> None:
    before = code_digests("fastwavelet3d")
    for file in OTHERS:
        edit(copy / file)
    assert code_digests("fastwavelet3d") == before


def test_every_method_is_bound_to_its_own_module_and_network() -> None:
    for name, kind in METHODS.items():
        found = code_digests(name)
        assert kind.__module__.removeprefix("neuromend.") in found
        assert any(module.startswith("networks.") for module in found)
        assert {"train", "trainer.state", "corpus.drawing"} <= found.keys()
        others = {other.__module__.removeprefix("neuromend.") for other in METHODS.values()}
        if name != "latent3d":
            assert "methods.latent3d" not in found
        assert len(others & found.keys()) <= 2


@pytest.mark.parametrize("method", ["unet3d", "fastwavelet3d", "pseudo3d"])
def test_no_other_source_takes_part_in_a_step(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path / "data")
    seen: set[str] = set()
    whole = neuromend.train.training_step

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    def watched(*arguments: Any) -> bool:
        sys.setprofile(note)
        try:
            return whole(*arguments)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(neuromend.train, "training_step", watched)
    config = make_config(method, preset="tiny", overrides=(*SETTINGS, "steps=2", "dev_cases=0"))
    neuromend.train.train(config, tmp_path / "data", tmp_path / "run", say=lambda line: None)
    files = [Path(name) for name in seen if Path(name).is_relative_to(PACKAGE)]
    modules = {".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files}
    aside = {name.removeprefix("neuromend.") for name in ASIDE}
    assert {"train", "trainer.tasks", "trainer.state", "trainer.feeding", "corpus.drawing"} <= modules
    assert modules - code_digests(method).keys() <= aside
    assert modules & aside <= {"trainer.journal", "trainer.guards"}


def test_what_is_left_aside_is_there_and_imports_are_spelt_in_full() -> None:
    for name in ASIDE:
        assert identity._source(name).is_file(), name
    for file in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_bytes()))
        assert not [n for n in nodes if isinstance(n, ast.ImportFrom) and n.level], file
