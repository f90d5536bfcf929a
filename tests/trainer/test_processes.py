"""Runs in processes of their own: two that share a batch, one that stands still (TR-15), exit statuses."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from neuromend.trainer.checkpoints import read_checkpoint
from neuromend.trainer.config import make_config
from neuromend.trainer.feeding import Feed
from neuromend.trainer.guards import Watchdog

from .tiny_data import write_tiny_data

TOLERANCE = 2e-5
"""Largest difference of a weight after four steps: sums of gradients are rounded in another order."""

SETTINGS = (
    "steps=4", "crop=[16, 16, 16]", "dev_cases=2", "workers=0", "trackers=[]", "volume_ml=[0.3, 2.0]", "threads=1",
    "save_every=2", "score_every=100", "log_every=1", "optimiser=adam", "peak_lr=1e-3", "device=cpu",
)  # fmt: skip


MODULE = [
    "-m", "neuromend", "train", "--method", "unet3d", "--preset", "tiny", "--quiet",
    *(word for setting in SETTINGS for word in ("--set", setting)),
]  # fmt: skip


def run_python(*words: str) -> None:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and the run of one process that accumulates two batches."""
    folder = tmp_path_factory.mktemp("alone")
    write_tiny_data(folder / "data")
    run_python(*MODULE, "--data", str(folder / "data"), "--out", str(folder / "run"), "--set", "accumulate=2")
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_reach_the_weights_of_one_with_twice_the_batch(
    strategy: str, alone: Path, tmp_path: Path
) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run_python(
        *launcher,
        *MODULE,
        "--data",
        str(alone / "data"),
        "--out",
        str(tmp_path),
        "--set",
        f"strategy={strategy}",
    )
    one, two = (read_checkpoint(run / "checkpoints" / "newest.pt") for run in (alone / "run", tmp_path))
    assert one["identity"]["processes"] == 1
    assert two["identity"]["processes"] == 2
    for part in ("task", "ema"):
        for name, weight in one[part].items():
            torch.testing.assert_close(two[part][name], weight, atol=TOLERANCE, rtol=0)
    assert two["progress"]["loss"] == pytest.approx(one["progress"]["loss"], rel=1e-4)


def test_devices_together_see_the_cases_that_one_sees_by_accumulating() -> None:
    one = make_config("unet3d", preset="tiny", overrides=["accumulate=4", "batch=2"]).training
    two = make_config("unet3d", preset="tiny", overrides=["accumulate=2", "batch=2"]).training

    def seen(rank: int, world: int) -> list[int]:
        training = one if world == 1 else two
        feed = Feed(Numbered(), training, first_step=3, rank=rank, world=world, workers=0)
        return [int(n) for _ in range(training.accumulate) for n in feed.batch()[0]["healthy"].flatten()]

    assert seen(0, 1) == list(range(24, 32))
    assert sorted(seen(0, 2) + seen(1, 2)) == seen(0, 1)


class Numbered:
    """Cases that are their number."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"healthy": torch.full((1,), float(index))}


def stand_still(report: Path) -> None:
    with Watchdog(0.005, report):
        time.sleep(60)


def keep_going(report: Path) -> None:
    with Watchdog(0.01, report) as watchdog:
        for _ in range(6):
            time.sleep(0.2)
            watchdog.beat()


def test_a_run_that_stands_still_ends_with_75_and_leaves_the_stacks(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    still = fork.Process(target=stand_still, args=(tmp_path / "stacks.txt",))
    going = fork.Process(target=keep_going, args=(tmp_path / "none.txt",))
    still.start()
    going.start()
    still.join(30)
    going.join(30)
    assert still.exitcode == 75
    assert "stand_still" in (tmp_path / "stacks.txt").read_text()
    assert going.exitcode == 0
    assert not (tmp_path / "none.txt").exists()
