"""Which models are there, found by name or path, without importing torch until one is built.

Three places are searched, in this order: the classical fills (no weights), the folders packaged with
neuromend (``neuromend/models/<folder>/manifest.json``) and the folders inside ``$NEUROMEND_MODELS``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromend.errors import CheckpointError
from neuromend.findings import Finding
from neuromend.manifest import (
    AUTOENCODER,
    CARD_NAME,
    LICENCE_NAME,
    MANIFEST_NAME,
    Manifest,
    load_manifest,
    manifest_findings,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_MODEL = "fastwavelet3d-default"
#: Environment variable with a folder of model folders.
MODELS_VARIABLE = "NEUROMEND_MODELS"
PACKAGED = Path(__file__).parent

CLASSICAL_DESCRIPTIONS = {
    "harmonic": "Laplace's equation with the tissue around the lesion as boundary values",
    "ring-mean": "mean of the tissue around each lesion",
    "mirror": "the same place in the other hemisphere",
    "patch": "weighted mean of the voxels around whose surroundings look most alike (Prados 2016)",
    "white-matter": "random draws from the white matter around each lesion (Battaglini 2012)",
}
#: Suffixes under which pickles travel; such a file is refused by name and never opened.
_PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin"}


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the list of models.

    Attributes:
        name: what ``--model`` takes.
        folder: the model folder; None for a classical fill.
        manifest: its facts; None for a classical fill, and where the folder is faulty.
        problem: why the model cannot be used; None where its manifest is sound.
    """

    name: str
    description: str
    folder: Path | None = None
    manifest: Manifest | None = None
    problem: CheckpointError | None = None

    @property
    def is_classical(self) -> bool:
        """True for a fill without weights."""
        return self.folder is None

    @property
    def licence(self) -> str:
        """The licence of the weights; classical fills are code."""
        if self.is_classical:
            return "Apache-2.0 (no weights)"
        return self.manifest.licence if self.manifest else "unknown"


def available_models() -> list[ModelEntry]:
    """Every model found, faulty folders included (``problem`` is set); the first of two equal names wins."""
    entries = {name: ModelEntry(name, text) for name, text in CLASSICAL_DESCRIPTIONS.items()}
    shadowed: list[ModelEntry] = []
    user = os.environ.get(MODELS_VARIABLE)
    for place in [PACKAGED, *([Path(user).expanduser()] if user else [])]:
        for path in sorted(place.glob(f"*/{MANIFEST_NAME}")):
            entry = _read_entry(path.parent)
            if entry.name in entries:
                shadowed.append(_shadowed(entry, entries[entry.name]))
            else:
                entries[entry.name] = entry
    return [*entries.values(), *shadowed]


def resolve_model(name_or_path: str | Path = DEFAULT_MODEL) -> ModelEntry:
    """The model with this name, or in this folder; a known name wins over a folder called the same.

    Raises:
        CheckpointError: MO-16 unknown name, MO-01 a pickle file, or the fault of the model's manifest.
    """
    wanted = str(name_or_path)
    known = available_models()
    for entry in known:
        if entry.name == wanted:
            if entry.problem is not None:
                raise entry.problem
            return entry
    path = Path(wanted).expanduser()
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CheckpointError(
            "MO-01",
            f"'{path.suffix}' files are pickles",
            why="a pickle can run any code when it is opened, so neuromend never opens one",
            fix=f"give a model folder with {MANIFEST_NAME} and safetensors weights",
            path=path,
        )
    if path.is_dir():
        return ModelEntry((manifest := load_manifest(path)).name, manifest.description, path, manifest)
    if path.is_file():
        raise CheckpointError(
            "MO-16",
            "this is a file, expected a model folder",
            why="weights are used only together with the manifest that vouches for them",
            fix=f"--model {path.parent}",
            path=path,
        )
    names = ", ".join(entry.name for entry in known if entry.problem is None)
    raise CheckpointError(
        "MO-16",
        f"there is no model '{wanted}'; known: {names}",
        why="the fill needs a model",
        fix=f"choose one of these names, give a model folder, or set ${MODELS_VARIABLE}",
    )


