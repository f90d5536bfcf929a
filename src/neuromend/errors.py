"""Errors that a user can cause, each with a stable code and an exit status (sysexits).

Every message answers four questions: what is wrong and where, what was expected and found, why it
matters, what to do. The codes (IN-07, MA-03, MO-04, RT-02 ...) are explained in docs/errors.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_BAD_DATA = 65
EXIT_INPUT_MISSING = 66
EXIT_DEVICE = 69
EXIT_BUG = 70
EXIT_CANNOT_CREATE = 73
EXIT_IO = 74
EXIT_TEMPORARY = 75
EXIT_PERMISSION = 77
EXIT_CONFIG = 78
EXIT_PARTIAL = 79
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class NeuromendError(Exception):
    """A foreseen fault.

    Args:
        code: stable code of the catalogue, for example ``"IN-07"``.
        what: what is wrong, with the value found and the value expected.
        why: why it matters (one sentence).
        fix: what to do, with a command where possible.
        path: the file concerned, if any; it is named at the start of the message.
    """

    exit_status: ClassVar[int] = EXIT_BUG

    def __init__(self, code: str, what: str, *, why: str, fix: str, path: Path | str | None = None) -> None:
        self.code = code
        self.what = what
        self.why = why
        self.fix = fix
        self.path = None if path is None else Path(path)
        super().__init__(self.render())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its parts, so that a worker's error reaches the process that waits for it."""
        parts = {"why": self.why, "fix": self.fix, "path": self.path}
        return _rebuild, (type(self), self.code, self.what, parts)

    def render(self) -> str:
        """The three lines that the terminal shows."""
        where = f"{self.path}: " if self.path is not None else ""
        return f"[{self.code}] {where}{self.what}\n  why: {self.why}\n  do:  {self.fix}"


def _rebuild(kind: type[NeuromendError], code: str, what: str, parts: dict[str, Any]) -> NeuromendError:
    return kind(code, what, **parts)


class InputError(NeuromendError, ValueError):
    """Bad data in an input file."""

    exit_status = EXIT_BAD_DATA


class GeometryError(InputError):
    """Two grids that do not belong together, or an affine that maps nowhere."""


class MissingInputError(NeuromendError, FileNotFoundError):
    """An input file that is not there."""

    exit_status = EXIT_INPUT_MISSING


class UsageError(NeuromendError, ValueError):
    """Options that contradict each other."""

    exit_status = EXIT_USAGE


class DeviceError(NeuromendError, RuntimeError):
    """The device asked for is not there or not usable."""

    exit_status = EXIT_DEVICE


class ModelFaultError(NeuromendError, RuntimeError):
    """The model computed something that must not be written (not finite)."""

    exit_status = EXIT_BUG


class OutputError(NeuromendError, OSError):
    """The output cannot be created (exists, equals the input ...)."""

    exit_status = EXIT_CANNOT_CREATE


class StorageError(NeuromendError, OSError):
    """Input/output failed: disk full, device error."""

    exit_status = EXIT_IO


class TemporaryError(NeuromendError, RuntimeError):
    """Something that a second try may cure."""

    exit_status = EXIT_TEMPORARY


class OutputPermissionError(NeuromendError, PermissionError):
    """No permission to write where the output should go."""

    exit_status = EXIT_PERMISSION


class CheckpointError(NeuromendError, ValueError):
    """A model file or its manifest is wrong."""

    exit_status = EXIT_CONFIG
