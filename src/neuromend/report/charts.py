"""The small figures beside a lesion: a table of numbers, a histogram, colour bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuromend.report.drawing import Scale, colour_uri
from neuromend.report.statistics import RING_MM, LesionStatistics, Spread
from neuromend.report.text import number

WIDTH, HEIGHT, BASE = 340, 120, 100
"""Units of the histogram's drawing: its size, and the height of its axis (below it stand the numbers)."""


def statistics_table(numbers: LesionStatistics) -> str:
    """HTML of the comparison of lesion, fill and ring."""
    spreads = (numbers.inside_before, numbers.inside_after, numbers.ring)
    rows = {
        "Mean": [spread.mean for spread in spreads],
        "SD": [spread.deviation for spread in spreads],
        "Gradient": [numbers.gradient_before, numbers.gradient_after, numbers.gradient_ring],
    }
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{number(value)}</td>" for value in values)}</tr>'
        for name, values in rows.items()
    )
    return f"""<table class="numbers"><thead><tr><td></td><th scope="col">Before</th>
<th scope="col">After</th><th scope="col">Ring</th></tr></thead><tbody>{body}
<tr><th scope="row">Seam</th><td></td><td>{number(numbers.seam)}</td><td></td></tr></tbody></table>
<p class="muted">Intensities in the mask, in the scan's units; SD: standard deviation. Ring: tissue up to
{RING_MM:g} mm around. Gradient: mean step between neighbouring voxels.
Seam: mean step across the mask's border, divided by the ring's gradient: near 1 if no seam shows.</p>"""


def histogram(numbers: LesionStatistics) -> str:
    """HTML of the intensities inside the mask, before and after, against those of the ring outside."""
    top = max(float(values.max()) for values in numbers.histograms) or 1.0
    ring, lesion, fill = (_steps(values / top) for values in numbers.histograms)
    low, high = float(numbers.edges[0]), float(numbers.edges[-1])
    words = (
        f"Histogram. Mean and standard deviation: ring {_spread(numbers.ring)}, "
        f"before {_spread(numbers.inside_before)}, after {_spread(numbers.inside_after)}."
    )
    return f"""<figure><h4>Intensity, inside against ring</h4>
<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">
<path class="ring" d="{ring}"/><path class="lesion-line" d="{lesion}"/><path class="fill-line" d="{fill}"/>
<path class="axis" d="M0 {BASE}H{WIDTH}"/><text x="0" y="{BASE + 14}">{number(low)}</text>
<text x="{WIDTH / 2}" y="{BASE + 14}" text-anchor="middle">{number((low + high) / 2)}</text>
<text x="{WIDTH}" y="{BASE + 14}" text-anchor="end">{number(high)}</text></svg>
<ul class="legend">{_key("ring", "M0 1H22V9H0Z", "ring")}{_key("lesion-line", "M0 5H22", "before")}
{_key("fill-line", "M0 5H22", "after")}</ul></figure>"""


def colour_bar(scale: Scale, label: str, marks: Sequence[str], words: str) -> str:
    """HTML of a colour scale with its marks from left to right, and words below them."""
    address = colour_uri(np.arange(1, 256, dtype=np.uint8)[None, :], scale)
    return (
        f'<figure class="bar"><h4>{label}</h4><img alt="" width="255" height="1" src="{address}">'
        f"<span>{''.join(f'<b>{mark}</b>' for mark in marks)}</span><figcaption>{words}</figcaption></figure>"
    )


def _spread(values: Spread) -> str:
    return f"{number(values.mean)} ± {number(values.deviation)}"


def _steps(heights: NDArray[np.float64]) -> str:
    """A histogram (heights 0..1) as a stepped line from the axis to the axis."""
    width = WIDTH / len(heights)
    steps = "".join(f"V{BASE - (BASE - 6) * height:.1f}h{width:.2f}" for height in heights)
    return f"M0 {BASE}{steps}V{BASE}"


def _key(style: str, path: str, label: str) -> str:
    return (
        '<li><svg class="histogram" viewBox="0 0 22 10" aria-hidden="true">'
        f'<path class="{style}" d="{path}"/></svg>{label}</li>'
    )
