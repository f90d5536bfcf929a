"""The wall in front of the page: hosts, origins, the token and the headers of every answer (WE-02 to WE-05, WE-15)."""

from __future__ import annotations

import hmac
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.websockets import WebSocketDisconnect

from neuromend.review import guard as guard_module
from neuromend.review.guard import HEADERS, Gate, Guard, new_token

from .review_cases import BASE, TOKEN, client_of, make_desk

PORT = 8123


async def _echo(request: Request) -> JSONResponse:
    return JSONResponse({"range": request.headers.get("range")})


def client(**headers: str) -> TestClient:
    app = Starlette(
        routes=[Route(path, _echo, methods=["GET", "POST"]) for path in ("/", "/page/a.js", "/api/x")]
    )
    gate = Gate.of({"127.0.0.1", "localhost", "[::1]"}, PORT, TOKEN)
    return TestClient(Guard(app, gate), base_url=BASE, headers=headers)


def answer(method: str = "GET", path: str = "/api/x", **headers: str) -> tuple[int, str | None]:
    """Status and code; a header given as '' is left out."""
    names = {name.replace("_", "-"): value for name, value in headers.items() if value}
    token = {} if "X_Neuromend_Token" in headers else {"X-Neuromend-Token": TOKEN}
    reply = client().request(method, path, headers={**token, **names})
    return reply.status_code, reply.json().get("code") if reply.status_code >= 400 else None


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:8123", "LOCALHOST:8123", "[::1]:8123"])
def test_the_names_of_this_server_are_answered(host: str) -> None:
    assert answer(Host=host) == (200, None)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8123", "evil.example", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:8124",
        "127.0.0.1.evil.example:8123",
        "127.0.0.1:8123.evil.example", "user@127.0.0.1:8123", "0.0.0.0:8123", "2130706433:8123", "127.1:8123",
        "127.0.0.1:08123", "127.0.0.1:8123 ", "localhost.:8123",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/page/a.js", "/api/x"])
def test_other_hosts_are_refused_even_with_the_token(host: str, path: str) -> None:
    """WE-02: a name that an attacker points to this address arrives in the Host header."""
    assert answer(path=path, Host=host) == (421, "WE-02")


async def _status(headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate = Gate.of({"127.0.0.1"}, PORT, TOKEN)
    scope = {"type": kind, "method": "GET", "path": "/api/x", "headers": headers}
    await Guard(app, gate)(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"127.0.0.1:8123"), (b"x-neuromend-token", TOKEN.encode())], 200),
        ([(b"host", b"127.0.0.1:8123"), (b"host", b"evil"), (b"x-neuromend-token", TOKEN.encode())], 421),
        ([(b"x-neuromend-token", TOKEN.encode())], 421),
        ([(b"host", b"127.0.0.1:8123")] + [(b"x-neuromend-token", TOKEN.encode())] * 2, 401),
        ([(b"host", b"127.0.0.1:8123"), (b"x-neuromend-token", b"\xff\xfe")], 401),
    ],
)
def test_headers_that_are_missing_or_stand_there_twice_are_refused(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    import anyio

    assert anyio.run(_status, headers)[0]["status"] == status


def test_the_default_port_may_be_left_out() -> None:
    assert Gate.of({"127.0.0.1"}, 80, TOKEN).hosts == {"127.0.0.1", "127.0.0.1:80"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Origin": "null"}, {"Origin": "http://evil.example"}, {"Origin": "https://127.0.0.1:8123"},
        {"Origin": "http://127.0.0.1:8124"}, {"Origin": "http://127.0.0.1:8123.evil.example"},
        {"Origin": BASE, "Sec_Fetch_Site": "cross-site"}, {"Origin": BASE, "Sec_Fetch_Site": "same-site"},
        {"Origin": BASE, "Sec_Fetch_Site": "none"},
    ],
)  # fmt: skip
def test_changes_from_elsewhere_are_refused_even_with_the_token(method: str, headers: dict[str, str]) -> None:
    """WE-03: a change needs the exact Origin of this server, and the browser's word that it comes from the page."""
    assert answer(method, **headers) == (403, "WE-03")


