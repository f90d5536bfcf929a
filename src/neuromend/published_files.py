"""The files of the authors of published methods: torch pickles, opened by torch's restricted loader alone.

``torch.load(weights_only=True)`` builds tensors and plain containers and runs no code (MO-01). Known shapes of file: a
bare state dict, one wrapped as ``model``, ``ema`` or ``state_dict`` (Lightning), each also with the ``module.`` of
parallel training before every name.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuromend.errors import CheckpointError, MissingInputError

_INERT = ("argparse.", "omegaconf.", "pathlib.", "pytorch_lightning.", "typing.")
"""Modules whose objects stand beside the tensors in Lightning files; they are read as empty shells."""

_INERT_TYPES = {
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "collections.defaultdict",
}
"""Types that the settings in Lightning files (OmegaConf) name beside their values; shells as well."""


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The named tensors of a checkpoint, without wrappers, and whether they are a moving average (EMA).

    Where a file has both, the moving average is taken: it is the one to sample from.
    """
    content, ema = _load(path), path.name.startswith("ema")
    for wrapper in ("ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content, ema = content[wrapper], ema or wrapper == "ema"
            break
    if not isinstance(content, Mapping) or not content:
        raise _no_weights(path, f"a {type(content).__name__}, expected named tensors")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise _no_weights(path, f"'{key}' is a {type(value).__name__}, expected a tensor")
    parallel = all(str(key).startswith("module.") for key in content)
    return {str(key).removeprefix("module.") if parallel else str(key): v for key, v in content.items()}, ema


_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
"""How files of torch.save begin; before torch 1.6 they were bare pickles."""


class _Shell:
    """What stands for an object that is not needed: it takes anything and keeps nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _load(path: Path) -> Any:
    if not path.is_file():
        raise MissingInputError(
            "IN-38",
            "there is no such file",
            why="it should hold published weights",
            fix="check the path, or fetch the file of the authors with --from-hub",
            path=path,
        )
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error
    if not start.startswith((_ZIP, _PICKLE)):
        raise _damaged(path, _seems(start))
    try:
        if start.startswith(_ZIP) and (part := zipfile.ZipFile(path).testzip()) is not None:
            raise _damaged(
                path, f"the checksum of its part '{part}' does not fit"
            )  # torch.load does not look
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except ValueError:  # files of before torch 1.6 cannot be asked
            names = []
        shells = [(_Shell, name) for name in names if name.startswith(_INERT) or name in _INERT_TYPES]
        with torch.serialization.safe_globals(shells):  # type: ignore[arg-type]
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "global" not in str(error).lower():
            raise _damaged(path, f"damaged ({type(error).__name__})") from error
        raise CheckpointError(
            "MO-01",
            "the file holds more than tensors, and opening it could run code",
            why="published weights are read by torch's restricted loader alone, which refused this file",
            fix="export the state dict: torch.save(model.state_dict(), 'weights.pt') where you trust the file",
            path=path,
        ) from error
    except Exception as error:  # what torch raises depends on where the file is cut
        raise _damaged(path, f"damaged ({type(error).__name__})") from error


def _seems(start: bytes) -> str:
    """What a file that begins so may be."""
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer, not the weights: run `git lfs pull` where it came from"
    return "a web page" if start.lstrip()[:1] == b"<" else f"something else (it begins with {start[:8]!r})"


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        "MO-03",
        f"this is no whole file of torch.save: {what}",
        why="weights that are cut or of another kind cannot be used",
        fix="copy or download the file again, whole",
        path=path,
    )


def _no_weights(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        "MO-06",
        what,
        why="a file of weights maps names to tensors, bare or under 'model', 'ema' or 'state_dict'",
        fix="give the file of the weights; files named opt... hold the state of the optimiser",
        path=path,
    )
