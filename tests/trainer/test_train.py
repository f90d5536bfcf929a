"""Whole runs on tiny data: exact resume (TR-04), stops in time (TR-14), refusals (TR-05), what a run leaves, TR-01."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuromend.corpus.drawing import TrainingCases
from neuromend.errors import CheckpointError, InputError, ModelFaultError
from neuromend.interrupts import Stopped
from neuromend.train import TrainResult, train
from neuromend.trainer.checkpoints import read_checkpoint
from neuromend.trainer.config import RunConfig, make_config
from neuromend.trainer.tasks import MethodTask

from .tiny_data import write_tiny_data

STEPS = 6
SETTINGS = (
    f"steps={STEPS}", "crop=[16, 16, 16]", "log_every=1", "save_every=2", "score_every=100", "dev_cases=1", "workers=0",
    "watchdog_minutes=0", "trackers=[]", "warm_up_steps=2", "volume_ml=[0.3, 2.0]", "previews=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_tiny_data(folder)
    return folder


def config_of(*more: str, method: str = "unet3d", **options: Any) -> RunConfig:
    return make_config(method, preset="tiny", overrides=(*SETTINGS, *more), **options)


def quiet_run(data: Path, out: Path, *more: str, **options: Any) -> TrainResult:
    return train(config_of(*more), data, out, say=lambda line: None, **options)


def flat(content: Any, name: str = "") -> dict[str, Any]:
    if isinstance(content, dict):
        return {k: v for key, value in content.items() for k, v in flat(value, f"{name}.{key}").items()}
    if isinstance(content, list | tuple):
        return {k: v for key, value in enumerate(content) for k, v in flat(value, f"{name}.{key}").items()}
    return {name: content}


def lines_of(run: Path) -> list[str]:
    return (run / "log.jsonl").read_text().splitlines()


def assert_equal_runs(one: Path, other: Path) -> None:
    """Weights, average, optimiser, position and log are equal, bit for bit; only the clock differs."""
    a, b = (flat(read_checkpoint(run / "checkpoints" / "newest.pt")) for run in (one, other))
    timing = {".progress.seconds", ".progress.log_bytes"}
    assert a.keys() == b.keys()
    for name in (n for n in a if n not in timing and not n.startswith(".config.running")):
        if isinstance(a[name], Tensor):
            assert torch.equal(a[name], b[name]), name
        else:
            assert a[name] == b[name], name
    logs = [[{**json.loads(line), "minutes": 0} for line in lines_of(run)] for run in (one, other)]
    assert logs[0] == logs[1]


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    result = quiet_run(data, out)
    assert result.finished
    assert result.step == STEPS
    return out


def test_a_run_leaves_what_is_needed_to_judge_and_to_repeat_it(straight: Path) -> None:
    settings = make_config("unet3d", preset="tiny", file=straight / "config.toml")
    assert settings == config_of()
    facts = json.loads((straight / "run.json").read_text())
    assert facts["data"]["scans"] == {"train": 3, "dev": 1}
    assert {"neuromend", "commit", "packages", "processes", "changes"} <= facts["starts"][0].keys()
    rows = [json.loads(line) for line in lines_of(straight)]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 6]
    assert {"dev/psnr_01", "dev/ssim", "dev/mse", "dev/mae", "dev_harmonic/mse"} <= rows[-1].keys()
    assert (straight / "previews" / "step-00000006.png").stat().st_size > 100
    names = {path.name for path in (straight / "checkpoints").iterdir()}
    assert names == {"newest.pt", "previous.pt", "good.pt", "best.pt"}
    assert "harmonic fill" in (straight / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("die_at", [1, 4, 5])
def test_a_run_that_crashed_and_went_on_is_bit_equal(
    die_at: int, straight: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MethodTask.forward

    def dies(self: MethodTask, case: Any, step: int, generator: Any) -> Tensor:
        if step == die_at:
            raise MemoryError
        return whole(self, case, step, generator)

    with monkeypatch.context() as patch:
        patch.setattr(MethodTask, "forward", dies)
        with pytest.raises(MemoryError):
            quiet_run(data, tmp_path)
    quiet_run(data, tmp_path)
    assert_equal_runs(straight, tmp_path)


def train_in_child(data: Path, out: Path, settings: tuple[str, ...]) -> None:
    quiet_run(data, out, *settings)


def test_a_run_that_is_killed_again_and_again_is_bit_equal(
    straight: Path, data: Path, tmp_path: Path
) -> None:
    newest = tmp_path / "checkpoints" / "newest.pt"
    fork = multiprocessing.get_context("fork")
    for pause in (0.0, 0.03, 0.1):
        before = newest.stat().st_mtime_ns if newest.exists() else 0
        child = fork.Process(target=train_in_child, args=(data, tmp_path, ()))
        child.start()
        while child.is_alive() and (newest.stat().st_mtime_ns if newest.exists() else 0) == before:
            time.sleep(0.002)
        time.sleep(pause)
        child.kill()
        child.join()
    quiet_run(data, tmp_path)
    assert_equal_runs(straight, tmp_path)


def test_a_kill_between_the_two_renames_of_a_save_loses_two_steps_and_no_bit(
    straight: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, renames = os.replace, []

    def dies(source: Any, target: Any) -> None:
        if Path(target).name == "newest.pt":
            renames.append(target)
            if len(renames) == 2:
                raise KeyboardInterrupt
        whole(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            quiet_run(data, tmp_path)
    assert not (tmp_path / "checkpoints" / "newest.pt").exists()
    quiet_run(data, tmp_path)
    assert_equal_runs(straight, tmp_path)


def test_workers_see_what_one_process_sees(straight: Path, data: Path, tmp_path: Path) -> None:
    """TR-16: the order of the data is a function of the seed alone."""
    quiet_run(data, tmp_path, "workers=2")
    assert_equal_runs(straight, tmp_path)


def test_a_damaged_checkpoint_is_passed_over_and_named(straight: Path, data: Path, tmp_path: Path) -> None:
    quiet_run(data, tmp_path, max_minutes=0)
    quiet_run(data, tmp_path, max_minutes=0)
    newest = tmp_path / "checkpoints" / "newest.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    told: list[Any] = []
    quiet_run(data, tmp_path, show=told.extend)
    assert [finding.code for finding in told] == ["TR-03", "TR-03", "TR-04"]
    assert "newest.pt is damaged" in told[0].message
    assert "previous.pt is sound" in told[1].message
    assert_equal_runs(straight, tmp_path)


def test_a_run_without_a_sound_checkpoint_is_not_begun_again(data: Path, tmp_path: Path) -> None:
    quiet_run(data, tmp_path, max_minutes=0)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="none of newest") as caught:
        quiet_run(data, tmp_path)
    assert (caught.value.code, caught.value.exit_status) == ("TR-03", 78)


def test_another_config_is_refused_with_every_difference(data: Path, tmp_path: Path) -> None:
    quiet_run(data, tmp_path, max_minutes=0)
    with pytest.raises(CheckpointError) as caught:
        quiet_run(data, tmp_path, "peak_lr=0.5", "seed=3", "log_every=5")
    assert (caught.value.code, caught.value.exit_status) == ("TR-05", 78)
    assert "config.training.peak_lr was 0.005, now 0.5" in caught.value.what
    assert "config.training.seed was 0, now 3" in caught.value.what
    assert "log_every" not in caught.value.what
    assert "--allow-config-change" in caught.value.fix


def test_other_data_and_code_are_refused_and_an_allowed_change_is_recorded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    write_tiny_data(other, scans=2)
    quiet_run(data, out, max_minutes=0)
    monkeypatch.setattr("neuromend.trainer.identity.code_digests", lambda method: {"train": "f" * 64})
    with pytest.raises(CheckpointError, match="data was") as caught:
        quiet_run(other, out)
    assert "code.train was" in caught.value.what
    told: list[Any] = []
    quiet_run(other, out, allow_config_change=True, show=told.extend)
    assert {finding.code for finding in told} == {"TR-04", "TR-05"}
    changes = json.loads((out / "run.json").read_text())["starts"][1]["changes"]
    assert {"code.train", "data"} <= {change.split()[0] for change in changes}


class Spoilt:
    """A task's loss that is NaN at some steps."""

    def __init__(self, steps: set[int]) -> None:
        self.steps, self.whole = steps, MethodTask.forward

    def __get__(self, task: Any, kind: Any) -> Any:
        def forward(case: Any, step: int, generator: Any) -> Tensor:
            loss = self.whole(task, case, step, generator)
            return loss * float("nan") if step in self.steps else loss

        return forward


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MethodTask, "forward", Spoilt({2}))
    result = quiet_run(data, tmp_path)
    content = read_checkpoint(tmp_path / "checkpoints" / "newest.pt")
    assert result.finished
    assert content["progress"]["skipped"] == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in content["task"].values())
    assert any("not_finite" in line for line in lines_of(tmp_path))


