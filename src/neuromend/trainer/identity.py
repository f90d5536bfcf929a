"""What may not change while a run goes on: settings, data, code, PyTorch and the number of processes (TR-05)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import neuromend
from neuromend.errors import CheckpointError
from neuromend.trainer.config import RunConfig

DECISIVE_CODE = ("train.py", "wavelets.py", "trainer", "corpus", "methods", "networks", "diffusion", "data")
"""The parts of the package that the weights depend on."""


def identity(config: RunConfig, data_digest: str, world: int) -> dict[str, Any]:
    """Everything that decides the weights of a run, by name."""
    return {
        **{f"config.{name}": value for name, value in config.decisive().items()},
        "data": data_digest,
        "code": code_digest(),
        "neuromend": version("neuromend"),
        "torch": str(torch.__version__),
        "processes": world,
    }


def code_digest() -> str:
    """SHA-256 of the sources that decide the weights: unlike a commit it also knows of edits not committed."""
    root = Path(str(neuromend.__file__)).parent
    digest = hashlib.sha256()
    for part in DECISIVE_CODE:
        place = root / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()


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
