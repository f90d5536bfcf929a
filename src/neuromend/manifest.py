"""What stands beside a model's weights: the manifest, its schema and its checks. Does not import torch.

A model is a folder with four files::

    weights.safetensors    the tensors; pickle-based files are never opened (MO-01)
    manifest.json          this schema: what the weights are, their size and SHA-256
    MODEL_CARD.md          data, split, scores, limits, for people
    LICENSE-WEIGHTS.md     the terms of the weights (the code has its own licence)

Every fault found here is a :class:`~neuromend.errors.CheckpointError` (exit status 78).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from neuromend.errors import CheckpointError
from neuromend.findings import Finding

#: The newest layout of a model folder that this code reads, and the one it writes.
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
WEIGHTS_NAME = "weights.safetensors"
CARD_NAME = "MODEL_CARD.md"
LICENCE_NAME = "LICENSE-WEIGHTS.md"
#: What the manifest of latent3d's autoencoder alone says in place of a method; it fills nothing.
AUTOENCODER = "latent3d-autoencoder"
#: A manifest is a few kilobytes; a bigger file is something else and is not parsed.
MAX_MANIFEST_BYTES = 1 << 20

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TrainedRange(_Strict):
    """The inputs that the model was trained for; anything outside is filled with a warning.

    Attributes:
        modalities: BIDS suffixes, for example ``("T1w",)``.
        spacing_mm: smallest and largest voxel edge seen in training, in mm.
        coverage: whether the model saw skull-stripped scans, whole heads, or both.
    """

    modalities: tuple[str, ...] = Field(min_length=1)
    spacing_mm: tuple[float, float]
    coverage: tuple[Literal["skull-stripped", "whole-head"], ...] = Field(min_length=1)


class Manifest(_Strict):
    """The facts of one model. JSON on disk; strict: no unknown field, no silent conversion.

    Attributes:
        method: key of ``neuromend.methods.METHODS``, or ``AUTOENCODER``.
        config: the method's ``Config`` as JSON; every field present.
        config_sha256: :func:`config_digest` of ``config``; it stands in the weights' header too.
        weights_bytes: size of the weights file in bytes.
        dtype: storage type of the floating-point tensors (they are computed with in float32 or as asked).
        ema: True where the weights are the exponential moving average over training, the ones to sample from.
        created: UTC time, ISO 8601.
        training: free-form summary for people (data, steps, seed, hours, hardware, scores).
    """

    format_version: int = Field(ge=1)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    description: str = Field(max_length=300)
    method: str
    config: dict[str, JsonValue]
    config_sha256: str = Sha256
    weights_file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")
    weights_bytes: int = Field(gt=0)
    weights_sha256: str = Sha256
    dtype: Literal["float32", "bfloat16", "float16"]
    ema: bool
    trained_range: TrainedRange
    licence: str = Field(min_length=1)
    created: str
    neuromend_version: str
    training: dict[str, JsonValue]

    def to_json(self) -> str:
        """The text of ``manifest.json``: stable key order, two-space indent, final newline."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of a config as canonical JSON (keys sorted, no spaces), 64 hexadecimal digits."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def load_manifest(folder: Path | str) -> Manifest:
    """Read and check ``manifest.json`` of a model folder; the weights are not touched.

    Raises:
        CheckpointError: MO-16 no manifest, MO-03 damaged or with wrong fields, MO-08 made by a newer
            neuromend, MO-09 config edited by hand.
    """
    path = Path(folder) / MANIFEST_NAME
    raw = _parse(path)
    _check_format_version(path, raw)
    try:
        manifest = Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            "MO-03",
            f"field '{field}': {first['msg']} (found {str(first['input'])[:80]!r})",
            why="a manifest that does not follow its schema cannot vouch for the weights",
            fix="restore the model folder from where it came",
            path=path,
        ) from error
    found = config_digest(manifest.config)
    if found != manifest.config_sha256:
        raise CheckpointError(
            "MO-09",
            f"field 'config' has SHA-256 {found[:12]}..., expected {manifest.config_sha256[:12]}...",
            why="the config was edited after training, so the network would not be the one that was trained",
            fix="restore the manifest; to change a setting, train or export a model with it",
            path=path,
        )
    return manifest


def manifest_findings(manifest: Manifest) -> list[Finding]:
    """What a person should know about sound weights: their licence (MO-15), and if not averaged (MO-10)."""
    found = [Finding("MO-15", "note", f"the weights of '{manifest.name}' are licensed {manifest.licence}.")]
    if not manifest.ema:
        message = (
            f"'{manifest.name}' holds raw weights, not their moving average (EMA); fills may be noisier."
        )
        found.append(Finding("MO-10", "warning", message))
    return found


def _parse(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``, size checked before reading."""
    if not path.is_file():
        raise CheckpointError(
            "MO-16",
            f"there is no {MANIFEST_NAME} here, so this is not a model folder",
            why=f"a model is a folder with {MANIFEST_NAME}, {WEIGHTS_NAME}, {CARD_NAME} and {LICENCE_NAME}",
            fix="give the folder that holds the manifest, or a name that `neuromend models` lists",
            path=path.parent,
        )
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_MANIFEST_BYTES else ""
        raw = json.loads(text)
        problem = None if isinstance(raw, dict) else f"expected a JSON object, found {type(raw).__name__}"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:
        problem = f"{size} bytes that are no JSON manifest ({str(error)[:80]})"
    if problem is None:
        return dict(raw)
    raise CheckpointError(
        "MO-03",
        problem,
        why="without its manifest the weights cannot be checked",
        fix="restore the model folder from where it came",
        path=path,
    )


def _check_format_version(path: Path, raw: Mapping[str, Any]) -> None:
    """Look at the version before the schema: a newer schema has fields that this one does not know."""
    version = raw.get("format_version")
    if isinstance(version, int) and not isinstance(version, bool) and 1 <= version <= FORMAT_VERSION:
        return
    needed = str(raw.get("neuromend_version", "newer"))[:40]
    raise CheckpointError(
        "MO-08",
        f"field 'format_version' is {version!r}, expected 1 to {FORMAT_VERSION}",
        why=f"the model was made by neuromend {needed}, whose layout this version does not know",
        fix=f"pip install --upgrade 'neuromend>={needed}'",
        path=path,
    )
