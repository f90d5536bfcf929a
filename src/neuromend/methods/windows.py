"""Fill a volume that is larger than what a network was trained on: window by window, each where it is needed.

A hole is filled piece by piece. Pieces that lie close share a window; a piece that no window holds is filled from one
end to the other, and each window sees what the earlier ones painted as known tissue, so there is nothing to blend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from neuromend.diffusion.samplers import OnStep
from neuromend.methods.contract import Sides

Paint = Callable[[Tensor, Tensor, OnStep | None], Tensor]
"""(voided, hole, on_step) -> filled, all (B, 1, x, y, z) of one window."""

CONTEXT = 8
"""The share of a window's side (one in eight) that is kept as context towards the part of a piece still to come."""


@dataclass(frozen=True, eq=False, slots=True)
class Window:
    """Where a window lies, and which of its voxels are painted for good.

    Attributes:
        corner: its lowest voxel.
        keep: bool, the window's sides.
    """

    corner: tuple[int, ...]
    keep: NDArray[np.bool_]

    @property
    def box(self) -> tuple[slice, ...]:
        """Its place in the volume."""
        return tuple(slice(c, c + n) for c, n in zip(self.corner, self.keep.shape, strict=True))


def fill_in_windows(
    paint: Paint, voided: Tensor, hole: Tensor, window: Sides, on_step: OnStep | None = None
) -> Tensor:
    """Fill each hole of a batch with ``paint``, in windows of at most these sides.

    Args:
        paint: fills one window; sees the k-th window of every item together.
        voided: (B, 1, X, Y, Z); what stands in the hole is not read.
        hole: bool, the same shape.
        window: its longest sides in voxels. A volume that is nowhere longer is one window.
        on_step: called with (step, of all steps of all windows).

    Returns:
        (B, 1, X, Y, Z), ``voided`` outside the hole.
    """
    sides = tuple(min(most, n) for most, n in zip(window, voided.shape[2:], strict=True))
    plans = [plan_windows(item[0].cpu().numpy(), sides) for item in hole]
    rounds = max(1, *(len(plan) for plan in plans))
    filled, rest = voided.masked_fill(hole, 0.0), hole.clone()
    for number in range(rounds):
        now = [_of_round(plan, number, sides) for plan in plans]
        known, open_hole = (
            torch.stack([v[i, 0][w.box][None] for i, w in enumerate(now)]) for v in (filled, rest)
        )
        painted = paint(known, open_hole, _share(on_step, number, rounds))
        for i, place in enumerate(now):
            keep = torch.from_numpy(place.keep).to(hole.device)
            filled[i, 0][place.box][keep] = painted[i, 0][keep].to(filled.dtype)
            rest[i, 0][place.box][keep] = False
    return torch.where(hole, filled, voided)


def plan_windows(hole: NDArray[np.bool_], sides: tuple[int, ...]) -> list[Window]:
    """Windows of these sides, in the order of filling; together they keep each voxel of the hole once.

    Args:
        hole: (X, Y, Z).
        sides: none longer than the volume.
    """
    if hole.shape == tuple(sides):
        return [Window((0, 0, 0), hole.copy())] if hole.any() else []
    rest, windows = hole.copy(), []
    while rest.any():
        labels, _ = ndimage.label(rest, np.ones((3, 3, 3)))
        boxes = [np.array([(s.start, s.stop) for s in box]) for box in ndimage.find_objects(labels)]
        sizes = np.bincount(labels.reshape(-1))[1:]
        first = int(sizes.argmax())
        if (np.ptp(boxes[first], axis=1) > sides).any():
            window = _beginning_of(labels == first + 1, boxes[first], sides)
        else:
            together, chosen = boxes[first], [first]
            for other in np.argsort(-sizes)[1:]:
                both = np.stack(
                    [np.minimum(together, boxes[other])[:, 0], np.maximum(together, boxes[other])[:, 1]], 1
                )
                if (np.ptp(both, axis=1) <= np.array(sides) * 3 // 4).all():
                    together, chosen = both, [*chosen, int(other)]
            window = _around(np.isin(labels, np.array(chosen) + 1), together, sides)
        windows.append(window)
        rest[window.box] &= ~window.keep
    return windows


def _around(pieces: NDArray[np.bool_], box: NDArray[np.int_], sides: tuple[int, ...]) -> Window:
    """The window with the box in its middle, as far as the volume allows."""
    corner = np.clip((box.sum(1) - sides) // 2, 0, np.array(pieces.shape) - sides)
    window = Window(tuple(int(c) for c in corner), np.zeros(sides, bool))
    return Window(window.corner, pieces[window.box].copy())


def _beginning_of(piece: NDArray[np.bool_], box: NDArray[np.int_], sides: tuple[int, ...]) -> Window:
    """A window over the low end of a piece that is too long.

    A margin at each side where the piece goes on is only looked at, and left to the windows that come after.
    """
    size = np.array(sides)
    margin = size // CONTEXT
    long = np.ptp(box, axis=1) > size
    along = int(long.argmax())
    voxels = np.argwhere(piece)
    tip = voxels[voxels[:, along].argmin()]
    corner = np.where(long, tip - size // 2, (box.sum(1) - size) // 2)
    corner[along] = tip[along] - margin[along]
    corner = np.clip(corner, 0, np.array(piece.shape) - size)
    window = _around(piece, np.stack([corner, corner + size], 1), sides)
    for axis in range(3):
        keep = np.moveaxis(window.keep, axis, 0)  # a view
        if box[axis, 0] < corner[axis]:
            keep[: margin[axis]] = False
        if box[axis, 1] > corner[axis] + size[axis]:
            keep[size[axis] - margin[axis] :] = False
    return window


def _of_round(plan: list[Window], number: int, sides: tuple[int, ...]) -> Window:
    """The window of this round; an item that has no more lends an empty one, so that the batch stays whole."""
    return plan[number] if number < len(plan) else Window((0, 0, 0), np.zeros(sides, bool))


def _share(on_step: OnStep | None, number: int, rounds: int) -> OnStep | None:
    if on_step is None:
        return None
    return lambda step, of: on_step(number * of + step, rounds * of)
