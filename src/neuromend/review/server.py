"""Start the page: take a port, open what was named, print the address, and clean up whatever happens."""

from __future__ import annotations

import html
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from neuromend.errors import DeviceError
from neuromend.findings import Finding
from neuromend.models import DEFAULT_MODEL
from neuromend.review.api import build_app
from neuromend.review.cohort import Cohort
from neuromend.review.desk import Desk
from neuromend.review.guard import Gate, Guard, new_token

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
MAX_CONNECTIONS = 64
CLOSING_SECONDS = 2
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server listens.

    Attributes:
        host: an address of this machine.
        port: 0 takes a free one.
        idle_minutes: without a request and without a job for this long, the server ends; 0 means never.
        browser: open the page, if there is a display.
    """

    host: str = "127.0.0.1"
    port: int = 0
    idle_minutes: float = 120.0
    browser: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """What is open when the page is; the paths are the user's and are only read."""

    scan: Path | None = None
    mask: Path | None = None
    cohort: Path | None = None
    out: Path = Path("neuromend-review")
    model: str = DEFAULT_MODEL
    redact: bool = False


def serve_page(
    opening: Opening,
    place: Place,
    *,
    command: list[str],
    tell: Callable[[str], None],
    say: Callable[[str], None],
    warn: Callable[[Finding], None],
) -> None:
    """Serve the page until Ctrl-C, SIGTERM or the idle time.

    Args:
        command: the command line, for the records of fills.
        tell: prints the address, the only line on stdout.
        say: a line for the log, without names, paths and the token.
        warn: something that the user should know.

    Raises:
        DeviceError: WE-14, the port is taken or the address is not this machine's.
        NeuromendError: a file that was named cannot be opened.
    """
    with _listening(place) as listener, _session_folder() as folder:
        desk = Desk(
            folder, opening.out, say=say, command=command, model=opening.model, redact=opening.redact
        )  # fmt: skip
        try:
            _open(desk, opening)
            port = int(listener.getsockname()[1])
            gate = Gate.of(_names(place.host), port, new_token())
            if place.host not in LOOPBACK:
                warn(_exposed(place.host, port))
            guard = Guard(build_app(desk), gate)
            address = f"http://{_bracketed(_shown_host(place.host))}:{port}/#token={gate.token}"
            tell(address)
            if place.browser:
                _open_browser(folder, address)
            _serve(guard, listener, desk, place.idle_minutes, say)
        finally:
            desk.close()


def _open(desk: Desk, opening: Opening) -> None:
    if opening.cohort is not None:
        desk.cohort = Cohort(opening.cohort, desk.session)
    if opening.scan is not None:
        scan = desk.session.add_scan(opening.scan)
        if opening.mask is not None:
            desk.session.add_mask(scan, opening.mask, opening.mask.name)


def _serve(
    guard: Guard, listener: socket.socket, desk: Desk, idle_minutes: float, say: Callable[[str], None]
) -> None:
    config = uvicorn.Config(
        guard, log_config=None, access_log=False, log_level="critical", ws="none", lifespan="off",
        server_header=False, proxy_headers=False, limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )  # fmt: skip
    server = uvicorn.Server(config)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            if desk.jobs.busy:
                guard.last_request = time.monotonic()
            elif idle_minutes and time.monotonic() - guard.last_request > idle_minutes * 60:
                say(f"nobody asked for {idle_minutes:g} minutes: the page is closed")
                server.should_exit = True
                return

    watcher = threading.Thread(target=watch, name="neuromend-idle", daemon=True)
    watcher.start()
    try:
        server.run(sockets=[listener])
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """A socket on the port, taken before any file is read."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if os.name != "nt":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((place.host, place.port))
            listener.listen(MAX_CONNECTIONS)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise DeviceError(
                "WE-14",
                f"port {place.port} of {place.host} cannot be used ({reason or error})",
                why="another program listens there (perhaps another `neuromend review`), or it is not allowed",
                fix="--port 0 takes a free one",
            ) from error
        yield listener


@contextmanager
def _session_folder() -> Iterator[Path]:
    """A folder that only this user can read, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="neuromend-review-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _names(host: str) -> set[str]:
    """How a browser may write this server's host."""
    if host in LOOPBACK:
        return {"127.0.0.1", "localhost", "[::1]"}
    if host not in EVERYWHERE:
        return {_bracketed(host)}
    own = socket.gethostname()
    found = {"127.0.0.1", "localhost", own, socket.getfqdn()}
    try:
        found |= {_bracketed(str(info[4][0])) for info in socket.getaddrinfo(own, None)}
    except OSError:
        return found  # a machine that does not know its own address
    return found


def _shown_host(host: str) -> str:
    return socket.gethostname() if host in EVERYWHERE else host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _exposed(host: str, port: int) -> Finding:
    return Finding(
        "WE-01",
        "warning",
        f"the page can be reached from other machines ({host}), and what it sends is not encrypted; whoever has the "
        f"address with the token sees the scans. Safer: leave --host out and use a tunnel, ssh -L "
        f"{port}:127.0.0.1:{port} MACHINE",
    )


def _open_browser(folder: Path, address: str) -> None:
    """Open the page by way of a file that only this user can read: other users see the arguments of a browser."""
    has_display = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if not has_display:
        return
    page = folder / "open.html"
    page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">', encoding="ascii")
    webbrowser.open(page.as_uri())
