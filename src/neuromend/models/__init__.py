"""The models that are there: classical fills, packaged weights and the user's own folders."""

from __future__ import annotations

from neuromend.models.catalogue import (
    DEFAULT_MODEL,
    ModelEntry,
    available_models,
    build_method,
    load_method,
    resolve_model,
    verify_model,
)

__all__ = [
    "DEFAULT_MODEL",
    "ModelEntry",
    "available_models",
    "build_method",
    "load_method",
    "resolve_model",
    "verify_model",
]
