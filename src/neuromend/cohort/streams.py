"""Writing a large text file piece by piece, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from neuromend.data.atomic import hidden_name, storage_error
from neuromend.errors import NeuromendError


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A text file that takes its name when the block has ended well; what cannot be encoded becomes "?".

    Raises:
        OutputError, OutputPermissionError, StorageError: it cannot be written; an older file is untouched.
    """
    hidden = path.with_name(hidden_name())
    try:
        with hidden.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    except NeuromendError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        hidden.unlink(missing_ok=True)
