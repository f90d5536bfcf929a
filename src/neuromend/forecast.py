"""How much memory a fill needs, told before it begins (RT-12)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from neuromend.methods.contract import Sides
from neuromend.models import ModelEntry, build_method

FILL_BYTES_PER_VOXEL = 50
"""What a fill holds per voxel of the model's volume besides what the method needs: the scan, the mask, the frame and
the result (49 measured with the model ``harmonic``, benchmarks/bench_fill.py)."""

KERNEL_BYTES = 150_000_000
"""What torch itself takes with the first layers that it runs, whatever their size."""


def memory_needed(entry: ModelEntry, shape: Sequence[int]) -> int:
    """Peak memory of a fill in bytes, beyond what an idle process with torch holds.

    Args:
        entry: the model.
        shape: sides of the model's volume in voxels.

    Raises:
        CheckpointError: the model's manifest is faulty, or of a method that is not known here.
    """
    needed: int = FILL_BYTES_PER_VOXEL * prod(shape)
    if entry.is_classical:
        return needed
    with torch.device("meta"):  # names and shapes, no numbers
        method: Any = build_method(entry)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in method.state_dict().values())
    return int(needed + KERNEL_BYTES + weights + method.memory_bytes(seen_at_once(method, shape)))


def seen_at_once(method: Any, shape: Sequence[int]) -> Sides:
    """Sides of what the method is shown: the volume enlarged to what the network takes, or a window of it."""
    x, y, z = (-(-side // method.multiple) * method.multiple for side in shape)
    if method.window is not None:
        x, y, z = (min(side, most) for side, most in zip((x, y, z), method.window, strict=True))
    return x, y, z
