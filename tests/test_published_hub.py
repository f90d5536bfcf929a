"""Weights from the authors' page: against a hub on this machine, and without one."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from neuromend import cli
from neuromend.errors import CheckpointError, TemporaryError
from neuromend.published_hub import HUB, fetch_from_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "models/weights.pt"
CONTENT = bytes(range(251)) * 1000


class Hub(ThreadingHTTPServer):
    """Serves one repository as the Hugging Face Hub does: metadata by HEAD, parts of a file by GET with a range.

    Attributes:
        files: content by name. broken: connections that are still cut in the middle of a file.
        dead: whether every file breaks off at once. status: answer instead of files, if any.
        ranges: the Range header of every GET, "" where there was none.
        digests: SHA-256 to tell instead of the true one, by name.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {NAME: CONTENT}
        self.digests: dict[str, str] = {}
        self.ranges: list[str] = []
        self.broken, self.dead, self.status = 0, False, 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        hub = cast(Hub, self.server)
        beginning = f"/{HUB}/resolve/main/"
        name = self.path.removeprefix(beginning)
        if hub.status or not self.path.startswith(beginning) or name not in hub.files:
            self.send_response(hub.status or 404)
            self.send_header("X-Error-Code", "RepoNotFound" if hub.status == 401 else "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        whole = hub.files[name]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        digest = hub.digests.get(name, hashlib.sha256(whole).hexdigest())
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(whole)))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        if not body:
            return
        hub.ranges.append(self.headers.get("Range", ""))
        if hub.dead or hub.broken:
            hub.broken = max(0, hub.broken - 1)
            self.wfile.write(b"" if hub.dead else whole[start : start + 100_000])
            self.close_connection = True
        else:
            self.wfile.write(whole[start:])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before each new attempt
    disable_progress_bars()
    yield server
    enable_progress_bars()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_fetched_whole_and_once(hub: Hub) -> None:
    path = fetch_from_hub(NAME)
    assert path.read_bytes() == CONTENT
    assert path.name == "weights.pt"
    assert fetch_from_hub(NAME) == path
    assert hub.ranges == [""], "the second call takes it from the cache"


def test_a_download_goes_on_where_the_connection_broke(hub: Hub) -> None:
    hub.broken = 2
    assert fetch_from_hub(NAME).read_bytes() == CONTENT
    assert hub.ranges == ["", "bytes=100000-", "bytes=200000-"]


def test_a_connection_that_stays_broken_is_an_error_and_leaves_nothing_half_done(
    hub: Hub, tmp_path: Path
) -> None:
    hub.dead = True
    with pytest.raises(TemporaryError, match=f"'{NAME}' could not be fetched from {HUB}") as caught:
        fetch_from_hub(NAME)
    assert (caught.value.code, caught.value.exit_status) == ("MO-11", 75)
    assert not list((tmp_path / "cache").rglob("*.pt"))
    hub.dead = False
    assert fetch_from_hub(NAME).read_bytes() == CONTENT


def test_a_file_that_is_not_the_one_of_the_page_is_refused_and_fetched_anew(hub: Hub) -> None:
    hub.files[NAME], hub.digests[NAME] = CONTENT[::-1], hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(TemporaryError, match=f"'{NAME}' is damaged: SHA-256") as caught:
        fetch_from_hub(NAME)
    assert (caught.value.code, caught.value.exit_status) == ("MO-11", 75)
    hub.files[NAME] = CONTENT
    assert fetch_from_hub(NAME).read_bytes() == CONTENT


def test_a_name_that_is_not_on_the_page_is_told(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=f"{HUB} has no file 'models/other.pt'") as caught:
        fetch_from_hub("models/other.pt")
    assert (caught.value.code, caught.value.exit_status) == ("MO-11", 78)
    assert hub.ranges == []


def test_a_page_that_is_closed_is_told(hub: Hub) -> None:
    hub.status = 401
    with pytest.raises(CheckpointError, match=f"the page {HUB} is not there, or not open") as caught:
        fetch_from_hub(NAME)
    assert (caught.value.code, caught.value.exit_status) == ("MO-11", 78)


def test_without_a_network_the_command_says_so(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    nowhere = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub.address, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    words = ["import-weights", "--method", "slice2d", NAME, "--from-hub", "--out", str(tmp_path / "model")]
    assert cli.main(words) == 75
    said = " ".join(capsys.readouterr().err.split())
    assert f"[MO-11] '{NAME}' could not be fetched from {HUB} (ConnectError)" in said
    assert "copy the file here and give its path without --from-hub" in said
    assert not (tmp_path / "model").exists()


def test_the_command_fetches_both_files_of_the_latent_method(hub: Hub, tmp_path: Path) -> None:
    from neuromend.checkpoint import load_manifest
    from neuromend.methods import METHODS

    build: Any = METHODS["latent3d"]
    state = build(build.PRESETS["tiny"]).state_dict()
    del state["vqgan.codebook.initialised"]
    coder = {key[len("vqgan.") :]: value for key, value in state.items() if key.startswith("vqgan.")}
    rest = {key: value for key, value in state.items() if not key.startswith("vqgan.")}
    for name, content in (("ddpm.pt", {"step": 1, "ema": rest}), ("vqgan.ckpt", {"state_dict": coder})):
        torch.save(content, tmp_path / name)
        hub.files[f"models/{name}"] = (tmp_path / name).read_bytes()
    out = tmp_path / "model"
    words = ["import-weights", "--method", "latent3d", "models/ddpm.pt", "--autoencoder", "models/vqgan.ckpt"]
    assert cli.main([*words, "--from-hub", "--preset", "tiny", "--out", str(out)]) == 0
    training = load_manifest(out).training
    assert training["source_sha256"] == hashlib.sha256(hub.files["models/ddpm.pt"]).hexdigest()
    assert training["autoencoder_sha256"] == hashlib.sha256(hub.files["models/vqgan.ckpt"]).hexdigest()


def test_the_hub_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="huggingface_hub is not installed") as caught:
        fetch_from_hub("savedmodel325000.pt")
    assert (caught.value.code, caught.value.exit_status) == ("MO-11", 78)
