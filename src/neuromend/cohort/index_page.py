"""One page about a cohort: thumbnails, doubtful cases first, links to the single reports; nothing else is needed.

The thumbnails are inside the file (about 8 kB each, 16 MB for 2,000 cases); the content security policy allows no
other source and knows style and script by their hashes. Foreign text passes `escape`. The page is written case by
case, so memory does not grow with the cohort.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template
from urllib.parse import quote

from PIL import Image

from neuromend.cohort.group import GROUP_TABLE, GroupRow, Spool
from neuromend.cohort.streams import written_whole
from neuromend.provenance import version_string
from neuromend.report.picture import CELL, GAP, HEAD, LABELS, MARGIN
from neuromend.report.text import BANNER, clean, escape, number

INDEX_PAGE = "index.html"

THUMBNAIL = (320, 159)
"""Pixels of a thumbnail: the axial plane through the largest lesion, before and after."""

SHOWN_FLAGS = 4
"""Flags of a case that are shown; the others are counted. The report has all."""


def write_page(spool: Spool, path: Path) -> None:
    """Write the page; links are relative to its folder."""
    style = _asset("neuromend.report", "page.css") + _asset("neuromend.cohort", "page/index.css")
    script = _asset("neuromend.cohort", "page/index.js")
    head, foot = _asset("neuromend.cohort", "page/index.html").split("$cases")
    words = {
        "policy": "default-src 'none'; img-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "banner": BANNER,
        "title": escape(f"{path.parent.name}: filled scans"),
        "facts": _facts(spool),
        "table": GROUP_TABLE,
        "version": escape(version_string()),
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    with written_whole(path) as file:
        file.write(Template(head).substitute(words))
        for row in spool.ranked():
            file.write(card(row))
        file.write(Template(foot).substitute(words))


def card(row: GroupRow) -> str:
    """One case as HTML."""
    state = row.status if row.status != "done" else "flagged" if row.flags else "passed"
    volume, seconds = row.cells.get("volume_ml"), row.cells.get("seconds")
    seam = row.cells.get("seam")
    # The id may hold anything; a data attribute holds it escaped, and the script reads it as text.
    data = f'data-state="{state}" data-id="{escape(row.id)}" data-flags="{len(row.flags)}"'
    for name, value in (("volume", volume), ("seam", seam), ("seconds", seconds)):
        data += f' data-{name}="{value}"' if value is not None else ""
    facts = [
        f"{number(volume)} ml" if volume is not None else "",
        f"seam {number(seam)}" if seam is not None else "",
    ]
    facts += [clean(row.cells.get("model") or ""), f"{number(seconds)} s" if seconds is not None else ""]
    words = " · ".join(escape(fact) for fact in facts if fact)
    shown = "".join(
        f"<li>{f'<b>{escape(code)}</b> ' if code else ''}{escape(_short(text))}</li>"
        for code, text in row.flags[:SHOWN_FLAGS]
    )
    if len(row.flags) > SHOWN_FLAGS:
        shown += f"<li>and {len(row.flags) - SHOWN_FLAGS} more</li>"
    name = escape(row.id)
    if row.report:
        name = f'<a href="{escape(quote(clean(row.report)))}">{name}</a>'
    return (
        f'<article class="case" {data}>{_thumbnail(row)}<div class="words"><h2>{name}</h2>'
        f'<p><span class="level {LEVEL[state]}">{state}</span> {words}</p>'
        f"{f'<ul>{shown}</ul>' if shown else ''}</div></article>\n"
    )


LEVEL = {"failed": "failed", "missing": "failed", "flagged": "warning", "passed": "pass"}
"""The colour of each state."""


def thumbnail(picture: Path) -> bytes:
    """The axial plane of a report's picture, before and after, as JPEG.

    Raises:
        OSError: it cannot be read, or is no picture.
    """
    left = MARGIN + LABELS
    with Image.open(picture) as image:
        part = image.convert("RGB").crop((left, HEAD, left + 2 * CELL + GAP, HEAD + CELL))
    stream = BytesIO()
    part.resize(THUMBNAIL, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=72, optimize=True)
    return stream.getvalue()


def _short(text: str) -> str:
    """A message with the names of files alone: their folders make it long, and can name persons."""
    return re.sub(r"(?<!\S)/(?:[^/\s]+/)+", "", text)


def _thumbnail(row: GroupRow) -> str:
    empty = '<p class="none">no picture</p>'
    if not row.picture:
        return empty
    try:
        payload = thumbnail(Path(row.picture))
    except (OSError, ValueError, Image.DecompressionBombError):
        return empty
    address = "data:image/jpeg;base64," + base64.b64encode(payload).decode("ascii")
    size = f'width="{THUMBNAIL[0]}" height="{THUMBNAIL[1]}"'
    picture = f'<img {size} alt="{escape(row.id)}: before and after, axial" src="{address}">'
    # The name below is the link that keyboards and screen readers follow; this one is for the mouse.
    if row.report:
        link = escape(quote(clean(row.report)))
        return f'<a class="thumb" tabindex="-1" aria-hidden="true" href="{link}">{picture}</a>'
    return f'<div class="thumb">{picture}</div>'


def _facts(spool: Spool) -> str:
    facts = {
        "Cases": len(spool),
        "Passed": spool.count(3),
        "Flagged": spool.count(2),
        "Failed": spool.count(0),
        "Missing": spool.count(1),
    }
    return "".join(f"<div><dt>{name}</dt><dd>{value:,}</dd></div>" for name, value in facts.items())


def _asset(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
