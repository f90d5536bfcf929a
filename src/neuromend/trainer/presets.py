"""How each method is trained: one literal table, read by ``neuromend train --preset NAME``.

A preset names a size of the network (``PRESETS`` of the method) and the hyper-parameters here. What a row does not
say is the default of :class:`neuromend.trainer.config.Training`. ``paper`` rows are those of the published code
(docs/methods); unet3d and fastwavelet3d have none, so theirs are ours.
"""

from __future__ import annotations

from typing import Any

_PUBLISHED = {
    "steps": 325_000,
    "schedule": "constant",
    "warm_up_steps": 0,
    "peak_lr": 1e-4,
    "weight_decay": 0.0,
    "betas": (0.9, 0.999),
    "clip": 0.0,
    "ema_decay": 0.9999,
    "precision": "fp32",
}
"""What the published trainings have in common: AdamW without decay, one volume a step, no schedule."""

_SHORT = {"steps": 20_000, "peak_lr": 3e-4}
_TINY = {"steps": 30, "peak_lr": 2e-3, "warm_up_steps": 3, "ema_decay": 0.9, "precision": "fp32"}
_TINY_2D = {**_TINY, "steps": 12, "peak_lr": 1e-3}

TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    "fastwavelet3d": {
        "default": {"minutes": 100.0, "peak_lr": 4e-4},
        "small": {**_SHORT, "peak_lr": 4e-4},
        "tiny": _TINY,
    },
    "fastwdm3d": {
        "paper": {**_PUBLISHED, "steps": 120_000, "peak_lr": 2e-5, "ema_decay": 0.0},
        "small": _SHORT,
        "tiny": _TINY,
    },
    "full3d": {
        "paper": {**_PUBLISHED, "peak_lr": 1e-5, "ema_decay": 0.0, "precision": "fp16"},
        "small": _SHORT,
        "tiny": _TINY,
    },
    "wavelet3d": {
        "paper": {**_PUBLISHED, "peak_lr": 1e-5, "ema_decay": 0.0},
        "paper-wavelet-unet": {**_PUBLISHED, "peak_lr": 1e-5, "ema_decay": 0.0},
        "small": _SHORT,
        "tiny": _TINY,
    },
    "unet3d": {
        "paper": {"steps": 250_000, "peak_lr": 3e-4, "batch": 2},
        "small": {**_SHORT, "peak_lr": 1e-3},
        "tiny": {**_TINY, "peak_lr": 5e-3},
    },
    "slice2d": {"paper": _PUBLISHED, "small": _SHORT, "tiny": _TINY_2D},
    "sequential2d": {"paper": _PUBLISHED, "small": _SHORT, "tiny": _TINY_2D},
    "pseudo3d": {"paper": _PUBLISHED, "small": _SHORT, "tiny": _TINY_2D},
    "latent3d": {
        "paper": {**_PUBLISHED, "optimiser": "adam", "batch": 16, "accumulate": 2, "ema_decay": 0.995},
        "full": {**_PUBLISHED, "optimiser": "adam", "accumulate": 32, "ema_decay": 0.995},
        "small": _SHORT,
        "tiny": _TINY,
    },
}
"""method -> preset -> hyper-parameters."""

AUTOENCODER: dict[str, dict[str, Any]] = {
    "paper": {
        **_PUBLISHED,
        "steps": 602_500,
        "optimiser": "adam",
        "betas": (0.5, 0.9),
        "peak_lr": 1.875e-5,
        "batch": 2,
        "clip": 1.0,
        "ema_decay": 0.0,
        "precision": "fp16",
    },
    "small": {
        "steps": 20_000,
        "optimiser": "adam",
        "betas": (0.5, 0.9),
        "peak_lr": 3e-4,
        "weight_decay": 0.0,
        "ema_decay": 0.0,
        "adversaries_from_step": 10_000,
    },
    "tiny": {**_TINY, "ema_decay": 0.0, "betas": (0.5, 0.9), "adversaries_from_step": 20},
}
"""preset -> hyper-parameters of ``--method latent3d --stage autoencoder``; ``full`` is ``paper`` at 1 mm."""
AUTOENCODER["full"] = {**AUTOENCODER["paper"], "batch": 1, "accumulate": 2}

CASES: dict[str, dict[str, Any]] = {
    **{f"{name}/paper": {"base": "paper"} for name in TRAINING if name not in ("fastwdm3d", "unet3d")},
    "wavelet3d/paper-wavelet-unet": {"base": "paper"},
    "fastwdm3d/paper": {"base": "paper-crop128"},
    "unet3d/paper": {"base": "crop128"},
    "latent3d/full": {"base": "paper"},
    "unet3d/small": {"crop": (96, 96, 96)},
    **{f"{name}/tiny": {"crop": (32, 32, 32)} for name in TRAINING},
}
"""method/preset -> how training cases are drawn (``corpus.recipe``), where it is not the default."""
