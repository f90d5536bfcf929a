"""Activations computed again in the backward pass instead of being kept (Chen et al. 2016, arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Tensor], *args: object) -> Tensor:
    """Call ``function``, keeping only its inputs for the backward pass; nothing changes where there is none."""
    if torch.is_grad_enabled():
        result: Tensor = checkpoint(function, *args, use_reentrant=False)
        return result
    return function(*args)
