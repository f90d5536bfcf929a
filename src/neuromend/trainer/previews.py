"""Pictures of the fixed dev cases: what was hidden, what the network was shown, what it painted."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neuromend.data.atomic import write_atomically
from neuromend.trainer.scores import DevFill, Volume

GAP = 4
BRIGHTEST = 1.2
"""The intensity shown as white: bright tissue is about 1."""


def write_previews(fills: Sequence[DevFill], path: Path) -> None:
    """One row a case: in each plane through the middle of the hole the scan as given, the fill and the truth.

    Raises:
        StorageError, OutputPermissionError: RT-02, RT-03, RT-07.
    """
    rows = [_row(fill) for fill in fills]
    width, height = max(row.shape[1] for row in rows), sum(row.shape[0] + GAP for row in rows)
    canvas = np.zeros((height, width), np.uint8)
    top = 0
    for row in rows:
        canvas[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0] + GAP
    target = BytesIO()
    Image.fromarray(canvas).save(target, "PNG")
    write_atomically(path, target.getvalue())


def _row(fill: DevFill) -> NDArray[np.uint8]:
    centre = np.argwhere(fill.mask).mean(0).round().astype(int)
    pictures = [
        _slice(volume, axis, int(centre[axis]))
        for axis in (2, 1, 0)
        for volume in (fill.voided, fill.filled, fill.truth)
    ]
    height = max(picture.shape[0] for picture in pictures)
    return np.hstack([np.pad(p, ((0, height - p.shape[0]), (0, GAP))) for p in pictures])


def _slice(volume: Volume, axis: int, index: int) -> NDArray[np.uint8]:
    """A plane with the front, or the top of the head, above; grey values."""
    plane = np.take(volume, index, axis).T[::-1]
    grey: NDArray[np.uint8] = (np.nan_to_num(plane).clip(0, BRIGHTEST) * (255 / BRIGHTEST)).astype(np.uint8)
    return grey
