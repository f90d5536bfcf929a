"""Ctrl-C and SIGTERM: once is a clean stop, twice is at once (RT-08, RT-09)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import neuromend
from neuromend import cli, interrupts
from neuromend.interrupts import Stopped, clean_stop, stop_if_asked

SIGNALS = [(signal.SIGINT, 130, "RT-08"), (signal.SIGTERM, 143, "RT-09")]


def _signal_ourselves(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)  # the handler's exception comes long before


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # main() sets it for the process; here that is pytest's


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small scan and a lesion in it."""
    from neuromend.doctor import synthetic_head

    folder = tmp_path_factory.mktemp("pair")
    files = folder / "head_T1w.nii.gz", folder / "lesion.nii.gz"
    for image, file in zip(synthetic_head(), files, strict=True):
        small = np.asarray(image.dataobj)[::3, ::3, ::3]
        nib.save(nib.Nifti1Image(small, image.affine @ np.diag([3, 3, 3, 1])), file)
    return files


@pytest.mark.parametrize(("number", "status", "code"), SIGNALS)
def test_a_signal_ends_a_command_with_its_status_and_the_line_to_rerun(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int, status: int, code: str
) -> None:
    def fill(*arguments: object, **options: object) -> None:
        _signal_ourselves(number)

    monkeypatch.setitem(vars(neuromend), "fill", fill)
    assert cli.main(["fill", "-i", "a scan.nii", "-m", "m.nii", "-o", "f.nii", "-q"]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert "neuromend: stopping cleanly; once more stops at once" in err
    assert err.splitlines()[-3].startswith(f"[{code}] stopped by ")
    assert err.splitlines()[-1] == "  do:  run it again: neuromend fill -i 'a scan.nii' -m m.nii -o f.nii -q"


@pytest.mark.parametrize(("number", "status", "code"), SIGNALS)
@pytest.mark.parametrize("moment", ["neuromend.data.atomic._compare", "neuromend.saving.render_page"])
def test_a_signal_while_writing_leaves_nothing_behind(
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    moment: str,
    number: int,
    status: int,
    code: str,
) -> None:
    def interrupted(*arguments: object) -> None:
        assert any(
            path.name.startswith(".neuromend-") for path in tmp_path.iterdir()
        )  # in the midst of writing
        _signal_ourselves(number)

    monkeypatch.setattr(moment, interrupted)
    words = [
        "fill",
        "-i",
        str(pair[0]),
        "-m",
        str(pair[1]),
        "-o",
        str(tmp_path / "f.nii"),
        "--model",
        "ring-mean",
    ]
    assert cli.main(words) == status
    assert list(tmp_path.iterdir()) == []
    assert f"[{code}]" in capfd.readouterr().err


def test_a_stop_is_json_too(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(vars(neuromend), "fill", lambda *a, **o: os.kill(os.getpid(), signal.SIGINT))
    assert cli.main(["fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii", "--json"]) == 130
    assert '"code": "RT-08"' in capfd.readouterr().out


def test_no_handler_for_exceptions_swallows_a_stop() -> None:
    def careless() -> None:
        try:
            _signal_ourselves(signal.SIGINT)
        except Exception:
            pytest.fail("swallowed")

    with clean_stop(), pytest.raises(Stopped):
        careless()


def test_a_lost_stop_is_found_at_the_next_step() -> None:
    with clean_stop():
        stop_if_asked()
        with contextlib.suppress(Stopped):  # as Python does with exceptions in destructors
            _signal_ourselves(signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            stop_if_asked()
    assert stopped.value.number == signal.SIGTERM


def test_two_signals_of_one_sender_count_once() -> None:
    with clean_stop():
        for _ in range(3):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
            except Stopped:
                continue


def test_a_new_run_forgets_the_stop_of_an_old_one() -> None:
    with clean_stop(), pytest.raises(Stopped):
        _signal_ourselves(signal.SIGINT)
    with clean_stop():
        stop_if_asked()


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with clean_stop():
        assert signal.getsignal(signal.SIGTERM) is interrupts._handle
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with clean_stop():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_changes() -> None:
    entered: list[bool] = []

    def work() -> None:
        with clean_stop():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


def _start(code: str, tmp_path: Path) -> subprocess.Popen[str]:
    script = tmp_path / "stubborn.py"
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("number", "status", "code"), SIGNALS)
def test_the_second_signal_ends_the_process_at_once(
    tmp_path: Path, number: int, status: int, code: str
) -> None:
    stubborn = (
        "import sys, time, neuromend\n"
        "from neuromend.cli import main\n"
        "def fill(*arguments, **options):\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaning', flush=True)\n"
        "        time.sleep(60)\n"
        "neuromend.fill = fill\n"
        "sys.exit(main(['fill', '-i', 's.nii', '-m', 'm.nii', '-o', 'f.nii']))\n"
    )
    with _start(stubborn, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        time.sleep(2 * interrupts.REPEAT_SECONDS)
        process.send_signal(number)
        assert process.wait(timeout=30) == status


class TestAsError:
    @pytest.mark.parametrize(("number", "status", "code"), SIGNALS)
    def test_status_code_and_command(self, number: int, status: int, code: str) -> None:
        error = Stopped(number).as_error(["check", "-i", "it's.nii"])
        assert (error.exit_status, error.code) == (status, code)
        assert error.fix.endswith("neuromend check -i 'it'\"'\"'s.nii'")


def test_progress_finds_a_lost_stop() -> None:
    from neuromend.terminal import Talk

    talk = Talk(quiet=True)
    with clean_stop():
        with contextlib.suppress(Stopped):
            _signal_ourselves(signal.SIGINT)
        with pytest.raises(Stopped):
            talk.step("filling", 1, 2)
