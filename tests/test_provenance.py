"""The sidecar: stable, strict, complete; the facts of a run and the hashes."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from neuromend import provenance
from neuromend.errors import InputError, MissingInputError
from neuromend.findings import Finding
from neuromend.provenance import (
    Sidecar,
    finding_records,
    git_commit,
    hash_file,
    read_sidecar,
    run_record,
    version_string,
)

STARTED = datetime(2026, 11, 22, 10, 20, 30, 456000, tzinfo=timezone(timedelta(hours=2)))


MakeSidecar = Callable[..., Sidecar]


def test_a_sidecar_survives_the_disk(tmp_path: Path, make_sidecar: MakeSidecar) -> None:
    path = tmp_path / "scan_inpainted.json"
    path.write_text(make_sidecar().to_json(), encoding="utf-8")
    assert read_sidecar(path) == make_sidecar()
    assert path.read_text().endswith("}\n")


def test_keys_come_in_a_fixed_order_with_those_of_bids_first(make_sidecar: MakeSidecar) -> None:
    keys = list(json.loads(make_sidecar().to_json()))
    assert keys[:4] == ["Description", "Sources", "SkullStripped", "GeneratedBy"]
    assert keys[-1] == "run"
    assert json.loads(make_sidecar().to_json())["GeneratedBy"] == [{"Name": "neuromend", "Version": "1.2.3"}]


def test_a_missing_sidecar_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as caught:
        read_sidecar(tmp_path / "none.json")
    assert (caught.value.code, caught.value.exit_status) == ("IN-35", 66)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "whole file"),
        ("[]", "whole file"),
        ('{"Description": "x"}', "Sources"),
        ("x" * ((4 << 20) + 1), "4194305 bytes"),
    ],
)
def test_a_file_that_is_no_sidecar_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=named) as caught:
        read_sidecar(path)
    assert (caught.value.code, caught.value.exit_status) == ("IN-05", 65)
    assert str(path) in str(caught.value)


def test_an_unknown_field_and_nan_are_refused(tmp_path: Path, make_sidecar: MakeSidecar) -> None:
    facts = json.loads(make_sidecar().to_json())
    path = tmp_path / "s.json"
    path.write_text(json.dumps(facts | {"new": 1}))
    with pytest.raises(InputError, match="new"):
        read_sidecar(path)
    facts["mask"]["used_volume_ml"] = float("nan")
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="mask"):
        read_sidecar(path)


def test_the_run_is_recorded_in_utc_with_versions_and_command() -> None:
    run = run_record(device="cpu", threads=3, started=STARTED, command=["neuromend", "fill", "-i", "a b"])
    assert run.started == "2026-11-22T08:20:30.456+00:00"
    assert datetime.fromisoformat(run.ended).utcoffset() == timedelta(0)
    assert set(run.packages) == {"torch", "numpy", "scipy", "nibabel", "safetensors"}
    assert (run.threads, run.device, run.cuda) == (3, "cpu", None)
    assert run.command[-1] == "a b"
    ours = run_record(device="cpu", threads=3, started=datetime.now(UTC)).command
    assert [ours[0], len(ours)] == [Path(sys.argv[0]).name, len(sys.argv)]


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        ("/home/jane doe/scan.nii.gz", "scan.nii.gz"),
        ("../jane/scan.nii.gz", "scan.nii.gz"),
        ("~jane/out/", "out/"),
        ("--log=/home/jane/run.log", "--log=run.log"),
        ("-i/home/jane/scan.nii", "-iscan.nii"),
        (r"C:\Users\jane\scan.nii", "scan.nii"),
        ("--labels", "--labels"),
        ("1,3", "1,3"),
        ("-i", "-i"),
        ("--dilate-mm=2.5", "--dilate-mm=2.5"),
        ("a b.nii", "a b.nii"),
        ("..", ".."),
        ("/", "/"),
    ],
)
def test_the_command_is_recorded_without_folders(typed: str, recorded: str) -> None:
    run = run_record(device="cpu", threads=1, started=STARTED, command=["neuromend", typed])
    assert run.command == ["neuromend", recorded]


def test_recording_a_run_on_the_cpu_does_not_import_torch() -> None:
    code = (
        "import sys; from datetime import UTC, datetime; from neuromend.provenance import run_record; "
        "run_record(device='cpu', threads=1, started=datetime.now(UTC)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_findings_keep_their_order() -> None:
    findings = [Finding("RT-12", "warning", "b"), Finding("IN-04", "note", "a")]
    assert [(r.code, r.level, r.message) for r in finding_records(findings)] == [
        ("RT-12", "warning", "b"),
        ("IN-04", "note", "a"),
    ]


def _checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit in which neuromend seems to stand."""
    file = folder / "src" / "neuromend" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (folder / "pyproject.toml").write_text("")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "One"], check=True)
    monkeypatch.setattr(provenance, "__file__", str(file))
    return file


def test_the_commit_of_a_checkout_is_told_and_local_edits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _checkout(tmp_path, monkeypatch)
    commit = git_commit()
    assert commit is not None
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert version_string().endswith("+" + commit[:12])
    file.write_text("edited")
    assert git_commit() == commit + "-dirty"
    assert version_string().endswith(commit[:12] + "-dirty")


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "a" / "b" / "provenance.py"))
    assert git_commit() is None
    assert re.fullmatch(r"\d+\.\d+\.\d+", version_string())


def test_a_checkout_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _checkout(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert hash_file(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
