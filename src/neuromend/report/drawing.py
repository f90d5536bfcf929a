"""Small drawing aids shared by the picture and the page: colours, outlines, encoded images."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Scale = Literal["uncertainty", "difference"]
Segment = tuple[int, int, int, int]

# Anchors of two colour-blind-safe scales. Uncertainty: viridis (van der Walt & Smith 2015), lightness grows
# with the value. Difference: blue and orange of Okabe & Ito 2008 around black, so no change looks like none.
_ANCHORS: dict[Scale, tuple[tuple[int, int, int], ...]] = {
    "uncertainty": (
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ),
    "difference": (
        (166, 219, 255),
        (86, 180, 233),
        (24, 78, 112),
        (0, 0, 0),
        (122, 66, 0),
        (230, 159, 0),
        (255, 221, 150),
    ),
}

OUTLINE = (255, 196, 61)
"""Amber: light on any grey of the scan, and told from it by every kind of colour vision."""


def colour_table(scale: Scale) -> NDArray[np.uint8]:
    """(256, 3) colours from the lowest to the highest value of a scale."""
    anchors = np.array(_ANCHORS[scale], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, range(len(anchors)), anchors[:, channel]) for channel in range(3)]
    table: NDArray[np.uint8] = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return table


def levels(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Values as indices 1..255 into a colour table (0 is kept for "nothing here")."""
    scaled = (np.nan_to_num(values, nan=low) - low) / (high - low) * 254
    indices: NDArray[np.uint8] = (np.rint(np.clip(scaled, 0, 254)) + 1).astype(np.uint8)
    return indices


def grey_uri(pixels: NDArray[np.uint8]) -> str:
    """An 8-bit grey picture as a ``data:`` address."""
    return _png_uri(Image.fromarray(pixels))


def colour_uri(indices: NDArray[np.uint8], scale: Scale) -> str:
    """Indices into a scale as a ``data:`` address; index 0 is transparent."""
    image = Image.fromarray(indices).convert("L")
    image.putpalette(colour_table(scale).tobytes())
    return _png_uri(image, transparency=0)


def _png_uri(image: Image.Image, **options: int) -> str:
    stream = BytesIO()
    # Level 6 of zlib: level 9 takes four times as long for one per cent less.
    image.save(stream, "PNG", compress_level=6, **options)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def outline(mask: NDArray[np.bool_]) -> list[Segment]:
    """The border of a mask (rows, columns) as straight lines along the edges of its pixels.

    A line is (x, y, x, y) in pixels, y downwards; neighbouring edges in line are one line.
    """
    padded = np.pad(mask, 1)
    lines = []
    for row, changes in enumerate(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        lines += [(start, row, stop, row) for start, stop in _runs(changes)]
    for column, changes in enumerate((padded[1:-1, 1:] != padded[1:-1, :-1]).T):
        lines += [(column, start, column, stop) for start, stop in _runs(changes)]
    return lines


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of every run of True."""
    if not flags.any():
        return []
    borders = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    return [(int(start), int(stop)) for start, stop in zip(borders[::2], borders[1::2], strict=True)]