def verify_model(entry: ModelEntry) -> list[Finding]:
    """Check everything about a model but its use: manifest, size, SHA-256, layout, finiteness, papers.

    Raises:
        CheckpointError: the first fault found.
    """
    if entry.problem is not None:
        raise entry.problem
    if entry.folder is None or entry.manifest is None:
        return [Finding("MO-04", "pass", f"'{entry.name}' is a classical fill and has no weights.")]
    from neuromend.checkpoint import load_weights

    tensors = load_weights(entry.folder, entry.manifest)
    size = f"{entry.manifest.weights_bytes / 1e6:.1f} MB"
    digest = entry.manifest.weights_sha256[:16]
    message = f"'{entry.name}': {len(tensors)} tensors, {size}, SHA-256 {digest}... as in the manifest."
    missing = [name for name in (CARD_NAME, LICENCE_NAME) if not (entry.folder / name).is_file()]
    papers = [Finding("MO-15", "warning", f"'{entry.name}' has no {name}.") for name in missing]
    return [Finding("MO-04", "pass", message), *manifest_findings(entry.manifest), *papers]


def load_method(entry: ModelEntry, device: torch.device) -> nn.Module:
    """Build the network of a model with weights, checked, in evaluation mode, as float32 on ``device``.

    Raises:
        CheckpointError: any fault of the model; MO-06 where its method or config is not known here.
        ValueError: for a classical fill, which is a function and not a network.
    """
    module = build_method(entry)
    from neuromend.checkpoint import load_into, load_weights

    assert entry.folder is not None
    assert entry.manifest is not None
    weights = load_weights(entry.folder, entry.manifest)
    load_into(module, weights, path=entry.folder / entry.manifest.weights_file)
    return module.to(device).eval()


def build_method(entry: ModelEntry) -> nn.Module:
    """The network of a model with random weights, from its manifest alone.

    Raises:
        CheckpointError, ValueError: as :func:`load_method` does.
    """
    if entry.problem is not None:
        raise entry.problem
    if entry.folder is None or entry.manifest is None:
        raise ValueError(f"'{entry.name}' is a classical fill; see neuromend.methods.classical")
    from neuromend.methods import METHODS

    manifest, folder = entry.manifest, entry.folder
    if manifest.method == AUTOENCODER:
        raise CheckpointError(
            "MO-06",
            "this is the autoencoder of latent3d alone, which fills nothing",
            why="latent3d needs the diffusion in its latent space too",
            fix="import it beside the file of the diffusion (neuromend import-weights --autoencoder), "
            f"or train one: neuromend train --method latent3d --init-from '{folder}'",
            path=folder / MANIFEST_NAME,
        )
    if manifest.method not in METHODS:
        raise CheckpointError(
            "MO-06",
            f"field 'method' is '{manifest.method}', expected one of {', '.join(METHODS)}",
            why="this version of neuromend has no such method",
            fix=f"pip install --upgrade 'neuromend>={manifest.neuromend_version}'",
            path=folder / MANIFEST_NAME,
        )
    method: Any = METHODS[manifest.method]
    module: nn.Module = method(_build_config(method.Config, manifest, folder / MANIFEST_NAME))
    return module


def _build_config(config_class: Any, manifest: Manifest, path: Path) -> Any:
    """The method's frozen ``Config``; every field must be there, none may be unknown, types are strict."""
    import json

    from pydantic import TypeAdapter, ValidationError

    wanted = {field.name for field in fields(config_class) if field.init}
    differing = sorted(wanted ^ set(manifest.config))
    what = f"field 'config' and {manifest.method}.Config differ in {', '.join(differing)}"
    if not differing:
        try:
            return TypeAdapter(config_class).validate_json(json.dumps(manifest.config), strict=True)
        except (ValidationError, ValueError, TypeError) as error:
            what = f"field 'config' does not fit {manifest.method}.Config: {str(error)[:200]}"
    raise CheckpointError(
        "MO-06",
        what,
        why="the network cannot be built as it was trained",
        fix=f"use neuromend {manifest.neuromend_version}, which made this model, or a newer export",
        path=path,
    )


def _read_entry(folder: Path) -> ModelEntry:
    try:
        manifest = load_manifest(folder)
    except CheckpointError as problem:
        return ModelEntry(folder.name, problem.what, folder, problem=problem)
    return ModelEntry(manifest.name, manifest.description, folder, manifest)


def _shadowed(entry: ModelEntry, winner: ModelEntry) -> ModelEntry:
    """The same entry, unusable by name because the name is taken."""
    problem = CheckpointError(
        "MO-16",
        f"the name '{entry.name}' is taken by {winner.folder or 'a classical fill'}",
        why="one name must mean one model",
        fix=f"use it by its path (--model {entry.folder}) or rename it in its manifest",
        path=entry.folder,
    )
    return ModelEntry(entry.name, problem.what, entry.folder, problem=problem)
