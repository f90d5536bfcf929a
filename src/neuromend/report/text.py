"""Words shared by the picture and the page, and the one gate through which foreign text enters them."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable

BANNER = "Synthetic tissue: not measured, not for diagnosis."


def clean(value: object) -> str:
    """Any text without characters that cannot be written or that act instead of show.

    Control, direction-changing and surrogate characters (from file names that are not UTF-8) become "�".
    """
    return "".join(_visible(character) for character in str(value))


def escape(value: object) -> str:
    """Any text, made harmless for HTML content and for quoted attributes."""
    return html.escape(clean(value), quote=True)


def one_line(value: object) -> str:
    """Any text like `clean`, with every run of blanks and line breaks as one blank."""
    return " ".join(clean(value).split())


def number(value: float) -> str:
    """A number for reading: three significant digits, no exponent up to a million, "n/a" if not finite."""
    if not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.2e}"


def coordinates(centre_mm: Iterable[float]) -> list[str]:
    """World coordinates (R, A, S positive) for reading: ``["x 19.0 mm", "y −7.0 mm", "z 31.0 mm"]``."""
    return [f"{axis} {value:.1f} mm".replace("-", "−") for axis, value in zip("xyz", centre_mm, strict=True)]


_TURNS_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that reorder the text around them, so that a name can look like another."""


def _visible(character: str) -> str:
    acts = unicodedata.category(character) in {"Cc", "Cs"} or character in _TURNS_DIRECTION
    return "�" if acts and character != "\n" else character
