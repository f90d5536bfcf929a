"""Who is filling a case right now: a lock file beside its output (data/locks.py).

Should a lock be taken from a holder that only slept, both fill the case: with equal settings they write equal bytes,
each file whole or not at all, and with others the hashes in the sidecar tell the next run that the case is to be done
again. The lock saves work; it does not guard the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from neuromend.data.locks import HeldError, hold


class CaseBusyError(Exception):
    """Another run is filling this case; the text says who."""


def lock_path(filled: Path) -> Path:
    """The lock of a case: hidden, beside its filled scan, and never taken for an output."""
    return filled.with_name(f".{filled.name}.neuromend-lock")


@contextmanager
def case_lock(filled: Path) -> Iterator[None]:
    """Hold the lock of a case; its folder is made if it is missing.

    Raises:
        CaseBusyError: RT-18, another living process holds it.
        OutputError, OutputPermissionError, StorageError: the lock cannot be made.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(lock_path(filled)))
        except HeldError as holder:
            raise CaseBusyError(f"{holder} is filling this case") from None
        yield