def test_changes_from_the_page_are_done() -> None:
    assert answer("POST", Origin=BASE) == (200, None)
    assert answer("POST", Origin=BASE, Sec_Fetch_Site="same-origin") == (200, None)


@pytest.mark.parametrize(
    ("site", "api", "index"), [("cross-site", 403, 200), ("same-site", 403, 200), ("none", 200, 200)]
)
def test_reading_from_another_page_is_refused_and_a_link_to_the_page_works(
    site: str, api: int, index: int
) -> None:
    """WE-03."""
    assert answer(Sec_Fetch_Site=site)[0] == answer(path="/page/a.js", Sec_Fetch_Site=site)[0] == api
    assert answer(path="/", Sec_Fetch_Site=site)[0] == index
    assert answer(Origin="http://evil.example") == (403, "WE-03")


@pytest.mark.parametrize(
    "token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), " ".join(TOKEN), "None"]
)
def test_without_the_token_nothing_is_told(token: str) -> None:
    """WE-04."""
    assert answer(X_Neuromend_Token=token) == (401, "WE-04")
    assert answer("POST", X_Neuromend_Token=token, Origin=BASE) == (401, "WE-04")
    assert answer(path=f"/api/x?token={TOKEN}", X_Neuromend_Token=token) == (401, "WE-04")
    assert answer(X_Neuromend_Token=token, Cookie=f"token={TOKEN}", Authorization=f"Bearer {TOKEN}")[0] == 401
    assert answer(path="/page/a.js", X_Neuromend_Token=token) == (200, None)


def test_the_token_is_long_new_each_time_and_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WE-04: 256 bits; the comparison is the one that does not tell how many letters were right."""
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) * 6 >= 128 for token in tokens)
    compared = []

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(guard_module, "hmac", SimpleNamespace(compare_digest=compare))
    assert answer(X_Neuromend_Token="wrong")[0] == 401
    assert compared == [(b"wrong", TOKEN.encode())]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_answer_lets_another_page_read_it(method: str) -> None:
    """WE-05: there is no CORS header, not for any Origin, not for a preflight."""
    for origin in (BASE, "http://evil.example", "null"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "X-Neuromend-Token": TOKEN}
        reply = client(**asked).request(method, "/api/x")
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.status_code == (200 if origin == BASE and method != "OPTIONS" else 403) or (
            origin == BASE and reply.status_code == 405
        )


def test_parts_of_files_are_not_served() -> None:
    """WE-08: the Range header never reaches the code that would parse it."""
    assert client(**{"X-Neuromend-Token": TOKEN, "Range": "bytes=0-1," * 1000}).get("/api/x").json() == {
        "range": None
    }


def test_web_sockets_are_closed() -> None:
    """WE-02, on a channel that the page does not use."""
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/api/x"):
        pass


def test_every_answer_forbids_framing_keeping_guessing_and_telling(tmp_path: Path) -> None:
    """WE-15, WE-10: on the page, on files, on refusals, on errors, on what is not there."""
    desk = make_desk(tmp_path)
    desk.as_json = None  # type: ignore[assignment,method-assign]  # a bug
    web = client_of(desk)
    replies = {
        200: web.get("/"), 404: web.get("/nothing"), 500: web.get("/api/session"), 405: web.post("/"),
        401: web.get("/api/session", headers={"X-Neuromend-Token": "x"}), 421: web.get("/", headers={"Host": "x"}),
        403: web.post("/api/jobs", headers={"Origin": "null"}),
    }  # fmt: skip
    desk.close()
    for status, reply in replies.items():
        assert reply.status_code == status
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert HEADERS["Cache-Control"] == "no-store"
    assert replies[500].json()["code"] == "UX-70"
