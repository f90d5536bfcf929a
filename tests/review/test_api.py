"""The requests of the page, from opening a scan to saving its fill, and what is refused (WE-06 to WE-13)."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi.testclient import TestClient

import neuromend
from neuromend.provenance import read_sidecar
from neuromend.review import requests as requests_module
from neuromend.review.api import PAGE
from neuromend.review.desk import Desk

from .review_cases import AFFINE, MARKUP, TOKEN, ball, client_of, make_desk, save_mask, save_scan


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = make_desk(tmp_path, model="ring-mean", max_upload_bytes=300_000)
    yield desk
    desk.close()


@pytest.fixture
def web(desk: Desk) -> TestClient:
    return client_of(desk)


def opened(desk: Desk, folder: Path, name: str = "scan.nii.gz") -> dict[str, Any]:
    """A scan with a mask, as the command line opens them."""
    scan = desk.session.add_scan(save_scan(folder, name))
    desk.session.add_mask(scan, save_mask(folder), "lesion.nii.gz")
    return scan.as_json()


def wish(scan: dict[str, Any], /, **more: Any) -> dict[str, Any]:
    facts = {"scan": scan["id"], "mask": scan["masks"][0]["id"], "model": "ring-mean", "key": "0123456789"}
    return facts | more


def finished(web: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """Ask until it is done, as the page does."""
    for _ in range(600):
        job = web.get(f"/api/jobs/{job['id']}").json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def test_the_session_tells_all_that_the_page_shows(desk: Desk, web: TestClient, tmp_path: Path) -> None:
    scan = opened(desk, tmp_path)
    told = web.get("/api/session").json()
    assert told["scans"] == [scan]
    assert scan["shape"] == [34, 40, 30]
    assert scan["spacing_mm"] == [2.5, 2.5, 2.5]
    assert scan["masks"][0]["volume_ml"] == pytest.approx(ball().sum() * 2.5**3 / 1000, abs=1e-3)
    assert {"name": "ring-mean", "kind": "classical", "expected": True}.items() <= told["models"][1].items()
    assert (told["model"], told["job"], told["queue"], told["cohort"]) == ("ring-mean", None, [], None)
    assert told["out_dir"] == "out"
    assert told["limits"] == {"max_bytes": 300_000, "max_queue": 4}


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.mgz"])
def test_volumes_travel_as_gzipped_nifti_without_loss(
    desk: Desk, web: TestClient, tmp_path: Path, name: str
) -> None:
    path = save_scan(tmp_path, name)
    scan = desk.session.add_scan(path)
    reply = web.get(f"/api/files/{scan.id}")
    assert reply.headers["content-type"] == "application/gzip"
    sent: Any = nib.Nifti1Image.from_bytes(gzip.decompress(reply.content))  # type: ignore[no-untyped-call]
    original: Any = nib.load(path)  # type: ignore[attr-defined]
    assert sent.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(sent.dataobj), np.asarray(original.dataobj))
    assert np.allclose(sent.affine, original.affine, atol=1e-4)
    if name == "scan.nii.gz":
        assert reply.content == path.read_bytes()
    again = web.get(f"/api/files/{scan.id}")
    assert again.content == reply.content


def test_a_pair_keeps_its_scaling(desk: Desk, web: TestClient, tmp_path: Path) -> None:
    image: Any = nib.Nifti1Pair(save_head(tmp_path), AFFINE)  # type: ignore[no-untyped-call]
    image.header.set_slope_inter(0.5, 7)
    nib.save(image, tmp_path / "pair.img")  # type: ignore[attr-defined]
    scan = desk.session.add_scan(tmp_path / "pair.img")
    reply = web.get(f"/api/files/{scan.id}")
    sent: Any = nib.Nifti1Image.from_bytes(gzip.decompress(reply.content))  # type: ignore[no-untyped-call]
    original: Any = nib.load(tmp_path / "pair.img")  # type: ignore[attr-defined]
    assert np.array_equal(sent.dataobj.get_unscaled(), original.dataobj.get_unscaled())
    assert (sent.dataobj.slope, sent.dataobj.inter) == (original.dataobj.slope, original.dataobj.inter)


def save_head(folder: Path) -> Any:
    """Stored voxels of the small scan."""
    image: Any = nib.load(save_scan(folder))  # type: ignore[attr-defined]
    return np.asarray(image.dataobj)


def test_a_drawn_mask_is_filled_and_saved_as_fill_does_it(
    desk: Desk, web: TestClient, tmp_path: Path
) -> None:
    """From the drop of a scan to the files in the output folder; the same bytes as ``neuromend.fill`` writes."""
    scan = web.post("/api/scans", params={"name": "dropped.nii.gz"}, content=save_scan(tmp_path).read_bytes())
    assert scan.status_code == 201
    drawn = save_mask(tmp_path).read_bytes()
    mask = web.post(f"/api/scans/{scan.json()['id']}/masks", params={"name": "my mask"}, content=drawn)
    assert mask.status_code == 201
    assert mask.json()["name"] == "my mask"
    assert {"code": "MA-10", "level": "pass"}.items() <= mask.json()["findings"][2].items()
    order = wish(web.get(f"/api/scans/{scan.json()['id']}").json(), samples=2, seed=5)
    body = {name: order[name] for name in ("scan", "mask", "model", "samples")}
    assert web.post("/api/estimate", json=body | {"mask": None}).json()["basis"].startswith("a table")
    assert web.post("/api/estimate", json=body | {"mask": "x"}).json()["code"] == "WE-06"
    reply = web.post("/api/jobs", json=order)
    assert reply.status_code == 202
    job = finished(web, reply.json())
    assert job["state"] == "done", job
    result = job["result"]
    assert set(result["files"]) == {"filled", "mask", "uncertainty", "sample-01", "sample-02", "picture"}
    assert (result["samples"], result["seed"], result["saved"]) == (2, "5", None)
    assert web.get(f"/api/files/{result['files']['picture']}").headers["content-type"] == "image/png"
    assert web.post("/api/estimate", json=body).json()["basis"].startswith("measured")

    names = web.post(f"/api/results/{result['id']}/save", json={}).json()["files"]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert web.get("/api/session").json()["scans"][0]["results"][0]["saved"] == names
    record = read_sidecar(tmp_path / "out" / "dropped_inpainted.json")
    (tmp_path / "own").mkdir()
    own = neuromend.fill(
        desk.session.scans[scan.json()["id"]].path, tmp_path / "lesion.nii.gz", tmp_path / "own",
        model="ring-mean", samples=2, seed=5,
    )  # fmt: skip
    for role in ("filled", "mask", "uncertainty", "sample-01", "sample-02"):
        path = own.outputs[role]
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    ours = {output.role: output.sha256 for output in read_sidecar(own.outputs["record"]).outputs[:5]}
    assert {output.role: output.sha256 for output in record.outputs[:5]} == ours
    assert record.run.command == ["neuromend", "review"]


def test_saving_replaces_nothing_without_consent(desk: Desk, web: TestClient, tmp_path: Path) -> None:
    """RT-04, and the consent."""
    job = finished(web, web.post("/api/jobs", json=wish(opened(desk, tmp_path))).json())
    save = f"/api/results/{job['result']['id']}/save"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan_inpainted.png").write_text("older")
    refused = web.post(save, json={})
    assert refused.status_code == 409
    assert refused.json()["code"] == "RT-04"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scan_inpainted.png"]
    assert web.post(save, json={"overwrite": True}).status_code == 200
    assert (tmp_path / "out" / "scan_inpainted.json").is_file()
    assert (tmp_path / "out" / "scan_inpainted.png").read_bytes()[:4] == b"\x89PNG"


def test_a_file_that_changed_since_is_not_saved(desk: Desk, web: TestClient, tmp_path: Path) -> None:
    job = finished(web, web.post("/api/jobs", json=wish(opened(desk, tmp_path))).json())
    desk.session.result(job["result"]["id"]).outputs["mask"].write_bytes(b"else")
    reply = web.post(f"/api/results/{job['result']['id']}/save", json={})
    assert (reply.status_code, reply.json()["code"]) == (507, "RT-06")
    assert not list((tmp_path / "out").iterdir())


def test_a_removed_result_frees_its_files(desk: Desk, web: TestClient, tmp_path: Path) -> None:
    job = finished(web, web.post("/api/jobs", json=wish(opened(desk, tmp_path))).json())
    result = job["result"]
    folder = desk.session.result(result["id"]).folder
    assert folder is not None
    assert folder.is_dir()
    assert web.delete(f"/api/results/{result['id']}").status_code == 204
    assert not folder.exists()
    assert web.get(f"/api/files/{result['files']['filled']}").status_code == 404
    assert web.get("/api/session").json()["scans"][0]["results"] == []


@pytest.mark.parametrize(
    "name",
    [
        "../index.html", "..%2findex.html", "%2e%2e/index.html", "%2e%2e%2f%2e%2e%2fapi.py", "..\\api.py",
        "..%5capi.py", "/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd", "index.html%00.js", "C:\\windows\\win.ini",
        "C:/windows/win.ini", "/windows/win.ini", "vendor/../index.html", "./index.html", "vendor", "", "INDEX.HTML",
    ],
)  # fmt: skip
def test_only_the_files_of_the_page_are_served(web: TestClient, name: str) -> None:
    """WE-06: names come from a list made at the start; a name that is not in it is nowhere."""
    for reply in (web.get(f"/page/{name}"), web.get(f"/api/files/{name}"), web.get(f"/{name}")):
        normal = (
            str(reply.url).removesuffix("/").rsplit("/page/", 1)[-1] == "index.html"
        )  # the client resolved it
        assert reply.status_code == 404 or normal or str(reply.url.path) == "/"
        assert b"root:" not in reply.content
        assert b"import" not in reply.content or normal


def test_the_page_is_there_with_its_types(web: TestClient) -> None:
    index = web.get("/")
    assert index.status_code == 200
    assert index.headers["content-type"].startswith("text/html")
    for path in PAGE.rglob("*.js"):
        reply = web.get(f"/page/{path.relative_to(PAGE).as_posix()}")
        assert reply.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/files/x"), ("GET", "/api/scans/x"), ("GET", "/api/jobs/x"), ("DELETE", "/api/jobs/x"),
        ("DELETE", "/api/results/x"), ("POST", "/api/results/x/save"), ("POST", "/api/scans/x/masks"),
        ("PUT", "/api/cases/x/verdict"), ("GET", "/api/verdicts.tsv"),
    ],
)  # fmt: skip
def test_ids_that_were_never_given_out_are_refused(web: TestClient, method: str, path: str) -> None:
    """WE-06: a path in place of an id is one of them."""
    body: dict[str, Any] = {"json": {"verdict": "accept"}} if method == "PUT" else {}
    reply = web.request(method, path, **body)
    assert (reply.status_code, reply.json()["code"]) == (404, "WE-06")
    assert set(reply.json()) == {"code", "what", "why", "fix"}


def test_uploads_are_counted(web: TestClient, desk: Desk) -> None:
    """WE-07: by what is declared, and by what really comes where nothing is declared."""
    declared = web.post("/api/scans", params={"name": "a.nii"}, content=b"0" * 300_001)
    counted = web.post("/api/scans", params={"name": "a.nii"}, content=iter([b"0" * 150_000] * 3))
    note = web.put("/api/cases/x/verdict", content=b"0" * 70_000)
    for reply, most in ((declared, 300_000), (counted, 300_000), (note, 65_536)):
        assert (reply.status_code, reply.json()["code"], reply.json()["max_bytes"]) == (413, "WE-07", most)
    assert not list((desk.session.folder / "scans").iterdir())


def test_a_body_that_stops_coming_is_given_up(
    web: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WE-07: slow-loris."""
    import asyncio

    async def never(stream: Any, seconds: float) -> bytes:
        stream.close()
        raise TimeoutError

    monkeypatch.setattr(requests_module.asyncio, "wait_for", never)
    reply = web.post("/api/scans", params={"name": "a.nii"}, content=b"0000")
    assert asyncio.wait_for is never
    assert (reply.status_code, reply.json()["code"]) == (408, "WE-07")
    assert not list((desk.session.folder / "scans").iterdir())


