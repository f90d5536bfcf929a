"""The interactive part of the page: every lesion in three planes, twice (whole head and close-up)."""

from __future__ import annotations

from neuromend.report.case import Lesion
from neuromend.report.charts import colour_bar, histogram, statistics_table
from neuromend.report.drawing import colour_uri, grey_uri, levels, outline
from neuromend.report.planes import PLANES, Display, View
from neuromend.report.statistics import lesion_statistics
from neuromend.report.text import coordinates, number

SHOWN_SAMPLES = 6
"""Samples drawn for each lesion; more do not fit side by side."""

HINT = """<p class="muted script-only">Drag over a picture to move the divider.
<span class="keys">Or press <kbd>←</kbd> <kbd>→</kbd>. Next and previous lesion: <kbd>n</kbd>, <kbd>p</kbd>.
<label><input type="checkbox" id="shortcuts" checked> Keyboard shortcuts</label></span></p>"""


def viewer(display: Display) -> str:
    """HTML of the tool bar and of all lesions shown; a sentence where the mask is empty."""
    lesions = display.case.lesions
    if not lesions:
        return "<p>The mask is empty: nothing was filled.</p>"
    sections = "\n".join(_lesion(display, lesion) for lesion in lesions)
    return (
        '<div id="viewer" class="viewer show-mask" data-side="both">\n'
        f"{_toolbar(display)}\n{sections}\n{_unshown(display)}{HINT}</div>"
    )


def _unshown(display: Display) -> str:
    rest = display.case.lesion_count - len(display.case.lesions)
    if not rest:
        return ""
    volume = number(display.case.volume_ml - sum(lesion.volume_ml for lesion in display.case.lesions))
    what = "1 smaller lesion is" if rest == 1 else f"{rest} smaller lesions are"
    return f'<p class="muted">{what} filled too, but not drawn here ({volume} ml in all).</p>\n'


def _toolbar(display: Display) -> str:
    picks = "".join(
        f'<button type="button" data-pick aria-pressed="false">{lesion.number}</button>'
        for lesion in display.case.lesions
    )
    toggles = [_toggle("mask", "Outline", pressed=True)]
    if display.case.uncertainty is not None:
        toggles.append(_toggle("uncertainty", "Uncertainty"))
    toggles.append(_toggle("difference", "Difference"))
    return f"""<div class="toolbar" role="group" aria-label="What the pictures show">
<div role="group" aria-label="Lesion">Lesion {picks}</div>
<div role="group" aria-label="Side">
<button type="button" id="before" aria-pressed="false">Before <kbd>b</kbd></button>
<button type="button" id="after" aria-pressed="false">After <kbd>a</kbd></button>
<button type="button" id="flicker" aria-pressed="false">Flicker <kbd>f</kbd></button></div>
<div class="sweep"><label for="slider">Divider</label>
<input type="range" id="slider" min="0" max="100" value="50"></div>
<div role="group" aria-label="Overlays">{"".join(toggles)}</div>
</div>"""


def _toggle(name: str, label: str, *, pressed: bool = False) -> str:
    state = "true" if pressed else "false"
    key = f"<kbd>{name[0]}</kbd>"
    return f'<button type="button" id="toggle-{name}" aria-pressed="{state}">{label} {key}</button>'


def _lesion(display: Display, lesion: Lesion) -> str:
    place = ", ".join(coordinates(lesion.centre_mm))
    close = [display.lesion_view(plane, lesion, times=1.35, at_least=0.33) for plane in PLANES]
    heads = [display.head_view(plane, lesion.centre) for plane in PLANES]
    panels = [
        _panel(display, view, f"{view.plane.name}, lesion {lesion.number}", frame)
        for view, frame in [*zip(heads, close, strict=True), *((view, None) for view in close)]
    ]
    title = f"lesion-{lesion.number}-title"
    voxels = "1 voxel" if lesion.voxels == 1 else f"{lesion.voxels:,} voxels"
    return f"""<section class="lesion" aria-labelledby="{title}">
<h3 id="{title}">Lesion {lesion.number}
<small>{number(lesion.volume_ml)} ml, {voxels}, centre {place}</small></h3>
<div class="lesion-body"><div class="stage">
{"".join(panels)}</div>
<aside>{_aside(display, lesion)}</aside></div>
{_gallery(display, close[0])}</section>"""


