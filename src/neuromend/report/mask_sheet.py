"""A page to look masks over: a row a case, three cuts through each healthy mask, the lesion outlined too.

One file that needs nothing else; no script runs in it. Axes are shown as in the report: the patient's left is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.report.drawing import grey_uri, outline
from neuromend.report.planes import CONVENTION, PLANES, Plane
from neuromend.report.text import escape

Mask = NDArray[np.bool_]

MOST_ROWS = 60
"""Cases on a page: about 5 MB of pictures."""

_STYLE = """
body{margin:0;background:#14161a;color:#e8e6e3;font:15px/1.5 system-ui,sans-serif}
main{max-width:1000px;margin:auto;padding:1.5rem}h1{font-size:1.4rem;margin:.2rem 0}
section{display:grid;grid-template-columns:repeat(3,1fr);gap:.5rem;margin:1.2rem 0}
section>header{grid-column:1/-1}h2{font-size:1rem;margin:0}p{margin:.2rem 0;color:#b9b6b0}
svg{width:100%;background:#000;border-radius:4px}path{fill:none;vector-effect:non-scaling-stroke;stroke-width:1.6}
.mask{stroke:#ffc43d}.lesion{stroke:#56b4e9;stroke-dasharray:5 3}
@media(max-width:600px){section{grid-template-columns:1fr}}
"""


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One case of the page.

    Attributes:
        title, facts: what stands above the pictures.
        values: (x, y, z) intensities, axes nearest to RAS.
        mask, lesion: (x, y, z) bool.
        spacing_mm: along these axes.
    """

    title: str
    facts: str
    values: NDArray[np.floating[Any]]
    mask: Mask
    lesion: Mask
    spacing_mm: tuple[float, float, float]


def render_row(row: SheetRow) -> str:
    """The part of the page for one case; small, so that the scan need not be kept."""
    centre = np.argwhere(row.mask).mean(0).round().astype(int)
    known = row.values[np.isfinite(row.values)]
    low, high = np.percentile(known, [0.5, 99.8]) if known.size else (0.0, 1.0)
    pictures = "".join(
        _cut(row, plane, int(centre[plane.normal]), float(low), float(high)) for plane in PLANES
    )
    return f"<section><header><h2>{escape(row.title)}</h2><p>{escape(row.facts)}</p></header>{pictures}</section>"


def render_sheet(title: str, rows: Sequence[str], left_out: int) -> str:
    """The whole page.

    Args:
        title: of the page.
        rows: what ``render_row`` made.
        left_out: how many more cases there are.
    """
    more = f"<p>{left_out} more cases are not shown.</p>" if left_out else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;'
        " style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main><h1>{escape(title)}</h1>"
        f"<p>Solid, amber: mask of healthy tissue. Dashed, blue: lesion. {CONVENTION} Each cut goes through the"
        f" middle of the mask.</p>{''.join(rows)}{more}</main></body></html>"
    )


def _cut(row: SheetRow, plane: Plane, at: int, low: float, high: float) -> str:
    """One cut as an SVG with the scale of both axes in mm."""
    values, mask, lesion = (_slice(a, plane, at) for a in (row.values, row.mask, row.lesion))
    grey = np.nan_to_num((values - low) / max(high - low, 1e-12) * 255, nan=0.0)
    height, width = grey.shape
    tall, wide = height * row.spacing_mm[plane.up], width * row.spacing_mm[plane.across]
    left, right = plane.letters[:2]
    stretch = f'transform="scale({wide / width:.4f} {tall / height:.4f})"'
    return (
        f'<svg viewBox="0 0 {wide:.1f} {tall:.1f}" role="img"'
        f' aria-label="{plane.name} cut, {left} on the left, {right} on the right">'
        f'<image href="{grey_uri(np.clip(grey, 0, 255).astype(np.uint8))}" width="{width}" height="{height}"'
        f' preserveAspectRatio="none" {stretch}/>'
        f'<path class="lesion" {stretch} d="{_path(lesion)}"/><path class="mask" {stretch} d="{_path(mask)}"/></svg>'
    )


def _slice(array: NDArray[Any], plane: Plane, at: int) -> NDArray[Any]:
    """Rows from top to bottom, columns from left to right."""
    cut = np.take(
        array, at, axis=plane.normal
    )  # the axes that are left are ``across`` and ``up``, in this order
    upright: NDArray[Any] = cut.T[::-1]
    return upright


def _path(mask: Mask) -> str:
    return "".join(f"M{x} {y}L{to_x} {to_y}" for x, y, to_x, to_y in outline(np.ascontiguousarray(mask)))