@pytest.mark.parametrize(
    ("name", "status"),
    [
        (MARKUP, 201), ("naïve 脑.nii.gz", 201), ("a.nii.gz\r\nX-Evil: 1", 422), ("a\x00.nii", 422), ("../a.nii", 422),
        ("..\\a.nii", 422), ("/a.nii", 422), ("C:a.nii", 422), (".nii.gz", 422), (".hidden.nii", 422), ("", 422),
        ("a.exe", 422), ("a" * 200 + ".nii", 422), ("a\u202egz.nii", 422),
    ],
)  # fmt: skip
def test_names_are_text_or_are_refused(web: TestClient, tmp_path: Path, name: str, status: int) -> None:
    """WE-10 and WE-11: markup stays text in JSON; nothing breaks out of a folder, a line or a header."""
    reply = web.post("/api/scans", params={"name": name}, content=save_scan(tmp_path).read_bytes())
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    if status == 422:
        assert reply.json()["code"] == "WE-11"
        return
    assert reply.json()["name"] == name
    disposition = web.get(f"/api/files/{reply.json()['id']}").headers["content-disposition"]
    assert disposition.startswith('attachment; filename="')
    assert disposition.count('"') == 2
    assert "<" not in disposition
    assert disposition.isascii()
    mask = web.post(
        f"/api/scans/{reply.json()['id']}/masks",
        params={"name": "<b>\r\nx"},
        content=save_mask(tmp_path).read_bytes(),
    )
    assert mask.json()["name"] == "<b>x"


