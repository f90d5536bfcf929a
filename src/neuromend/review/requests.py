"""What the page may send: the shape of every request, and bodies that are read in counted pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from neuromend.review.refusals import Refusal, not_understood
from neuromend.review.verdicts import Word

MAX_JSON_BYTES = 64 << 10
MAX_UPLOAD_BYTES = 512 << 20
"""Of a scan or mask: a 512 x 512 x 512 scan in 16 bits is half of it before compression."""

PIECE_SECONDS = 30.0
"""A body of which nothing comes for this long is given up."""

MAX_SAMPLES, MAX_STEPS, MAX_SEED, MAX_NOTE = 64, 1000, 2**63 - 1, 4000

Body = TypeVar("Body", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FillWish(_Request):
    """What a fill is to be made of; the body of an estimate, which a mask that is still being drawn can have too."""

    scan: str = Field(max_length=64)
    mask: str | None = Field(default=None, max_length=64)
    model: str = Field(max_length=100)
    samples: int = Field(default=0, ge=0, le=MAX_SAMPLES)
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)


class JobWish(FillWish):
    """The body of a job; ``key`` makes sending it twice harmless."""

    mask: str = Field(max_length=64)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    key: str = Field(min_length=8, max_length=64)


class SaveWish(_Request):
    """The body of a request to save."""

    overwrite: bool = False


class VerdictWish(_Request):
    """The body of a verdict."""

    verdict: Word | None
    note: str = Field(default="", max_length=MAX_NOTE)


async def body_of(request: Request, kind: type[Body]) -> Body:
    """The JSON body of a request.

    Raises:
        Refusal: WE-07 (413, 408), WE-19 (422).
    """
    text = b"".join([piece async for piece in pieces(request, MAX_JSON_BYTES)])
    try:
        return kind.model_validate_json(text or b"{}")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the body"
        raise not_understood(f"{field}: {first['msg']}") from None


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it comes, counted: what is declared is not believed, and too much ends it.

    Raises:
        Refusal: WE-07, too large (413) or too slow (408), or the sender went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(int(declared), most)
    stream = request.stream().__aiter__()
    received = 0
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream), PIECE_SECONDS)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _broken(408, f"nothing came for {PIECE_SECONDS:g} s") from None
        except ClientDisconnect:
            raise _broken(400, "the connection ended") from None
        received += len(piece)
        if received > most:
            raise _too_large(received, most)
        yield piece


def _too_large(found: int, most: int) -> Refusal:
    return Refusal(
        413,
        "WE-07",
        f"{found:,} bytes or more were sent, expected at most {most:,}",
        why="a scan is smaller, and the disk of this machine is not endless",
        fix="name the file on the command line instead: neuromend review SCAN",
        max_bytes=most,
    )


def _broken(status: int, what: str) -> Refusal:
    return Refusal(
        status,
        "WE-07",
        f"the file did not arrive: {what}",
        why="nothing was kept of it",
        fix="try again",
    )
