"""Published checkpoints, turned into model folders: names checked, nothing renamed in silence.

How the authors' files are opened is in :mod:`neuromend.published_files`, where they come from in
:mod:`neuromend.published_hub`. To add a method: one entry in ``PUBLISHED``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import torch
from torch import Tensor

from neuromend.checkpoint import save_model
from neuromend.errors import CheckpointError, UsageError
from neuromend.manifest import AUTOENCODER, Manifest, TrainedRange
from neuromend.methods import METHODS
from neuromend.published_files import read_checkpoint
from neuromend.published_hub import HUB
from neuromend.published_terms import CARD, TERMS_OF_THE_SIX, TERMS_UNKNOWN


@dataclass(frozen=True, slots=True)
class Source:
    """How the names in the authors' file become ours.

    Attributes:
        title: of the published model, for people.
        prefix: stands before every published name here.
        unused: beginnings of published names that sampling and training here do without.
        ones: our names of tensors that the published file lacks and that are 1 in a trained model.
        licence: of the published weights, for the manifest.
        terms: the text of LICENSE-WEIGHTS.md.
    """

    title: str
    prefix: str = "network."
    unused: tuple[str, ...] = ()
    ones: tuple[str, ...] = ()
    licence: str = "MIT"
    terms: str = TERMS_OF_THE_SIX


_ONLY_IN_TRAINING = ("image_discriminator.", "perceptual_model.", "video_discriminator.")
_SCHEDULE = ("alphas_cumprod", "betas", "log_one_minus_", "posterior_", "sqrt_")
_VQGAN = "vqgan."

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
        unused=(*_SCHEDULE, *(_VQGAN + name for name in _ONLY_IN_TRAINING)),
        ones=("vqgan.codebook.initialised",),
    ),
}

VQGAN_ALONE = Source(
    "LDM_3D's VQ-GAN", prefix=_VQGAN, unused=_ONLY_IN_TRAINING, ones=("vqgan.codebook.initialised",)
)
"""The autoencoder of ``latent3d`` in a file of its own."""


def import_weights(
    method: str,
    file: Path | str,
    out: Path | str,
    *,
    preset: str = "paper",
    stage: Literal["method", "autoencoder"] = "method",
    autoencoder: Path | str | None = None,
    sampler: str | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Turn a published checkpoint into a model folder and return its manifest. Weights stay float32.

    Args:
        method: key of ``PUBLISHED``.
        file: of the authors.
        out: the model folder to make.
        preset: size of the network.
        stage: ``"autoencoder"`` for the VQ-GAN of ``latent3d`` alone; it fills nothing, a training begins with it.
        autoencoder: for ``latent3d``, a file of the VQ-GAN, which takes the place of what ``file`` holds of it.
        sampler: how the model is to walk from noise to tissue; by default the method's own.
        overwrite: replace a folder that is there.

    Raises:
        UsageError: MO-16, no such method, preset or sampler, or no autoencoder in this method.
        MissingInputError: IN-38, there is no such file.
        CheckpointError: MO-01 a file holds more than tensors, MO-03 it is damaged, MO-05 NaN or Inf, MO-06 another
            shape or no tensors, MO-07 missing or unexpected names.
        OutputError, OutputPermissionError, StorageError: as for :func:`neuromend.checkpoint.save_model`.
    """
    source = _source(method, stage, autoencoder)
    config = _sampling(_config(method, preset), method, sampler)
    path = Path(file)
    tensors, ema = read_checkpoint(path)
    training: dict[str, Any] = {"published_model": source.title, **_origin("source", path)}
    if autoencoder is not None:
        coder, _ = read_checkpoint(Path(autoencoder))
        rest = {key: value for key, value in tensors.items() if not key.startswith(_VQGAN)}
        tensors = rest | _fitting(VQGAN_ALONE, method, preset, coder, Path(autoencoder))
        training |= _origin("autoencoder", Path(autoencoder))
    found = _fitting(source, method, preset, tensors, path)
    alone = stage == "autoencoder"
    what = AUTOENCODER if alone else method
    files = " and ".join(
        f"`{training[f'{part}_file']}` (SHA-256 {training[f'{part}_sha256']})"
        for part in ("source", "autoencoder")
        if f"{part}_file" in training
    )
    return save_model(
        out,
        {key.removeprefix(_VQGAN): value for key, value in found.items()} if alone else found,
        name=f"{what}-published{'-ema' if ema else ''}{f'-sampler-{sampler}' if sampler else ''}",
        description=f"{source.title}, weights of its authors, imported from {path.name}",
        method=what,
        config=asdict(config),
        trained_range=TrainedRange(modalities=("T1w",), spacing_mm=(1.0, 1.0), coverage=("skull-stripped",)),
        licence=source.licence,
        licence_text=source.terms.format(files=files, hub=HUB),
        card=CARD.format(title=source.title, method=method, files=files),
        training=training,
        ema=ema,
        dtype=torch.float32,
        overwrite=overwrite,
    )