@pytest.mark.parametrize(
    ("what", "code"),
    [("empty", "MA-01"), ("text", "IN-05"), ("other grid", "MA-09"), ("labels", "MA-06"), ("cut", "IN-02")],
)
def test_a_mask_that_fill_would_refuse_is_refused(
    desk: Desk, web: TestClient, tmp_path: Path, what: str, code: str
) -> None:
    scan = opened(desk, tmp_path)
    made = {
        "empty": save_mask(tmp_path, "m.nii.gz", np.zeros_like(ball())),
        "other grid": save_mask(tmp_path, "g.nii.gz", ball()[:-3]),
        "labels": save_mask(tmp_path, "l.nii.gz", ball() * np.arange(1, 31, dtype=np.uint8)),
    }
    content = made[what].read_bytes() if what in made else b"<html>" * 200
    if what == "cut":
        content = save_mask(tmp_path).read_bytes()[:-100]
    reply = web.post(f"/api/scans/{scan['id']}/masks", content=content)
    assert reply.status_code == 422
    assert reply.json()["code"] == code
    assert not list((desk.session.folder / "masks").iterdir())
    assert len(web.get(f"/api/scans/{scan['id']}").json()["masks"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"samples": -1}, {"samples": 65}, {"samples": "1"}, {"steps": 0}, {"seed": -1}, {"key": "short"}, {"extra": 1},
        {"scan": 5}, {"model": "x" * 101},
    ],
)  # fmt: skip
def test_orders_that_make_no_sense_are_refused(
    desk: Desk, web: TestClient, tmp_path: Path, change: Any
) -> None:
    """WE-19, naming the field; nothing of the request is repeated."""
    reply = web.post("/api/jobs", json=wish(opened(desk, tmp_path), **change))
    assert (reply.status_code, reply.json()["code"]) == (422, "WE-19")
    assert next(iter(change)) in reply.json()["what"]
    assert web.post("/api/jobs", content=b"{").status_code == 422
    assert web.post("/api/jobs", content=b"[" * 60_000).status_code == 422