def test_many_such_steps_in_a_row_end_the_run_and_leave_the_good_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MethodTask, "forward", Spoilt(set(range(3, 100))))
    with pytest.raises(ModelFaultError) as caught:
        quiet_run(data, tmp_path, "steps=40")
    assert (caught.value.code, caught.value.exit_status) == ("TR-01", 70)
    assert "10 steps in a row" in caught.value.what
    assert "peak_lr" in caught.value.fix
    good = read_checkpoint(tmp_path / "checkpoints" / "good.pt")
    assert good["progress"]["step"] == 2
    assert good["progress"]["skipped"] == 0


def test_weights_that_are_not_finite_are_never_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_run(data, tmp_path, max_minutes=0)
    before = read_checkpoint(tmp_path / "checkpoints" / "newest.pt")["progress"]["step"]

    def spoil(self: Any, training: Any) -> None:
        next(iter(self.task.parameters())).data.fill_(float("inf"))

    monkeypatch.setattr("neuromend.trainer.state.RunState.average", spoil)
    with pytest.raises(ModelFaultError, match="is not finite at step"):
        quiet_run(data, tmp_path, "score_every=2")
    assert read_checkpoint(tmp_path / "checkpoints" / "newest.pt")["progress"]["step"] == before


def test_an_unreadable_case_is_replaced_and_logged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TrainingCases.__getitem__

    def broken(self: TrainingCases, index: int) -> Any:
        if not self.plain and index == 3:
            raise OSError("the disk is tired")
        return whole(self, index)

    monkeypatch.setattr(TrainingCases, "__getitem__", broken)
    assert quiet_run(data, tmp_path).finished
    assert "the disk is tired" in (tmp_path / "log.jsonl").read_text()


