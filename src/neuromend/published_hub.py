"""Published weights from the page of their authors on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from neuromend.errors import CheckpointError, TemporaryError

HUB = "AliciaDurrer/DM_Inpainting"
"""Where the authors of the six methods published their weights, under the MIT licence."""


def fetch_from_hub(name: str) -> Path:
    """The file of this name from the authors' public page, from the cache where it is there already.

    huggingface_hub goes on where a connection broke, but compares sizes only; the SHA-256 that the page tells is
    compared here.

    Raises:
        CheckpointError: MO-11, huggingface_hub is not installed, or the page has no such file or is closed.
        TemporaryError: MO-11, no network, or the file arrived damaged.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ImportError as error:
        raise CheckpointError(
            "MO-11",
            "the library huggingface_hub is not installed",
            why=f"--from-hub fetches '{name}' from {HUB} with it",
            fix="pip install 'neuromend[hub]', or download the file yourself and give its path",
        ) from error
    try:
        path = Path(hf_hub_download(HUB, name))
    except LocalEntryNotFoundError as error:
        raise _no_network(name, error) from error
    except EntryNotFoundError as error:
        raise CheckpointError(
            "MO-11",
            f"{HUB} has no file '{name}'",
            why="the name must be the one on the page of the authors, with its folders",
            fix="look at the list of files on that page",
        ) from error
    except RepositoryNotFoundError as error:  # also where access has to be asked for
        raise CheckpointError(
            "MO-11",
            f"the page {HUB} is not there, or not open to everyone",
            why=f"'{name}' should be on it",
            fix="get the file from the authors and give its path without --from-hub",
        ) from error
    except Exception as error:  # what a missing network raises depends on the HTTP library and its version
        raise _no_network(name, error) from error
    _check(name, path)
    return path


def _check(name: str, path: Path) -> None:
    """Compare a large file with its SHA-256, under which the cache of huggingface_hub keeps it."""
    stored = path.resolve()
    if not re.fullmatch("[0-9a-f]{64}", stored.name):
        return
    with stored.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != stored.name:
        stored.unlink()
        raise TemporaryError(
            "MO-11",
            f"'{name}' is damaged: SHA-256 is {found[:16]}..., {HUB} says {stored.name[:16]}...",
            why="at least one byte changed on the way or on the disk",
            fix="run the same command again; the damaged copy was deleted",
        )


def _no_network(name: str, error: Exception) -> TemporaryError:
    return TemporaryError(
        "MO-11",
        f"'{name}' could not be fetched from {HUB} ({type(error.__cause__ or error).__name__})",
        why="there is no network here, or the page does not answer",
        fix="try again with a network, or copy the file here and give its path without --from-hub",
    )