def _origin(part: str, path: Path) -> dict[str, str]:
    """Name and SHA-256 of a file, for the manifest."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {f"{part}_file": path.name, f"{part}_sha256": digest}


def _source(method: str, stage: str, autoencoder: Path | str | None) -> Source:
    if method not in PUBLISHED:
        raise UsageError(
            "MO-16",
            f"--method is '{method}', expected one of {', '.join(PUBLISHED)}",
            why="these methods have published weights",
            fix=f"--method {next(iter(PUBLISHED))}",
        )
    fix = "neuromend import-weights --method latent3d LATENT.pt --autoencoder VQGAN.ckpt --out DIR"
    if method != "latent3d" and (stage == "autoencoder" or autoencoder is not None):
        raise UsageError(
            "MO-16",
            f"{method} has no autoencoder, but --stage autoencoder or --autoencoder is given",
            why="latent3d is the only method with one",
            fix=fix,
        )
    if stage == "autoencoder" and autoencoder is not None:
        raise UsageError(
            "MO-16",
            "--stage autoencoder and --autoencoder are given together",
            why="the autoencoder comes alone, as FILE, or beside the file of the diffusion",
            fix=fix,
        )
    return VQGAN_ALONE if stage == "autoencoder" else PUBLISHED[method]


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


def _sampling(config: Any, method: str, sampler: str | None) -> Any:
    """The config with another sampler."""
    known = get_args(get_type_hints(type(config))["sampler"])
    if sampler is not None and sampler not in known:
        raise UsageError(
            "MO-16",
            f"--sampler is '{sampler}', expected one of {', '.join(known)}",
            why=f"these are the samplers of {method}",
            fix=f"--sampler {known[0]}, or leave it out for {config.sampler}",
        )
    return config if sampler is None else replace(config, sampler=sampler)


def _expected(source: Source, method: str, preset: str) -> dict[str, torch.Size]:
    """Our name and the shape of every tensor that the source fills, at no cost: on the meta device."""
    build: Any = METHODS[method]
    with torch.device("meta"):
        state = build(_config(method, preset)).state_dict()
    return {key: value.shape for key, value in state.items() if key.startswith(source.prefix)}


def _renamed(
    source: Source, tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """The tensors under our names, without those that are not used, with those that are always 1."""
    found = {
        source.prefix + key: value
        for key, value in tensors.items()
        if source.prefix + key in expected or not key.startswith(source.unused or ("\0",))
    }
    return found | {key: torch.ones(expected[key]) for key in source.ones if key not in found}


def _fitting(
    source: Source, method: str, preset: str, tensors: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors under our names: strictly the expected ones, or an error in the words of the file."""
    expected = _expected(source, method, preset)
    found = _renamed(source, tensors, expected)
    cut = len(source.prefix)
    why = f"the weights must be exactly those of {source.title} ({method}, preset {preset})"
    missing = [key[cut:] for key in expected if key not in found]
    unexpected = [key[cut:] for key in found if key not in expected]
    if missing or unexpected:
        raise CheckpointError(
            "MO-07",
            f"missing tensors: {_some(missing)}; unexpected tensors: {_some(unexpected)}",
            why=why,
            fix=_fix(source, method, preset, tensors, missing, path),
            path=path,
        )
    for key, shape in expected.items():
        if found[key].shape != shape:
            raise CheckpointError(
                "MO-06",
                f"tensor '{key[cut:]}' has shape {tuple(found[key].shape)}, expected {tuple(shape)}",
                why=why,
                fix=_fix(source, method, preset, tensors, [], path),
                path=path,
            )
    return found


def _fix(
    source: Source, method: str, preset: str, tensors: Mapping[str, Tensor], missing: list[str], path: Path
) -> str:
    """What to do: the options for the model whose tensors these are, or for the file that is not there yet."""
    if source is PUBLISHED["latent3d"] and missing and all(key.startswith(_VQGAN) for key in missing):
        return "add the file of the autoencoder: --autoencoder VQGAN.ckpt"
    if any(key.startswith("all_modules.") for key in tensors):
        return (
            "this is GO3D or WDDGAN3D, which are not here: docs/decisions/0004-go3d-and-wddgan3d.md says why"
        )
    for words, its, other in _others(source, method, path):
        if preset in METHODS[other].PRESETS:
            expected = _expected(its, other, preset)
            if expected == {key: value.shape for key, value in _renamed(its, tensors, expected).items()}:
                return words
    return "give the file that belongs to this method"


def _others(source: Source, method: str, path: Path) -> Iterator[tuple[str, Source, str]]:
    """Options, source and method of everything published but ``source``."""
    for other, its in PUBLISHED.items():
        if its is not source:
            yield f"--method {other}", its, other
    if source is not VQGAN_ALONE:
        first = "LATENT.pt" if method == "latent3d" else "--method latent3d LATENT.pt"
        yield (
            f"this is the autoencoder: {first} --autoencoder {path.name}, "
            "or --stage autoencoder to train a diffusion on it",
            VQGAN_ALONE,
            "latent3d",
        )


def _some(names: list[str]) -> str:
    """Up to four names, and how many more."""
    shown = ", ".join(names[:4]) or "none"
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
