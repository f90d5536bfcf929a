"""Published checkpoints, turned into model folders: names checked, nothing renamed in silence.

The authors' files are pickles. They are opened by ``torch.load(weights_only=True)`` alone, which builds tensors and
plain containers and runs no code (MO-01). Known shapes of file: a bare state dict, one wrapped as ``model``,
``ema`` or ``state_dict`` (Lightning), each also with the ``module.`` of parallel training before every name.
To add a method: one entry in ``PUBLISHED``.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuromend.checkpoint import save_model
from neuromend.errors import CheckpointError, MissingInputError, TemporaryError, UsageError
from neuromend.manifest import Manifest, TrainedRange
from neuromend.methods import METHODS
from neuromend.published_terms import CARD, TERMS_OF_THE_SIX, TERMS_UNKNOWN

HUB = "AliciaDurrer/DM_Inpainting"
"""Where the authors of the six methods published their weights, under the MIT licence."""

_INERT = ("argparse.", "omegaconf.", "pathlib.", "pytorch_lightning.", "typing.")
"""Modules whose objects stand beside the tensors in Lightning files; they are read as empty shells."""


@dataclass(frozen=True, slots=True)
class Source:
    """How the names in the authors' file become ours.

    Attributes:
        title: of the published model, for people.
        prefix: stands before every published name here.
        unused: beginnings of published names that sampling and training here do without.
        ones: tensors that the published file lacks and that are 1 in a trained model.
        licence: of the published weights, for the manifest.
        terms: the text of LICENSE-WEIGHTS.md.
    """

    title: str
    prefix: str = "network."
    unused: tuple[str, ...] = ()
    ones: tuple[str, ...] = ()
    licence: str = "MIT"
    terms: str = TERMS_OF_THE_SIX


PUBLISHED: dict[str, Source] = {
    "slice2d": Source("DDPM_2D_slice_wise"),
    "sequential2d": Source("DDPM_2D_seq_pos"),
    "pseudo3d": Source("DDPM_Pseudo3D"),
    "full3d": Source("DDPM_3D_mem_eff"),
    "wavelet3d": Source("WDM_3D"),
    "fastwdm3d": Source("fastWDM3D", licence="see LICENSE-WEIGHTS.md", terms=TERMS_UNKNOWN),
    "latent3d": Source(
        "LDM_3D",
        prefix="",
        unused=(
            "alphas_cumprod",
            "betas",
            "log_one_minus_",
            "posterior_",
            "sqrt_",
            "vqgan.image_discriminator.",
            "vqgan.perceptual_model.",
            "vqgan.video_discriminator.",
        ),
        ones=("vqgan.codebook.initialised",),
    ),
}


def import_weights(
    method: str,
    file: Path | str,
    out: Path | str,
    *,
    preset: str = "paper",
    overwrite: bool = False,
) -> Manifest:
    """Turn a published checkpoint into a model folder and return its manifest. Weights stay float32.

    Raises:
        UsageError: MO-16, no such method or preset.
        MissingInputError: IN-38, there is no such file.
        CheckpointError: MO-01 the file holds more than tensors, MO-03 it is damaged, MO-05 NaN or Inf, MO-06 another
            shape or no tensors, MO-07 missing or unexpected names.
        OutputError, OutputPermissionError, StorageError: as for :func:`neuromend.checkpoint.save_model`.
    """
    source, config = _source(method), _config(method, preset)
    path = Path(file)
    tensors, ema = read_checkpoint(path)
    expected = _expected(method, config)
    found = {
        source.prefix + key: value
        for key, value in tensors.items()
        if source.prefix + key in expected or not key.startswith(source.unused or ("\0",))
    }
    found |= {key: torch.ones(expected[key]) for key in source.ones if key not in found}
    _check(method, preset, expected, found, source, path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return save_model(
        out,
        found,
        name=f"{method}-published",
        description=f"{source.title}, weights of its authors, imported from {path.name}",
        method=method,
        config=asdict(config),
        trained_range=TrainedRange(modalities=("T1w",), spacing_mm=(1.0, 1.0), coverage=("skull-stripped",)),
        licence=source.licence,
        licence_text=source.terms.format(name=path.name, digest=digest, hub=HUB),
        card=CARD.format(title=source.title, method=method, name=path.name, digest=digest),
        training={"source_file": path.name, "source_sha256": digest, "published_model": source.title},
        ema=ema,
        dtype=torch.float32,
        overwrite=overwrite,
    )


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


def fetch_from_hub(name: str) -> Path:
    """The file of this name from the authors' public page, from the cache where it is there already.

    huggingface_hub resumes an interrupted download and checks what arrived.

    Raises:
        CheckpointError: MO-11, huggingface_hub is not installed, or the page has no such file.
        TemporaryError: MO-11, no network.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            "MO-11",
            "the library huggingface_hub is not installed",
            why=f"--from-hub fetches '{name}' from {HUB} with it",
            fix="pip install huggingface_hub, or download the file yourself and give its path",
        ) from error
    try:
        return Path(hf_hub_download(HUB, name))
    except LocalEntryNotFoundError as error:
        raise _no_network(name, error) from error
    except EntryNotFoundError as error:
        raise CheckpointError(
            "MO-11",
            f"{HUB} has no file '{name}'",
            why="the name must be the one on the page of the authors, with its folders",
            fix="look at the list of files on that page",
        ) from error
    except Exception as error:  # what a missing network raises depends on the HTTP library and its version
        raise _no_network(name, error) from error


