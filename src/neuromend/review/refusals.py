"""What the page is told when something is not done: the same four facts that the terminal shows, and a status."""

from __future__ import annotations

import re
from typing import Any

from neuromend.errors import (
    EXIT_USAGE,
    DeviceError,
    MissingInputError,
    NeuromendError,
    OutputError,
    OutputPermissionError,
    StorageError,
    TemporaryError,
)

_STATUSES: tuple[tuple[type[NeuromendError], int], ...] = (
    (MissingInputError, 404),
    (OutputError, 409),
    (OutputPermissionError, 409),
    (StorageError, 507),
    (TemporaryError, 503),
    (DeviceError, 503),
)
"""HTTP statuses of the errors that the server fails with; bad input of any other kind is 422."""

_BUGS = ("UX-70", "RT-15")

_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^/\\'\"\n]+[/\\])+")


class Refusal(NeuromendError):
    """A request that is not done.

    Args:
        status: of HTTP.
        facts: more for the page, beside code, what, why and fix.
    """

    exit_status = EXIT_USAGE

    def __init__(self, status: int, code: str, what: str, *, why: str, fix: str, **facts: int) -> None:
        self.status = status
        self.facts = facts
        super().__init__(code, what, why=why, fix=fix)


def status_of(error: NeuromendError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refusal):
        return error.status
    if error.code in _BUGS:
        return 500
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 422)


def error_body(error: NeuromendError, *, redact: bool) -> dict[str, Any]:
    """The JSON of an error; a file is named without its folder.

    Args:
        redact: take the folders out of the sentences too.
    """
    where = f"{error.path.name}: " if error.path is not None else ""
    texts = {"what": where + error.what, "why": error.why, "fix": error.fix}
    if redact:
        texts = {name: without_folders(text) for name, text in texts.items()}
    return {"code": error.code, **texts, **getattr(error, "facts", {})}


def without_folders(text: str) -> str:
    """``mkdir -p '/home/jane doe/out'`` -> ``mkdir -p 'out'``: folders can name persons."""
    return _FOLDERS.sub("", text)


def no_such(kind: str) -> Refusal:
    """An id that the server never gave out, or has taken back."""
    return Refusal(
        404,
        "WE-06",
        f"there is no such {kind}",
        why="the page and the server disagree, most likely because the server was started again",
        fix="reload the page from the address that `neuromend review` printed",
    )


def not_understood(problem: str) -> Refusal:
    """A request that does not follow the contract."""
    return Refusal(
        422,
        "WE-19",
        f"the request was not understood: {problem}",
        why="nothing was done",
        fix="reload the page; if it happens again, please report it",
    )
