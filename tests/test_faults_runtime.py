"""The run-time rows of the catalogue of faults (RT-01 to RT-22), met by a whole fill.

The parts are tested where they live: data/test_atomic.py (writing), test_painting.py (RT-11, RT-15), test_device.py
(RT-10, RT-12, RT-13), test_interrupts.py (RT-08, RT-09), test_saving.py (RT-05).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import neuromend
from neuromend import cli, filling, saving
from neuromend.errors import NeuromendError, OutputError, StorageError

from .filling_cases import AFFINE, ball, contents, head, image, save_pair


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes time and is tested elsewhere."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # main() sets it for the process; here that is pytest's
    monkeypatch.setattr(saving, "write_picture", lambda case, file: file.write(b"picture"))
    monkeypatch.setattr(saving, "render_page", lambda case: "report")
    monkeypatch.setattr("neuromend.provenance.git_commit", lambda: None)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return save_pair(tmp_path)


def refused(*arguments: Any, **options: Any) -> NeuromendError:
    """The error of a fill."""
    with pytest.raises(NeuromendError) as caught:
        neuromend.fill(*arguments, **{"model": "harmonic"} | options)
    return caught.value


class TestFolder:
    def test_a_missing_folder_is_made_and_named_in_full(
        self, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RT-01; the record holds no folder."""
        monkeypatch.chdir(tmp_path)
        result = neuromend.fill(*pair, "new/deep/", model="harmonic")
        [finding] = [finding for finding in result.findings if finding.code == "RT-01"]
        assert str(tmp_path / "new" / "deep") in finding.message
        assert str(tmp_path) not in result.outputs["record"].read_text()

    def test_a_file_in_the_place_of_the_folder_is_refused(
        self, pair: tuple[Path, Path], tmp_path: Path
    ) -> None:
        error = refused(*pair, pair[0] / "f.nii.gz")
        assert (error.code, error.exit_status) == ("RT-01", 73)

    def test_a_folder_without_permission_is_refused_before_the_model_is_loaded(
        self, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RT-02; injected, because root may write everywhere."""
        before = contents(tmp_path)
        real = os.open

        def denied(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & os.O_CREAT and Path(path).parent == tmp_path:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, flags, *arguments, **options)

        monkeypatch.setattr(os, "open", denied)
        monkeypatch.setattr(filling, "Painter", None)
        error = refused(*pair, tmp_path / "f.nii.gz")
        assert (error.code, error.exit_status) == ("RT-02", 77)
        assert "chmod u+w" in error.fix
        assert contents(tmp_path) == before

    def test_a_read_only_file_system_is_refused(self, pair: tuple[Path, Path]) -> None:
        if not Path("/proc/self").is_dir():
            pytest.skip("this system has no /proc to write into")
        error = refused(*pair, "/proc/f.nii.gz")
        assert error.exit_status in (73, 77)


class TestDiskFull:
    """RT-03."""

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 1 MiB."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
        if (
            shutil.which("mount") is None
            or subprocess.run(mount, capture_output=True, check=False).returncode
        ):
            pytest.skip("mounting is not permitted here; the limit on file sizes is tested instead")
        yield disk
        subprocess.run(["umount", str(disk)], check=True)

    def test_a_disk_that_is_too_small_is_refused_before_the_model_is_loaded(
        self, pair: tuple[Path, Path], small_disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filling, "Painter", None)
        error = refused(*pair, small_disk / "f.nii.gz")
        assert (error.code, error.exit_status) == ("RT-03", 74)
        assert "1 MiB are free" in error.what
        assert contents(small_disk) == {}

    def test_a_disk_that_fills_up_on_the_way_keeps_the_older_result(
        self, pair: tuple[Path, Path], small_disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("neuromend.data.outputs._refuse_little_space", lambda *_: None)
        neuromend.fill(*pair, small_disk / "f.nii.gz", model="harmonic")
        before = contents(small_disk)
        free = shutil.disk_usage(small_disk).free
        with (small_disk / "other").open("wb") as other:
            other.write(bytes(free - 40_000))
        error = refused(*pair, small_disk / "f.nii.gz", overwrite=True)
        assert isinstance(error, StorageError)
        assert (error.code, error.exit_status) == ("RT-03", 74)
        assert {k: v for k, v in contents(small_disk).items() if k != "other"} == before

    @pytest.mark.parametrize("limit", [0, 10_000])
    def test_the_limit_of_a_quota_leaves_nothing(
        self, pair: tuple[Path, Path], tmp_path: Path, limit: int
    ) -> None:
        before, old = contents(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
        assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN  # Python turns it into an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            error = refused(*pair, tmp_path / "f.nii.gz")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert (error.code, error.exit_status) == ("RT-03", 74)
        assert contents(tmp_path) == before


class TestSameFile:
    """RT-19: before anything is read, whatever is asked for."""

    def link(self, scan: Path, out: Path) -> None:
        out.symlink_to(scan)

    def hard_link(self, scan: Path, out: Path) -> None:
        os.link(scan, out)

    @pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"skip_existing": True}, {"dry_run": True}])
    @pytest.mark.parametrize("make", [link, hard_link])
    def test_a_link_to_an_input_is_refused(
        self,
        pair: tuple[Path, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        make: Callable[..., None],
        options: dict[str, bool],
    ) -> None:
        make(self, pair[0], tmp_path / "out.nii.gz")
        before = contents(tmp_path)
        monkeypatch.setattr(filling, "load_pair", None)
        error = refused(*pair, tmp_path / "out.nii.gz", **options)
        assert isinstance(error, OutputError)
        assert (error.code, error.exit_status) == ("RT-19", 73)
        assert contents(tmp_path) == before

    @pytest.mark.parametrize("which", [0, 1])
    def test_both_inputs_are_safe(self, pair: tuple[Path, Path], tmp_path: Path, which: int) -> None:
        before = contents(tmp_path)
        assert refused(*pair, pair[which], overwrite=True).code == "RT-19"
        assert contents(tmp_path) == before

    def test_a_mask_that_bears_the_name_of_another_output_is_safe(self, tmp_path: Path) -> None:
        scan, mask = save_pair(tmp_path)
        drawn = mask.rename(tmp_path / "f_mask.nii.gz")
        assert refused(scan, drawn, tmp_path / "f.nii.gz", overwrite=True).code == "RT-19"

    @pytest.mark.parametrize(("given", "out"), [("s.hdr", "s.img"), ("s.img", "s.hdr"), ("s.hdr", "s.hdr")])
    def test_neither_half_of_a_pair_is_written_to(self, tmp_path: Path, given: str, out: str) -> None:
        save_pair(tmp_path, "s.img", scan=nib.Nifti1Pair(head(), AFFINE))
        before = contents(tmp_path)
        error = refused(tmp_path / given, tmp_path / "lesion.nii.gz", tmp_path / out, overwrite=True)
        assert error.code == "RT-19"
        assert contents(tmp_path) == before

    def test_the_file_behind_an_image_in_memory_is_safe(
        self, pair: tuple[Path, Path], tmp_path: Path
    ) -> None:
        before = contents(tmp_path)
        assert refused(nib.load(pair[0]), nib.load(pair[1]), pair[0], overwrite=True).code == "RT-19"
        assert contents(tmp_path) == before


class TestExisting:
    def test_existing_output_is_refused_and_replaced_when_asked(
        self, pair: tuple[Path, Path], tmp_path: Path
    ) -> None:
        """RT-04, for every file of the result."""
        for name in ("f.nii.gz", "f_mask.nii.gz", "f.png", "f_report.html", "f.json"):
            folder = tmp_path / name.replace(".", "-")
            folder.mkdir()
            (folder / name).write_bytes(b"precious")
            error = refused(*pair, folder / "f.nii.gz")
            assert (error.code, error.exit_status) == ("RT-04", 73)
            assert name in str(error)
            assert contents(folder) == {name: b"precious"}
        neuromend.fill(*pair, folder / "f.nii.gz", model="harmonic", overwrite=True)
        assert b"precious" not in contents(folder).values()


KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
import neuromend
from neuromend import filling, saving

saving.write_picture = lambda case, file: file.write(b"picture")
saving.render_page = lambda case: "report"
neuromend.provenance.git_commit = lambda: None
scan, mask, old, out, seen = sys.argv[1:]

def killed_when(point):
    count = 0

    def counted(real):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in ("open", "write", "fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))

def save_and_be_killed(*job):
    for point in range(1, 200):
        shutil.rmtree(out)
        shutil.copytree(old, out)
        child = os.fork()
        if child == 0:
            killed_when(point)
            saving.save(*job)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        shutil.copytree(out, f"{seen}/{point}")
        if os.WIFEXITED(status):
            print(point, os.WEXITSTATUS(status), flush=True)
            os._exit(0)

filling.save = save_and_be_killed
neuromend.fill(scan, mask, f"{out}/f.nii.gz", model="harmonic", overwrite=True)
"""


def test_a_kill_at_any_moment_leaves_old_or_new_files_and_no_false_sidecar(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """RT-06, with an older result in the place."""
    neuromend.fill(*pair, tmp_path / "old" / "f.nii.gz", model="ring-mean")
    (tmp_path / "out").mkdir()
    folders = [str(tmp_path / name) for name in ("old", "out", "seen")]
    words = [sys.executable, "-c", KILLED_AT_EVERY_STEP, *map(str, pair), *folders]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last, status = map(int, done.stdout.split())
    assert status == 0
    assert last > 30
    old, new = contents(tmp_path / "old"), contents(tmp_path / "seen" / str(last))
    assert set(old) == set(new)
    whole = 0
    for point in range(1, last):
        left = contents(tmp_path / "seen" / str(point))
        there = {name: content for name, content in left.items() if not name.startswith(".neuromend-")}
        assert set(there) >= set(old) - {"f.json"}
        for name in set(there) - {"f.json"}:
            assert there[name] in (old[name], new[name]), (point, name)
        if "f.json" in there:
            whole += 1
            listed = json.loads(there["f.json"])["outputs"]
            assert {sha256(there[o["file"]]).hexdigest() == o["sha256"] for o in listed} == {True}, point
    assert 10 < whole < last - 1  # before the first file is replaced, and after the sidecar is


def test_neither_home_nor_a_writable_working_folder_is_needed(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """RT-22; users unknown to the system and other oddities are in test_loose_ends.py."""
    if not Path("/proc/self").is_dir():
        pytest.skip("this system has no /proc, a folder where nobody can write, to run in")
    words = [sys.executable, "-m", "neuromend", "fill", "-i", pair[0], "-m", pair[1]]
    done = subprocess.run(
        [*map(str, words), "-o", str(tmp_path / "f.nii.gz"), "--model", "harmonic", "--device", "cpu"],
        cwd="/proc",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    after = np.asarray(nib.load(tmp_path / "f.nii.gz").dataobj)
    assert np.array_equal(after[~ball()], head()[~ball()])


def test_faults_end_the_command_with_their_status_and_no_traceback(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nib.save(image(np.zeros(head().shape, np.bool_)), tmp_path / "empty.nii.gz")
    words = {
        73: ["-m", pair[1], "-o", pair[0], "--overwrite"],
        65: ["-m", tmp_path / "empty.nii.gz", "-o", tmp_path / "f.nii.gz"],
        66: ["-m", tmp_path / "no.nii.gz", "-o", tmp_path / "f.nii.gz"],
        78: ["-m", pair[1], "-o", tmp_path / "f.nii.gz", "--model", "nosuch"],
        2: ["-m", pair[1], "-o", tmp_path / "f.nii.gz", "--samples", "-3"],
    }
    before = contents(tmp_path)
    for status, some in words.items():
        command = ["fill", "-i", pair[0], "--model", "harmonic", *some]
        assert cli.main(list(map(str, command))) == status
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert "  do:  " in error
        assert contents(tmp_path) == before
