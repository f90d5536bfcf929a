"""What was noticed and is no error: carried to the terminal, the sidecar and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["pass", "note", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the list of checks.

    Args:
        code: stable code of the catalogue, for example ``"IN-18"``.
        level: ``"pass"`` (checked and good), ``"note"`` (unusual but fine) or ``"warning"`` (look at it).
        message: a sentence for a person, with the numbers.
    """

    code: str
    level: Level
    message: str