def test_an_unknown_model_is_refused(desk: Desk, web: TestClient, tmp_path: Path) -> None:
    for model in ("nothing", "../../etc", "weights.pt"):
        reply = web.post("/api/jobs", json=wish(opened(desk, tmp_path), model=model))
        assert reply.status_code == 422
        assert reply.json()["code"] in ("MO-16", "MO-01")


def test_a_fill_that_fails_says_why(desk: Desk, web: TestClient, tmp_path: Path) -> None:
    scan = opened(desk, tmp_path)
    (tmp_path / "scan.nii.gz").unlink()
    job = finished(web, web.post("/api/jobs", json=wish(scan)).json())
    assert (job["state"], job["error"]["code"]) == ("failed", "IN-38")
    assert str(tmp_path) not in str(job["error"])
    gone = web.get(f"/api/files/{scan['id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "IN-38")


def test_nothing_describes_the_routes(web: TestClient) -> None:
    """WE-16: a maintained server, no list of what could be attacked."""
    for path in ("/docs", "/redoc", "/openapi.json", "/api", "/api/", "/page", "/page/", "/admin"):
        assert web.get(path).status_code == 404


def test_reading_changes_nothing(web: TestClient) -> None:
    """WE-03: what changes something is no GET."""
    for path in ("/api/jobs", "/api/estimate", "/api/results/x/save", "/api/cases/x/verdict", "/api/scans"):
        assert web.get(path).status_code == 405


@pytest.mark.parametrize("redact", [False, True])
def test_the_log_names_nobody(tmp_path: Path, redact: bool) -> None:
    """WE-13: numbers and codes, no file, no folder, no token; --redact-paths keeps folders off the page too."""
    folder = tmp_path / "jane doe"
    folder.mkdir()
    desk = make_desk(tmp_path, model="ring-mean", redact=redact, command=["neuromend", "review", str(folder)])
    web = client_of(desk)
    scan = opened(desk, folder)
    job = finished(web, web.post("/api/jobs", json=wish(scan)).json())
    (tmp_path / "out").write_text("a file where the folder should be")
    refused = web.post(f"/api/results/{job['result']['id']}/save", json={})
    web.get("/api/session", headers={"X-Neuromend-Token": "wrong"})
    desk.close()
    log = (tmp_path / "log").read_text()
    assert "done after" in log
    assert "refused [" in log
    assert not [word for word in ("jane", "scan.nii", "lesion", str(tmp_path), TOKEN, "wrong") if word in log]
    assert (str(tmp_path) in refused.text) == (not redact)
    assert str(tmp_path) not in web.get("/api/session").text