def _no_network(name: str, error: Exception) -> TemporaryError:
    return TemporaryError(
        "MO-11",
        f"'{name}' could not be fetched from {HUB} ({type(error).__name__})",
        why="there is no network here, or the page does not answer",
        fix="try again with a network, or copy the file here and give its path without --from-hub",
    )


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
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except ValueError:  # files of before torch 1.6 cannot be asked
            names = []
        shells = [(_Shell, name) for name in names if name.startswith(_INERT)]
        with torch.serialization.safe_globals(shells):  # type: ignore[arg-type]
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "global" not in str(error).lower():
            raise _damaged(path, error) from error
        raise CheckpointError(
            "MO-01",
            "the file holds more than tensors, and opening it could run code",
            why="published weights are read by torch's restricted loader alone, which refused this file",
            fix="export the state dict: torch.save(model.state_dict(), 'weights.pt') where you trust the file",
            path=path,
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        "MO-03",
        f"this is no whole file of torch.save ({type(error).__name__})",
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


def _source(method: str) -> Source:
    if method in PUBLISHED and method in METHODS:
        return PUBLISHED[method]
    known = [name for name in PUBLISHED if name in METHODS]
    raise UsageError(
        "MO-16",
        f"--method is '{method}', expected one of {', '.join(known)}",
        why="these methods have published weights",
        fix=f"--method {known[0]}",
    )


def _config(method: str, preset: str) -> Any:
    presets: dict[str, Any] = METHODS[method].PRESETS
    if preset in presets:
        return presets[preset]
    raise UsageError(
        "MO-16",
        f"--preset is '{preset}', expected one of {', '.join(presets)}",
        why="it says how large the network is",
        fix="--preset paper",
    )


def _expected(method: str, config: Any) -> dict[str, torch.Size]:
    """Name and shape of every tensor of the method, at no cost: on the meta device."""
    build: Any = METHODS[method]
    with torch.device("meta"):
        return {key: value.shape for key, value in build(config).state_dict().items()}


def _check(
    method: str,
    preset: str,
    expected: Mapping[str, torch.Size],
    found: Mapping[str, Tensor],
    source: Source,
    path: Path,
) -> None:
    """Strictly the same names and shapes, or an error in the words of the file (without our prefix)."""
    cut = len(source.prefix)
    missing = [key[cut:] for key in expected if key not in found]
    unexpected = [key[cut:] for key in found if key not in expected]
    fix = _better_method(method, preset, found, source) or "give the file that belongs to this method"
    if missing or unexpected:
        raise CheckpointError(
            "MO-07",
            f"missing tensors: {_some(missing)}; unexpected tensors: {_some(unexpected)}",
            why=f"the weights must be exactly those of {source.title} ({method}, preset {preset})",
            fix=fix,
            path=path,
        )
    for key, shape in expected.items():
        if found[key].shape != shape:
            raise CheckpointError(
                "MO-06",
                f"tensor '{key[cut:]}' has shape {tuple(found[key].shape)}, expected {tuple(shape)}",
                why=f"the weights must be exactly those of {source.title} ({method}, preset {preset})",
                fix=fix,
                path=path,
            )


def _better_method(method: str, preset: str, found: Mapping[str, Tensor], source: Source) -> str | None:
    """``--method OTHER`` if the tensors are exactly those of another method."""
    shapes = {key[len(source.prefix) :]: value.shape for key, value in found.items()}
    for other, its in PUBLISHED.items():
        if other != method and other in METHODS and preset in METHODS[other].PRESETS:
            expected = _expected(other, _config(other, preset))
            if expected == {its.prefix + key: shape for key, shape in shapes.items()}:
                return f"--method {other}"
    return None


def _some(names: list[str]) -> str:
    """Up to four names, and how many more."""
    shown = ", ".join(names[:4]) or "none"
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
