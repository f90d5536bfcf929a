"""Weights on disk: safetensors beside a manifest with SHA-256, written whole, checked at every load.

No function here, and nothing on the way to a fill, opens a pickle (MO-01, MO-02). The manifest's schema and
checks are in :mod:`neuromend.manifest`. Faults of model files are
:class:`~neuromend.errors.CheckpointError` (exit status 78).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor, nn

from neuromend.errors import CheckpointError, NeuromendError, OutputError, OutputPermissionError, StorageError
from neuromend.manifest import (
    CARD_NAME,
    FORMAT_VERSION,
    LICENCE_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    Manifest,
    TrainedRange,
    config_digest,
    load_manifest,
)

__all__ = ["Manifest", "TrainedRange", "load_into", "load_manifest", "load_weights", "save_model"]

#: Key of the config's digest in the safetensors header, so that the weights' SHA-256 covers it.
_CONFIG_KEY = "neuromend_config_sha256"


def save_model(
    folder: Path | str,
    state_dict: Mapping[str, Tensor],
    *,
    name: str,
    description: str,
    method: str,
    config: Mapping[str, Any],
    trained_range: TrainedRange,
    licence: str,
    licence_text: str,
    card: str,
    training: Mapping[str, Any],
    ema: bool,
    dtype: torch.dtype = torch.bfloat16,
    overwrite: bool = False,
) -> Manifest:
    """Write a model folder and return its manifest.

    The four files are written and fsynced in a hidden folder beside ``folder`` and renamed into place, so
    that ``folder`` is whole or absent at any moment. Floating-point tensors are stored as ``dtype``, others
    as they are.

    Raises:
        CheckpointError: MO-05, a tensor holds NaN or Inf (such weights are never saved).
        OutputError: RT-04, the folder exists and ``overwrite`` is False.
        OutputPermissionError, StorageError: no permission, disk full.
    """
    _check_finite(state_dict, Path(folder))
    plain_config = json.loads(json.dumps(config, allow_nan=False))
    digest = config_digest(plain_config)
    stored = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in state_dict.items()
    }
    weights = serialise_safetensors(stored, metadata={_CONFIG_KEY: digest})
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        description=description,
        method=method,
        config=plain_config,
        config_sha256=digest,
        weights_file=WEIGHTS_NAME,
        weights_bytes=len(weights),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        dtype=str(dtype).removeprefix("torch."),  # type: ignore[arg-type]  # pydantic checks it
        ema=ema,
        trained_range=trained_range,
        licence=licence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        neuromend_version=version("neuromend"),
        training=json.loads(json.dumps(training, allow_nan=False)),
    )
    with _whole_folder(Path(folder), overwrite) as temporary:
        _write(temporary / WEIGHTS_NAME, weights)
        _write(temporary / CARD_NAME, card.encode())
        _write(temporary / LICENCE_NAME, licence_text.encode())
        _write(temporary / MANIFEST_NAME, manifest.to_json().encode())
    return manifest


def load_weights(folder: Path | str, manifest: Manifest) -> dict[str, Tensor]:
    """The tensors of a model as float32 (integer ones unchanged) on the CPU, by name.

    The file is read once; size, SHA-256, layout, config digest and finiteness are checked on those bytes.

    Raises:
        CheckpointError: MO-16 absent, MO-01 a pickle, MO-03 wrong size or layout, MO-04 wrong hash,
            MO-09 trained with another config, MO-05 NaN or Inf.
    """
    path = Path(folder) / manifest.weights_file
    data = _read_checked(path, manifest)
    try:
        tensors = parse_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise _damaged(path, data[:64], f"not a sound safetensors file ({error})") from error
    inside = header.get("__metadata__", {}).get(_CONFIG_KEY)
    if inside != manifest.config_sha256:
        raise CheckpointError(
            "MO-09",
            f"the weights were trained with config {str(inside)[:12]}..., "
            f"the manifest describes {manifest.config_sha256[:12]}...",
            why="weights under another config give another network, with plausible but wrong fills",
            fix="restore weights and manifest from the same export",
            path=path,
        )
    _check_finite(tensors, path)
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def load_into(module: nn.Module, state: Mapping[str, Tensor], *, path: Path | str | None = None) -> None:
    """Copy ``state`` into ``module``; every name and every shape must agree.

    Raises:
        CheckpointError: MO-07 missing or unexpected names, MO-06 another shape.
    """
    expected = module.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        raise CheckpointError(
            "MO-07",
            f"missing tensors: {_some(missing)}; unexpected tensors: {_some(unexpected)}",
            why="a tensor that is not loaded would stay random, and the fill with it",
            fix="use a model exported for this method and this version (`neuromend models`)",
            path=path,
        )
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise CheckpointError(
                "MO-06",
                f"tensor '{key}' has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}",
                why="the weights belong to a network of another width or with other channels",
                fix="use the manifest and the weights of one export",
                path=path,
            )
    module.load_state_dict(dict(state), strict=True)


def _read_checked(path: Path, manifest: Manifest) -> bytes:
    """The bytes of the weights file, once size and SHA-256 agree with the manifest."""
    try:
        size = path.stat().st_size
        # One byte more than promised is enough to see that a file is too long, however long it is.
        with path.open("rb") as file:
            data = file.read(manifest.weights_bytes + 1)
    except OSError as error:
        raise CheckpointError(
            "MO-16",
            f"the weights cannot be read ({error.strerror})",
            why=f"the manifest of '{manifest.name}' names this file",
            fix="restore the model folder from where it came",
            path=path,
        ) from error
    if len(data) != manifest.weights_bytes:
        raise _damaged(path, data[:64], f"{size} bytes, expected {manifest.weights_bytes}")
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.weights_sha256:
        raise CheckpointError(
            "MO-04",
            f"SHA-256 is {found[:16]}..., expected {manifest.weights_sha256[:16]}...",
            why="at least one byte differs from the weights that were published, which can change any fill",
            fix="restore the weights file from where it came, then run `neuromend models verify`",
            path=path,
        )
    return data


def _damaged(path: Path, start: bytes, what: str) -> CheckpointError:
    """The error for a file that is not the expected safetensors, naming what it is where that can be seen."""
    code, fix = "MO-03", "copy or download the weights file again, whole"
    if start.startswith(b"version https://git-lfs"):
        what, fix = f"a git-LFS pointer, not the weights ({what})", "git lfs pull"
    elif start.lstrip()[:1] == b"<":
        what = f"a web page, not the weights ({what})"
    elif start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and any(start[2:8])):
        code, fix = "MO-01", "use the safetensors export of the model; neuromend never opens pickles"
        what = f"a pickle or zip archive under the name of safetensors ({what})"
    why = "weights that are cut, padded or of another kind cannot be used, and pickles can run code"
    return CheckpointError(code, what, why=why, fix=fix, path=path)


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for key, value in tensors.items():
        bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
        if bad:
            raise CheckpointError(
                "MO-05",
                f"tensor '{key}' holds {bad} values that are NaN or Inf (of {value.numel()})",
                why="one such weight makes the whole fill NaN",
                fix="use a model saved before training diverged",
                path=path,
            )


def _some(names: list[str]) -> str:
    """Up to four names, and how many more."""
    shown = ", ".join(names[:4]) or "none"
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


@contextmanager
def _whole_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder that takes the place of ``target`` when the block ends well, and vanishes otherwise."""
    if target.exists() and not overwrite:
        raise OutputError(
            "RT-04",
            "the folder exists",
            why="a model that is there is never replaced unasked",
            fix="choose another folder or pass overwrite=True",
            path=target,
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _fsync(temporary)
        if target.exists():
            target.rename(retired)
        temporary.rename(target)
        _fsync(target.parent)
    except OSError as error:
        if retired.exists() and not target.exists():
            retired.rename(target)
        raise _storage_fault(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync(folder: Path) -> None:
    """Make a rename in ``folder`` durable; only POSIX systems can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _storage_fault(error: OSError, target: Path) -> NeuromendError:
    why = "nothing was written; an older model in this place is untouched"
    if isinstance(error, NeuromendError):
        return error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "choose a folder that you may write to"
        return OutputPermissionError(
            "RT-02", f"no permission ({error.strerror})", why=why, fix=fix, path=target
        )
    return StorageError(
        "RT-03", f"{error.strerror}", why=why, fix="free space or choose another disk", path=target
    )
