"""The lock of a case: held once, given back, and taken over from the dead only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuromend.cohort.state import CaseBusyError, case_lock, lock_path
from neuromend.data import locks
from neuromend.errors import OutputPermissionError


def write_lock(filled: Path, **changes: object) -> Path:
    path = lock_path(filled)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(locks._owner() | changes))
    return path


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    filled = tmp_path / "A" / "A_inpainted.nii.gz"
    with case_lock(filled):
        assert lock_path(filled).is_file()
        with pytest.raises(CaseBusyError, match=f"process {os.getpid()} on"), case_lock(filled):
            pass
        assert lock_path(filled).is_file()
    assert list(tmp_path.iterdir()) == [], "the folder of a case without results is removed"


def test_a_folder_with_results_is_left_alone(tmp_path: Path) -> None:
    with case_lock(tmp_path / "A" / "a.nii"):
        (tmp_path / "A" / "a.nii").touch()
    assert [path.name for path in (tmp_path / "A").iterdir()] == ["a.nii"]


def test_the_lock_of_a_process_that_is_no_more_is_taken_over_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = write_lock(tmp_path / "a.nii", pid=gone.pid)
    with case_lock(tmp_path / "a.nii"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_another_process_with_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    write_lock(tmp_path / "a.nii", began=12345.0)
    with case_lock(tmp_path / "a.nii"):
        pass


def test_the_lock_of_another_host_is_kept_while_it_is_renewed(tmp_path: Path) -> None:
    path = write_lock(tmp_path / "a.nii", host="elsewhere", pid=1)
    with pytest.raises(CaseBusyError, match="process 1 on elsewhere"), case_lock(tmp_path / "a.nii"):
        pass
    old = time.time() - locks.STALE_SECONDS - 60
    os.utime(path, (old, old))
    with case_lock(tmp_path / "a.nii"):
        pass


def test_a_lock_cut_off_while_it_was_written_grows_old_too(tmp_path: Path) -> None:
    path = lock_path(tmp_path / "a.nii")
    path.write_text('{"host": ')
    with pytest.raises(CaseBusyError, match="an unknown process"), case_lock(tmp_path / "a.nii"):
        pass
    old = time.time() - locks.STALE_SECONDS - 60
    os.utime(path, (old, old))
    with case_lock(tmp_path / "a.nii"):
        pass


def test_a_holder_renews_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.02)
    with case_lock(tmp_path / "a.nii"):
        path = lock_path(tmp_path / "a.nii")
        os.utime(path, (1000, 1000))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2000 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 2000


def test_who_lost_the_lock_does_not_remove_that_of_another(tmp_path: Path) -> None:
    with case_lock(tmp_path / "a.nii"):
        path = write_lock(tmp_path / "a.nii", host="elsewhere")
    assert path.is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputPermissionError, match="RT-02"), case_lock(tmp_path / "a.nii"):
        pass
