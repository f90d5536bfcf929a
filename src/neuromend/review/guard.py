"""The wall in front of the page: who may ask, from where, and what every answer forbids the browser to do.

Another web page that the user has open can make the browser send requests to this machine. It does not know the
token, it cannot set the header that carries it without permission (there are no CORS headers to give one), its
requests carry another Origin, and a name of its own that it points to this address (DNS rebinding) is not in the
list of hosts.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromend.review.refusals import Refusal, error_body

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_BYTES = 32
TOKEN_HEADER = b"x-neuromend-token"
READING = ("GET", "HEAD")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer. ``data:`` is the font inside NiiVue, ``blob:`` are pictures that the page fetched with the token."""


def new_token() -> str:
    """A secret of 256 bits for one start of the server, in letters that an address may hold."""
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Gate:
    """Who is let in.

    Attributes:
        token: what the header must say, for everything below /api.
        hosts: ``name:port`` as the browser writes it in its Host header; nothing else is answered.
    """

    token: str
    hosts: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str], port: int, token: str) -> Gate:
        """For a server that is reached by these names; a browser leaves the port out where it is 80."""
        hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())
        return cls(token, frozenset(host.lower() for host in hosts))

    def refusal(self, scope: Scope) -> Refusal | None:
        """Why this request is not answered; None if it is."""
        host = _only(scope, b"host")
        if host is None or host.lower() not in self.hosts:
            return Refusal(
                421,
                "WE-02",
                "the Host header of the request is not the address of this server",
                why="a web page may have pointed a name of its own to this machine (DNS rebinding)",
                fix="open the address that `neuromend review` printed, exactly as it stands",
            )
        if not self._is_from_here(scope):
            return Refusal(
                403,
                "WE-03",
                "the request comes from another web page",
                why="only the page that this server gave out may ask",
                fix="open the address that `neuromend review` printed",
            )
        if scope["path"].startswith("/api/") and not self._has_token(scope):
            return Refusal(
                401,
                "WE-04",
                "the request has no token, or a wrong one",
                why="the token proves that you may see these scans; each start has a new one",
                fix="open the whole address that `neuromend review` printed, with what stands behind #token=",
            )
        return None

    def _is_from_here(self, scope: Scope) -> bool:
        """The Origin, where there is one, is ours, and a change has one; the browser's own word agrees.

        The page itself may be opened from anywhere (a link in a mail or a notebook): it holds nothing secret.
        """
        origins = {f"http://{host}" for host in self.hosts}
        origin, site = _all(scope, b"origin"), _all(scope, b"sec-fetch-site")
        changes = scope["method"] not in READING
        if origin or changes:
            return len(origin) == 1 and origin[0].lower() in origins and site in ([], ["same-origin"])
        return scope["path"] == "/" or site in ([], ["same-origin"], ["none"])

    def _has_token(self, scope: Scope) -> bool:
        given = _only(scope, TOKEN_HEADER)
        return given is not None and hmac.compare_digest(given.encode("latin-1"), self.token.encode())


class Guard:
    """The outermost application: lets a request pass or answers it, and adds the headers to every answer.

    Attributes:
        last_request: time (monotonic seconds) of the last request that was let in, for the idle shutdown.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self.gate = gate
        self.last_request = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self.gate.refusal(scope)
        if refusal is not None:
            body = json.dumps(error_body(refusal, redact=True)).encode()
            kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": refusal.status, "headers": kind})
            await send({"type": "http.response.body", "body": body})
            return
        self.last_request = time.monotonic()
        # Parts of files are not served: the page needs whole ones, and what is not parsed cannot be abused.
        wanted = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        await self.app({**scope, "headers": wanted}, receive, send)


def _with_headers(send: Send) -> Send:
    ours = {name.lower().encode(): value.encode() for name, value in HEADERS.items()}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in ours]
            message = {**message, "headers": [*kept, *ours.items()]}
        await send(message)

    return send_with_headers


def _all(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _only(scope: Scope, wanted: bytes) -> str | None:
    """The value of a header that stands there once; None if it is missing or there twice."""
    found = _all(scope, wanted)
    return found[0] if len(found) == 1 else None
