"""File names that come from outside: accepted as they are or refused, and safe in the headers of an answer."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

from neuromend.planning import split_suffix
from neuromend.review.refusals import Refusal

MAX_NAME_BYTES = 200
"""A file system takes 255 bytes; what a fill adds to the name needs the rest."""


def safe_name(name: str) -> str:
    """The name of a scan that was dropped on the page, if a file in the session's folder can be called so.

    Markup and any script are welcome: names are shown as text. What could leave the folder or break a line is not.

    Raises:
        Refusal: WE-11.
    """
    problem = None
    if not name or name.startswith("."):
        problem = "it is empty or begins with a dot"
    elif any(unicodedata.category(letter)[0] == "C" for letter in name):
        problem = "it holds control characters"
    elif "/" in name or "\\" in name or ":" in name[1:2]:
        problem = "it holds a folder"
    elif len(name.encode("utf-8")) > MAX_NAME_BYTES:
        problem = f"it has more than {MAX_NAME_BYTES} bytes"
    elif not split_suffix(name)[1]:
        problem = "it does not end like a scan (.nii, .nii.gz, .mgz, .mgh)"
    if problem is None:
        return name
    raise Refusal(
        422,
        "WE-11",
        f"the name of the file cannot be used: {problem}",
        why="the result is named after the scan",
        fix="rename the file and drop it again",
    )


def shown_name(name: str, otherwise: str) -> str:
    """A name that is only shown: control characters taken out, cut to a readable length."""
    kept = "".join(letter for letter in name if unicodedata.category(letter)[0] != "C").strip()
    return kept[:MAX_NAME_BYTES] or otherwise


def content_disposition(name: str) -> str:
    """The header that names a download: plain letters for old browsers, all of them in the form of RFC 5987.

    >>> content_disposition('né"x.nii.gz')
    'attachment; filename="n__x.nii.gz"; filename*=UTF-8\\'\\'n%C3%A9%22x.nii.gz'
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name)
    coded = quote(name.encode("utf-8", "replace"), safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}"
