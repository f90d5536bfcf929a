"""The report: one HTML file that needs nothing but itself, for a disk, an e-mail or a web server.

Every picture is inside the file, so are style and script; the content security policy allows nothing else
and knows style and script by their hashes. Foreign text (names, findings, the record) passes `escape`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from neuromend.findings import Finding, Level
from neuromend.report.case import ReportCase
from neuromend.report.planes import CONVENTION, LARGEST_PICTURE, Display
from neuromend.report.text import BANNER, escape, number
from neuromend.report.viewer import viewer
from neuromend.report.wording import about, model_name, outside_record

LEVELS: dict[Level, str] = {"warning": "WARN", "note": "NOTE", "pass": "PASS"}
"""What a finding's level is called on the page, worst first."""

LARGEST_PAGE = 4_900_000
"""Characters, nearly all of one byte, above which pictures get fewer pixels: a report stays under 5 MB."""

SMALLEST_PICTURE = 128
"""Pixels along a side below which a picture would no longer serve."""

SAFE_TILT_DEGREES = 1.0
"""An oblique grid is mentioned above this angle."""


def render_page(case: ReportCase) -> str:
    """The whole report as one HTML document.

    Args:
        case: the filled scan with its findings and its record.

    Returns:
        HTML without lone surrogates, so that it can always be written as UTF-8.
    """
    largest = LARGEST_PICTURE
    while True:
        page = _compose(Display(case, largest))
        if len(page) < LARGEST_PAGE or largest <= SMALLEST_PICTURE:
            return page
        # Size grows with the square of the side; a twentieth is kept in reserve.
        fitting = largest * math.sqrt(0.95 * LARGEST_PAGE / len(page))
        largest = max(SMALLEST_PICTURE, 2 * int(fitting / 2))


def _compose(display: Display) -> str:
    case = display.case
    style, script = _asset("page.css"), _asset("page.js")
    return Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        page_title=escape(f"{case.title[:150]}: neuromend report"),
        banner=BANNER,
        title=escape(case.title),
        facts=_facts(case),
        viewer=viewer(display),
        reading=_reading(display),
        outside=_outside(case),
        checks=_checks(case.findings),
        methods=escape(case.methods),
        about=_about(case),
        errors=_errors(case),
        record=escape(json.dumps(dict(case.record), indent=2, ensure_ascii=False, default=str)),
    )


def _asset(name: str) -> str:
    return files("neuromend.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        "default-src 'none'; img-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _facts(case: ReportCase) -> str:
    count = case.lesion_count
    facts = {
        "Filled": f"{number(case.volume_ml)} ml in {count} {'lesion' if count == 1 else 'lesions'}",
        "Outside the mask": _pill("pass", "identical")
        if _is_identical(case)
        else _pill("warning", "CHANGED"),
        "Checks": _tally(case.findings),
        "Model": escape(model_name(case.record)),
    }
    if case.samples:
        count = len(case.samples)
        facts["Samples"] = "1" if count == 1 else f"{count}; after is their mean"
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())


def _pill(level: Level, words: str) -> str:
    return f'<span class="level {level}">{words}</span>'


def _tally(findings: Sequence[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    pills = [_pill(level, f"{count} {LEVELS[level]}") for level, count in counts.items() if count]
    return " ".join(pills) or "none recorded"


def _reading(display: Display) -> str:
    low, high = display.window
    sentences = [
        CONVENTION,
        "Before and after share one grey window,",
        f"{number(low)} to {number(high)} in the scan's units, taken from outside the mask.",
        "Centres are in the scan's world coordinates: x to the right, y to the front, z upwards.",
    ]
    if display.tilt_degrees > SAFE_TILT_DEGREES:
        sentences.append(
            f"The scan's grid is tilted by {display.tilt_degrees:.0f}° against the scanner's axes: planes "
            "follow the grid, and letters name the nearest direction."
        )
    return " ".join(sentences)


def _is_identical(case: ReportCase) -> bool:
    """Whether nothing outside the mask differs, neither in the arrays nor in the file that was written."""
    return case.changed_outside == 0 and outside_record(case.record).get("identical") is not False


def _outside(case: ReportCase) -> str:
    """The line about the voxels outside the mask: counted here, and in the file as far as recorded."""
    outside = case.mask.size - int(case.mask.sum())
    recorded = outside_record(case.record)
    if not _is_identical(case):
        changed = (
            f"{case.changed_outside:,} of {outside:,} differ" if case.changed_outside else "the file differs"
        )
        return _verdict("warning", f"Voxels outside the mask: CHANGED ({changed}). Do not use this result.")
    parts = [f"Voxels outside the mask: identical ({outside:,})"]
    if recorded.get("identical") is True:
        parts.append(", compared bit for bit in the written file")
    digest = f" <code>SHA-256 {escape(recorded['sha256'])}</code>" if recorded.get("sha256") else ""
    return _verdict("pass", "".join(parts) + "." + digest)


def _verdict(level: Level, words: str) -> str:
    return f'<p class="identical {level}"><b>{LEVELS[level]}</b> {words}</p>'


def _checks(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>No checks were recorded.</p>"
    order = list(LEVELS)
    rows = "".join(
        f"<tr><td>{_pill(finding.level, LEVELS[finding.level])}</td>"
        f"<td>{escape(finding.code)}</td><td>{escape(finding.message)}</td></tr>"
        for finding in sorted(findings, key=lambda finding: order.index(finding.level))
    )
    return (
        '<table class="checks"><thead><tr><th scope="col">Result</th><th scope="col">Code</th>'
        f'<th scope="col">What was found</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _about(case: ReportCase) -> str:
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td><code>{escape(value)}</code></td></tr>'
        for name, value in about(case.record).items()
    )
    return f'<table class="about"><tbody>{rows}</tbody></table>'


def _errors(case: ReportCase) -> str:
    errors = case.record.get("errors") or ()
    if not errors:
        return "<p>No errors were recorded.</p>"
    listed = [errors] if isinstance(errors, str) else errors
    return f"<ul>{''.join(f'<li>{escape(error)}</li>' for error in listed)}</ul>"