def _aside(display: Display, lesion: Lesion) -> str:
    numbers = lesion_statistics(display.case, lesion, display.window)
    parts = [statistics_table(numbers), histogram(numbers)]
    if display.case.uncertainty is not None:
        half, limit = number(display.uncertainty_limit / 2), number(display.uncertainty_limit)
        label = "Uncertainty: standard deviation over the samples, in the scan's units"
        words = _share(display, display.uncertainty_limit)
        parts.append(colour_bar("uncertainty", label, ("0", half, f"{limit} or more"), words))
    limit = number(display.difference_limit)
    label = "Difference: after minus before, in the scan's units"
    marks = (f"−{limit} or less", "0", f"{limit} or more")
    parts.append(colour_bar("difference", label, marks, _share(display, display.difference_limit)))
    return "".join(parts)


def _share(display: Display, limit: float) -> str:
    """What the end of a scale is of the grey window: units of a scan mean nothing by themselves."""
    low, high = display.window
    percent = float(f"{100 * limit / (high - low):.2g}")
    return f"{number(limit)} is {percent:g} % of the grey window."


def _panel(display: Display, view: View, words: str, frame: View | None) -> str:
    """One cut with both sides and all overlays; `frame` is the close-up to mark on a whole head."""
    case = display.case
    mask = display.cut_mask(case.mask, view)
    difference = display.cut(case.after, view) - display.cut(case.before, view)
    limit = display.difference_limit
    images = [
        _image("before", grey_uri(display.grey(case.before, view)), view, f"{words}, before filling"),
        _image("after", grey_uri(display.grey(case.after, view)), view, f"{words}, after filling"),
        _image(
            "overlay difference", colour_uri(levels(difference, -limit, limit) * mask, "difference"), view
        ),
    ]
    if case.uncertainty is not None:
        indices = levels(display.cut(case.uncertainty, view), 0.0, display.uncertainty_limit)
        images.append(_image("overlay uncertainty", colour_uri(indices * mask, "uncertainty"), view))
    path = "".join(f"M{x} {y}L{right} {bottom}" for x, y, right, bottom in outline(mask))
    window = "" if frame is None else _frame(view, frame)
    scope = "close-up" if frame is None else "whole head"
    return f"""<figure class="{"close" if frame is None else "head"}"><div class="cut">{"".join(images)}
<svg class="outline" viewBox="0 0 {view.pixels} {view.pixels}" aria-hidden="true">{window}
<path class="halo" d="{path}"/><path class="line" d="{path}"/></svg>{_letters(view)}
<span class="tag first">before</span><span class="tag second">after</span><span class="divider"></span></div>
<figcaption>{view.plane.name.capitalize()}, {scope}, {number(view.side_mm)} mm</figcaption></figure>
"""


def _image(kind: str, address: str, view: View, alt: str = "") -> str:
    """One picture; an overlay has no words of its own (`alt` empty), because the sides under it have them."""
    return f'<img class="{kind}" width="{view.pixels}" height="{view.pixels}" alt="{alt}" src="{address}">'


def _frame(view: View, frame: View) -> str:
    """Where a close-up lies on a view of the whole head, in the head view's pixels."""
    pixel_mm = view.side_mm / view.pixels
    across, down = (
        (frame.centre[axis] - view.centre[axis]) * spacing / pixel_mm
        for axis, spacing in enumerate(frame.spacing_mm)
    )
    side = frame.side_mm / pixel_mm
    left, top = (view.pixels / 2 + shift - side / 2 for shift in (across, -down))
    return f'<rect class="where" x="{left:.1f}" y="{top:.1f}" width="{side:.1f}" height="{side:.1f}"/>'


def _letters(view: View) -> str:
    sides = zip(("west", "east", "north", "south"), view.plane.letters, strict=True)
    return "".join(f'<span class="letter {side}">{letter}</span>' for side, letter in sides)


def _gallery(display: Display, view: View) -> str:
    """The single samples of one lesion in one close-up, so that their variety can be seen."""
    samples = display.case.samples[:SHOWN_SAMPLES]
    if not samples:
        return ""
    figures = ""
    for place, sample in enumerate(samples, start=1):
        image = _image("sample", grey_uri(display.grey(sample, view)), view, f"sample {place}")
        figures += f'<figure><div class="cut">{image}</div><figcaption>Sample {place}</figcaption></figure>'
    total = len(display.case.samples)
    heading = "Samples" if total <= SHOWN_SAMPLES else f"The first {SHOWN_SAMPLES} of {total} samples"
    words = f"<h4>{heading} ({view.plane.name} close-up)</h4>"
    return f'<div class="samples">{words}<div class="gallery">{figures}</div></div>\n'
