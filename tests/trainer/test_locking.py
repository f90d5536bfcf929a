"""A run's folder belongs to one run at a time (TR-24)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from neuromend.data import locks
from neuromend.errors import TemporaryError
from neuromend.train import TrainResult, train
from neuromend.trainer.checkpoints import read_checkpoint
from neuromend.trainer.config import make_config
from neuromend.trainer.locking import LOCK
from neuromend.trainer.tasks import MethodTask

from .test_train import SETTINGS
from .tiny_data import write_tiny_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_tiny_data(folder)
    return folder


def quiet_run(data: Path, out: Path) -> TrainResult:
    config = make_config("unet3d", preset="tiny", overrides=(*SETTINGS, "steps=3"))
    return train(config, data, out, say=lambda line: None)


def write_lock(run: Path, **changes: object) -> Path:
    run.mkdir(exist_ok=True)
    (run / LOCK).write_text(json.dumps(locks._owner() | changes))
    return run / LOCK


def at_step(step: int, act: Any, patch: pytest.MonkeyPatch) -> None:
    """Do something in the middle of a run."""
    whole = MethodTask.forward

    def forward(self: MethodTask, case: Any, now: int, generator: Any) -> Tensor:
        if now == step:
            act()
        return whole(self, case, now, generator)

    patch.setattr(MethodTask, "forward", forward)


def test_a_second_process_is_told_who_trains_in_the_folder_and_the_first_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[subprocess.CompletedProcess[str]] = []
    words = [
        sys.executable, "-m", "neuromend", "train", "--method", "unet3d", "--preset", "tiny", "--data", str(data),
        "--out", str(tmp_path / "run"), *(word for setting in SETTINGS for word in ("--set", setting)),
    ]  # fmt: skip

    def second() -> None:
        said.append(subprocess.run(words, capture_output=True, text=True, timeout=120))

    at_step(1, second, monkeypatch)
    assert quiet_run(data, tmp_path / "run").finished
    assert said[0].returncode == 75
    assert "[TR-24]" in said[0].stderr
    assert str(tmp_path / "run") in said[0].stderr
    assert f"process {os.getpid()} on {socket.gethostname()} is training in this folder" in said[0].stderr
    assert "--out" in said[0].stderr
    assert not (tmp_path / "run" / LOCK).exists(), "the lock is given back"
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]


def test_the_lock_of_a_killed_run_is_no_obstacle(data: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_lock(tmp_path / "run", pid=gone.pid)
    assert quiet_run(data, tmp_path / "run").finished


def test_a_run_on_another_host_is_left_alone(data: Path, tmp_path: Path) -> None:
    write_lock(tmp_path / "run", host="node17 pid:[4026531836]", pid=4711)
    with pytest.raises(TemporaryError, match="process 4711 on node17 is training") as caught:
        quiet_run(data, tmp_path / "run")
    assert (caught.value.code, caught.value.exit_status) == ("TR-24", 75)
    assert caught.value.path == tmp_path / "run"
    assert "120 seconds" in caught.value.fix
    assert not (tmp_path / "run" / "config.toml").exists()


def test_a_run_that_lost_its_folder_saves_no_more(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended for minutes, and another host has gone on with it."""
    run = tmp_path / "run"
    at_step(2, lambda: write_lock(run, host="node17"), monkeypatch)
    with pytest.raises(TemporaryError, match="taken this folder over") as caught:
        quiet_run(data, run)
    assert caught.value.code == "TR-24"
    assert read_checkpoint(run / "checkpoints" / "newest.pt")["progress"]["step"] == 2
    assert (run / LOCK).exists(), "the other one's lock stays"
