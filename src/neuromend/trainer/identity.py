"""What may not change while a run goes on: settings, data, code, PyTorch and the number of processes (TR-05)."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import neuromend
from neuromend.errors import CheckpointError
from neuromend.methods import METHODS
from neuromend.trainer.config import RunConfig

ASIDE = frozenset(
    {
        "neuromend", "neuromend.methods", "neuromend.errors", "neuromend.findings", "neuromend.interrupts",
        "neuromend.provenance", "neuromend.manifest", "neuromend.checkpoint", "neuromend.data.atomic",
        *(f"neuromend.trainer.{name}" for name in (
            "checkpoints", "export", "guards", "identity", "journal", "locking", "presets", "previews", "scores",
            "telling",
        )),
    }
)  # fmt: skip
"""Modules that a training imports and its weights do not depend on: they read, watch, write, score and report. (What
``methods`` and ``presets`` list is part of the settings.) Whatever is imported and not named here counts."""


def identity(config: RunConfig, data_digest: str, world: int) -> dict[str, Any]:
    """Everything that decides the weights of a run, by name."""
    return {
        **{f"config.{name}": value for name, value in config.decisive().items()},
        "data": data_digest,
        **{f"code.{name}": digest for name, digest in code_digests(config.method).items()},
        "neuromend": version("neuromend"),
        "torch": str(torch.__version__),
        "processes": world,
    }


def code_digests(method: str) -> dict[str, str]:
    """SHA-256 of each source that decides the weights of a method; edits that were not committed count too.

    These are the method's module, the loop (train.py), and what they import of this package, directly or through
    others; other methods only where this one is built of them.
    """
    every = {kind.__module__ for kind in METHODS.values()}
    own = METHODS[method].__module__
    modules = imported(own, ASIDE) | imported("neuromend.train", ASIDE | (every - {own}))
    return {
        name.removeprefix("neuromend."): hashlib.sha256(_source(name).read_bytes()).hexdigest()
        for name in sorted(modules)
    }


def imported(module: str, aside: Collection[str]) -> set[str]:
    """A module of this package and all of its modules that it imports, wherever in the text; none through ``aside``."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        for node in ast.walk(ast.parse(_source(name).read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                waiting |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                waiting |= {alias.name for alias in node.names}
        waiting = {
            n for n in waiting - found - set(aside) if n.startswith("neuromend.") and _source(n).is_file()
        }
    return found


def _source(module: str) -> Path:
    """The file of a module of this package; where there is none, a path that leads nowhere."""
    place = Path(str(neuromend.__file__)).parent.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that is not as it was."""
    before, now = json.loads(json.dumps(before)), json.loads(json.dumps(now))
    return [
        f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def refuse_change(changes: list[str], run: Path) -> None:
    """Stop if anything changed.

    Raises:
        CheckpointError: TR-05, listing every difference.
    """
    if changes:
        raise CheckpointError(
            "TR-05",
            "this is not the run that the checkpoint belongs to: " + "; ".join(changes),
            why="a run that changes on the way cannot be repeated, and its curve misleads",
            fix="give the options of the run (config.toml), another --out, or --allow-config-change to record the "
            "change and go on",
            path=run,
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:16] + "..."
