"""The command itself: the line it prints, who it lets in, and what it leaves behind (WE-01, WE-13, WE-14)."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from neuromend import cli
from neuromend.findings import Finding
from neuromend.review import server
from neuromend.review.server import Opening, Place, serve_page

from .review_cases import save_mask, save_scan

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/#token=([A-Za-z0-9_-]{43})\n")


@contextmanager
def running(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``neuromend review`` in a process of its own, with its own folder for temporary files."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "neuromend", "review", "--no-browser", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_one_line_is_printed_and_a_signal_leaves_nothing_behind(
    tmp_path: Path, number: int, status: int
) -> None:
    """WE-01 (the loopback address alone), WE-13 (no name, no token in the log), WE-14 (a free port)."""
    scan, mask = save_scan(tmp_path), save_mask(tmp_path)
    with running(tmp_path, str(scan), str(mask), "--port", "0") as (process, line):
        found = ADDRESS.fullmatch(line)
        assert found, line
        port, token = found.groups()
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base, trust_env=False) as web:
            assert web.get("/").status_code == 200
            assert web.get("/api/session").status_code == 401
            told = web.get("/api/session", headers={"X-Neuromend-Token": token}).json()
        assert told["scans"][0]["masks"][0]["name"] == "lesion.nii.gz"
        (session,) = (tmp_path / "tmp").iterdir()
        assert session.stat().st_mode & 0o077 == 0
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert out == ""
    assert not list((tmp_path / "tmp").iterdir())
    log = err.split("[RT-09]")[0]  # what follows is the command line to start it again
    assert not [word for word in (token, "scan.nii", "lesion", "Traceback") if word in log]
    assert token not in err
    assert not (tmp_path / "neuromend-review").exists()


def served(place: Place, **more: Any) -> tuple[list[str], list[Finding]]:
    """Serve in this thread until it ends by itself; what was printed and warned of."""
    told: list[str] = []
    warned: list[Finding] = []
    done = {"opening": Opening(), "command": ["neuromend"], "tell": told.append, "warn": warned.append} | more
    serve_page(done.pop("opening"), place, say=lambda line: None, **done)
    return told, warned


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Desks whose worker is never started."""
    from .review_cases import HereWorker

    desk = server.Desk
    monkeypatch.setattr(server, "Desk", lambda *a, **o: desk(*a, **o, make_worker=HereWorker))


@pytest.mark.usefixtures("no_process")
def test_an_idle_server_ends() -> None:
    """WE-14: nobody asked for a while, and no fill runs."""
    began = time.monotonic()
    told, warned = served(Place(idle_minutes=0.005))
    assert ADDRESS.fullmatch(told[0] + "\n")
    assert warned == []
    assert 0.3 <= time.monotonic() - began < 60


@pytest.mark.usefixtures("no_process")
def test_another_address_is_warned_of_and_still_needs_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """WE-01."""
    found: list[int] = []

    def ask(line: str) -> None:
        port, token = re.fullmatch(r"http://[^/]*:(\d+)/#token=(.*)", line).groups()  # type: ignore[union-attr]

        def look() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as web:
                found.append(web.get("/api/session").status_code)
                found.append(web.get("/api/session", headers={"X-Neuromend-Token": token}).status_code)

        threading.Thread(target=look).start()

    _, warned = served(Place(host="0.0.0.0", idle_minutes=0.05), tell=ask)
    assert [(finding.code, finding.level) for finding in warned] == [("WE-01", "warning")]
    assert "not encrypted" in warned[0].message
    assert found == [401, 200]


def test_a_port_that_is_taken_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """WE-14."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        status = cli.main(["review", str(tmp_path / "none.nii"), "--port", port, "--no-browser"])
    err = capsys.readouterr().err
    assert status == 69
    assert f"[WE-14] port {port} of 127.0.0.1" in err
    assert "--port 0" in err


def test_an_address_of_another_machine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["review", "--host", "192.0.2.1", "--no-browser"]) == 69
    assert "[WE-14]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["scan.nii", "--cohort", "out"], 2, "WE-20"),
        (["none.nii"], 66, "IN-38"),
        (["--cohort", "none"], 66, "IN-38"),
        (["--model", "none"], 78, "MO-16"),
        (["--port", "65536"], 2, "UX-10"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    words: list[str], status: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["review", "--no-browser", *words]) == status
    assert f"[{code}]" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["review", "--no-browser"]) == 2
    err = capsys.readouterr().err
    assert "[WE-21]" in err
    assert "pip install 'neuromend[review]'" in err


@pytest.mark.parametrize("display", [False, True])
def test_the_browser_is_given_a_file_and_not_the_token(
    display: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WE-04: the arguments of a program can be read by every user of a machine."""
    opened: list[str] = []
    monkeypatch.setattr(server, "webbrowser", SimpleNamespace(open=opened.append))
    monkeypatch.setattr(server, "sys", SimpleNamespace(platform="linux"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", ":0")
    server._open_browser(tmp_path, "http://127.0.0.1:1/#token=secret")
    assert opened == ([(tmp_path / "open.html").as_uri()] if display else [])
    assert "secret" not in str(opened)
    if display:
        assert "url=http://127.0.0.1:1/#token=secret" in (tmp_path / "open.html").read_text()
