"""A file is either complete or absent, whatever fails and whenever."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuromend.data.atomic import OutputSet, hidden_name, remove_stale, write_atomically
from neuromend.data.outputs import check_output
from neuromend.errors import NeuromendError, OutputError, OutputPermissionError, StorageError

OLD, NEW = b"old and good" * 1000, os.urandom(9 << 20)  # three writes of 4 MiB at most
CALLS = ("open", "write", "fsync", "close", "replace")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Fault:
    """Counts the calls that reach the disk and fails at one of them (0: at none)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[str], None]) -> None:
        self.count = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name), at, act))

    def _wrap(self, name: str, call: Any, at: int, act: Callable[[str], None]) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count != at:
                return call(*args, **kwargs)
            if name == "close":
                call(*args, **kwargs)
            if name == "write":  # half of it reaches the disk
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
            return act(name)

        return wrapped


def fail(number: int) -> Callable[[str], None]:
    def act(name: str) -> None:
        raise OSError(number, os.strerror(number))

    return act


def save_set(folder: Path) -> None:
    """An image, a mask and the sidecar, as a run saves them."""
    with OutputSet() as outputs:
        outputs.add(folder / "image.nii.gz", NEW)
        outputs.add(folder / "mask.nii.gz", b"mask" * 999)
        outputs.add(folder / "image.json", b'{"sha256": "..."}')
        outputs.publish()


def crash_points() -> int:
    """How many calls reach the disk while a result is saved."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, 0, fail(errno.EIO))
        save_set(Path(folder))
        return fault.count


POINTS = crash_points()


def test_a_file_is_written_with_its_hash(tmp_path: Path) -> None:
    assert write_atomically(tmp_path / "a.bin", NEW) == hashlib.sha256(NEW).hexdigest()
    assert (tmp_path / "a.bin").read_bytes() == NEW
    assert names(tmp_path) == ["a.bin"]


def test_every_crash_point_is_known() -> None:
    """Three files: open, writes (3, 1, 1), fsync, close each; then rename, open, fsync, close of the folder each."""
    assert POINTS == 3 * 3 + 5 + 3 * 4


@pytest.mark.parametrize("at", range(1, POINTS + 1))
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_point_leaves_whole_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, number: int
) -> None:
    """RT-03, RT-06, C2: the older file or the new one, no hidden file, a typed error."""
    for name in ("image.nii.gz", "mask.nii.gz"):
        (tmp_path / name).write_bytes(OLD)
    with monkeypatch.context() as patch:
        Fault(patch, at, fail(number))
        with pytest.raises(StorageError) as caught:
            save_set(tmp_path)
    assert (caught.value.code, caught.value.exit_status) == (
        "RT-03" if number == errno.ENOSPC else "RT-07",
        74,
    )
    assert set(names(tmp_path)) <= {"image.nii.gz", "mask.nii.gz", "image.json"}
    assert (tmp_path / "image.nii.gz").read_bytes() in (OLD, NEW)
    assert (tmp_path / "mask.nii.gz").read_bytes() in (OLD, b"mask" * 999)
    if (tmp_path / "image.json").exists():
        assert (tmp_path / "image.nii.gz").read_bytes() == NEW
        assert (tmp_path / "mask.nii.gz").read_bytes() == b"mask" * 999
    if at <= 14:
        assert (tmp_path / "image.nii.gz").read_bytes() == OLD


@pytest.mark.parametrize("at", range(1, POINTS + 1))
def test_a_kill_at_any_point_leaves_whole_files_and_hidden_ones(tmp_path: Path, at: int) -> None:
    """RT-06: kill -9 in another process; a later run can save again."""
    (tmp_path / "image.nii.gz").write_bytes(OLD)
    child = os.fork()
    if child == 0:
        Fault(pytest.MonkeyPatch(), at, lambda _: os.kill(os.getpid(), signal.SIGKILL))
        save_set(tmp_path)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert (tmp_path / "image.nii.gz").read_bytes() in (OLD, NEW)
    for path in tmp_path.iterdir():
        assert path.name in ("image.nii.gz", "mask.nii.gz", "image.json") or path.name.startswith(
            ".neuromend-"
        )
    if (tmp_path / "image.json").exists():
        assert (tmp_path / "image.nii.gz").read_bytes() == NEW
    save_set(tmp_path)
    assert (tmp_path / "image.nii.gz").read_bytes() == NEW


def test_an_interruption_removes_what_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-08."""

    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    Fault(monkeypatch, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_set(tmp_path)
    assert names(tmp_path) == []


def test_staged_files_that_are_not_published_vanish(tmp_path: Path) -> None:
    with OutputSet() as outputs:
        outputs.add(tmp_path / "a", NEW)
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []


def test_files_get_their_names_in_the_order_they_were_added(tmp_path: Path) -> None:
    with OutputSet() as outputs:
        for name in ("b", "a", "sidecar.json"):
            outputs.add(tmp_path / name, name.encode())
        assert [path.name for path in outputs.publish()] == ["b", "a", "sidecar.json"]


def test_what_verification_raises_stops_the_writing(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(OLD)

    def refuse(path: Path) -> None:
        assert path.read_bytes() == NEW
        assert path.parent == tmp_path
        raise StorageError("RT-06", "no", why="because", fix="nothing")

    with pytest.raises(StorageError, match="RT-06"):
        write_atomically(target, NEW, verify=refuse)
    assert target.read_bytes() == OLD
    assert names(tmp_path) == ["a.bin"]


def test_a_disk_that_returns_other_bytes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-06."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(len(data))))
    with pytest.raises(StorageError, match="read back") as caught:
        write_atomically(tmp_path / "a", NEW)
    assert (caught.value.code, caught.value.exit_status) == ("RT-06", 74)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind", "code", "status", "words"),
    [
        (errno.ENOSPC, StorageError, "RT-03", 74, "df -h"),
        (errno.EDQUOT, StorageError, "RT-03", 74, "quota"),
        (errno.EFBIG, StorageError, "RT-03", 74, "full"),
        (errno.EIO, StorageError, "RT-07", 74, "Input/output error"),
        (errno.EACCES, OutputPermissionError, "RT-02", 77, "chmod u+w"),
        (errno.EPERM, OutputPermissionError, "RT-02", 77, "permission"),
        (errno.EROFS, OutputPermissionError, "RT-02", 77, "Read-only"),
        (errno.ENOENT, OutputError, "RT-01", 73, "mkdir -p"),
        (errno.ENAMETOOLONG, OutputError, "IN-38", 73, "at most 255"),
    ],
)
def test_failures_of_the_disk_have_codes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type,
    code: str,
    status: int,
    words: str,
) -> None:
    with monkeypatch.context() as patch:
        Fault(patch, 1, fail(number))
        with pytest.raises(kind) as caught:
            write_atomically(tmp_path / "a", NEW)
    error = caught.value
    assert isinstance(error, NeuromendError)
    assert (error.code, error.exit_status) == (code, status)
    assert str(tmp_path / "a") in str(error)
    assert words in str(error)


