"""Activations computed again in the backward pass instead of being kept (Chen et al. 2016, arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def recomputed(function: Callable[..., Result], *args: object, enabled: bool = True) -> Result:
    """Call ``function``, if ``enabled`` keeping only its inputs for the backward pass."""
    if enabled and torch.is_grad_enabled():
        result: Result = checkpoint(function, *args, use_reentrant=False)
        return result
    return function(*args)