def test_many_unreadable_cases_end_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: TrainingCases, index: int) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(TrainingCases, "__getitem__", broken)
    with pytest.raises(InputError, match="the disk is gone") as caught:
        quiet_run(data, tmp_path, "dev_cases=0")
    assert (caught.value.code, caught.value.exit_status) == ("TR-06", 65)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(
    number: int, straight: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MethodTask.forward

    def signalled(self: MethodTask, case: Any, step: int, generator: Any) -> Tensor:
        if step == 2:
            os.kill(os.getpid(), number)
        return whole(self, case, step, generator)

    with monkeypatch.context() as patch:
        patch.setattr(MethodTask, "forward", signalled)
        with pytest.raises(Stopped) as caught:
            quiet_run(data, tmp_path)
    assert caught.value.number == number
    assert caught.value.as_error(["train"]).exit_status == 128 + number
    assert read_checkpoint(tmp_path / "checkpoints" / "newest.pt")["progress"]["step"] == 3
    quiet_run(data, tmp_path)
    assert_equal_runs(straight, tmp_path)


def test_a_finished_run_is_left_as_it_is(straight: Path, data: Path) -> None:
    before = (straight / "checkpoints" / "newest.pt").read_bytes()
    assert quiet_run(data, straight).finished
    assert (straight / "checkpoints" / "newest.pt").read_bytes() == before