@pytest.mark.parametrize("limit", [0, 1, 4096, 1 << 20, len(NEW) - 1])
def test_a_file_that_does_not_fit_leaves_the_older_one(tmp_path: Path, limit: int) -> None:
    """RT-03: the system itself cuts the writing short, here by the largest file size it allows."""
    (tmp_path / "a").write_bytes(OLD)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write_atomically(tmp_path / "a", NEW)
        except StorageError as error:
            os._exit(error.exit_status if error.code == "RT-03" else 1)
        os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 74
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == OLD


def test_folders_that_cannot_be_flushed_are_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RT-07: some network file systems refuse it."""
    Fault(monkeypatch, 7, fail(errno.EINVAL))  # open, write, fsync, close, replace, open, fsync
    write_atomically(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_modes_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """RT-21."""
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_the_target_of_a_link_is_replaced_and_the_link_kept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to("elsewhere/real")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "real").read_bytes() == b"new"


def test_a_name_of_255_bytes_works(tmp_path: Path) -> None:
    """IN-38: the hidden name does not contain it."""
    write_atomically(tmp_path / ("n" * 255), b"x")
    assert names(tmp_path) == ["n" * 255]


def test_only_old_hidden_files_of_ours_are_removed(tmp_path: Path) -> None:
    """RT-06."""
    stale, fresh, other = tmp_path / hidden_name(), tmp_path / hidden_name(), tmp_path / ".other.tmp"
    for path, age in ((stale, 90_000), (fresh, 60), (other, 90_000)):
        path.write_bytes(b"")
        os.utime(path, (time.time() - age,) * 2)
    assert remove_stale(tmp_path) == 1
    assert names(tmp_path) == sorted([fresh.name, ".other.tmp"])


# check_output


def refused(target: Path, *inputs: Path, overwrite: bool = True, needed_bytes: int = 0) -> NeuromendError:
    before = {path: path.read_bytes() for path in inputs}
    with pytest.raises(NeuromendError) as caught:
        check_output(target, inputs, overwrite=overwrite, needed_bytes=needed_bytes)
    assert {path: path.read_bytes() for path in inputs} == before
    return caught.value


def test_a_missing_folder_is_created_and_named(tmp_path: Path) -> None:
    """RT-01."""
    [finding] = check_output(tmp_path / "a" / "b" / "out.nii", [], overwrite=False, needed_bytes=9)
    assert (finding.code, finding.level) == ("RT-01", "note")
    assert str(tmp_path / "a" / "b") in finding.message
    assert names(tmp_path / "a" / "b") == []


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    """RT-01."""
    (tmp_path / "a").write_bytes(b"")
    error = refused(tmp_path / "a" / "out.nii")
    assert (error.code, error.exit_status) == ("RT-01", 73)


def test_nothing_is_left_by_the_checks(tmp_path: Path) -> None:
    assert check_output(tmp_path / "out.nii", [], overwrite=False, needed_bytes=1) == ()
    assert check_output(tmp_path, [tmp_path / "in.nii"], overwrite=False, needed_bytes=1) == ()
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """RT-02: found by a probe, so it holds for root and for network shares."""
    Fault(monkeypatch, 1, fail(number))
    error = refused(tmp_path / "out.nii")
    assert (error.code, error.exit_status) == ("RT-02", 77)


def test_too_little_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-03: twice the estimate must be free."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=199 << 20))
    error = refused(tmp_path / "out.nii", needed_bytes=100 << 20)
    assert (error.code, error.exit_status) == ("RT-03", 74)
    assert "199 MiB" in str(error)
    assert "200 MiB" in str(error)
    check_output(tmp_path / "out.nii", [], overwrite=False, needed_bytes=99 << 20)


def test_an_existing_output_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    """RT-04."""
    (tmp_path / "out.nii").write_bytes(OLD)
    error = refused(tmp_path / "out.nii", overwrite=False)
    assert (error.code, error.exit_status) == ("RT-04", 73)
    assert "--overwrite" in str(error)
    assert check_output(tmp_path / "out.nii", [], overwrite=True, needed_bytes=1) == ()
    assert (tmp_path / "out.nii").read_bytes() == OLD


def test_a_pipe_or_device_is_never_replaced(tmp_path: Path) -> None:
    """RT-04."""
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/null")):
        error = refused(target)
        assert (error.code, error.exit_status) == ("RT-04", 73)


def same(folder: Path, source: Path) -> Path:
    return source


def dotted(folder: Path, source: Path) -> Path:
    (folder / "sub").mkdir()
    return folder / "sub" / ".." / source.name


def symlink(folder: Path, source: Path) -> Path:
    (folder / "link.nii").symlink_to(source.name)
    return folder / "link.nii"


def chain(folder: Path, source: Path) -> Path:
    (folder / "second.nii").symlink_to(symlink(folder, source))
    return folder / "second.nii"


def folder_link(folder: Path, source: Path) -> Path:
    (folder / "way").symlink_to(folder)
    return folder / "way" / source.name


def hard_link(folder: Path, source: Path) -> Path:
    os.link(source, folder / "hard.nii")
    return folder / "hard.nii"


def other_case(folder: Path, source: Path) -> Path:
    return folder / "SCAN\u0045\u0301.nii"


def other_accent(folder: Path, source: Path) -> Path:
    return folder / "scane\u0301.nii"


@pytest.mark.parametrize(
    "make",
    [same, dotted, symlink, chain, folder_link, hard_link, other_case, other_accent],
    ids=lambda f: f.__name__,
)
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, make: Callable[[Path, Path], Path]) -> None:
    """RT-19, A4: eight ways."""
    source = tmp_path / "scan\u00e9.nii"
    source.write_bytes(OLD)
    mask = tmp_path / "mask.nii"
    mask.write_bytes(b"mask")
    error = refused(make(tmp_path, source), mask, source)
    assert (error.code, error.exit_status) == ("RT-19", 73)
    assert source.read_bytes() == OLD


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    """RT-19."""
    (tmp_path / "loop").symlink_to("loop")
    error = refused(tmp_path / "loop")
    assert (error.code, error.exit_status) == ("RT-19", 73)
    with pytest.raises(OutputError, match="RT-19"):
        write_atomically(tmp_path / "loop", b"")


@pytest.mark.parametrize(("name", "words"), [("n" * 256, "at most 255"), ("nul\0", "cannot name a file")])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str, words: str) -> None:
    """IN-38."""
    error = refused(tmp_path / name)
    assert (error.code, error.exit_status) == ("IN-38", 73)
    assert words in str(error)


def test_stale_hidden_files_are_reported(tmp_path: Path) -> None:
    """RT-06."""
    stale = tmp_path / hidden_name()
    stale.write_bytes(b"half")
    os.utime(stale, (0, 0))
    [finding] = check_output(tmp_path / "out.nii", [], overwrite=False, needed_bytes=1)
    assert (finding.code, finding.level) == ("RT-06", "note")
    assert names(tmp_path) == []
