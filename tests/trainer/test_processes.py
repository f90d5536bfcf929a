"""Runs in processes of their own: two that share a batch, one that stands still (TR-15), exit statuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment

from neuromend.trainer.checkpoints import read_checkpoint
from neuromend.trainer.config import make_config
from neuromend.trainer.devices import make_fabric
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


def run_python(*commands: Sequence[str], **environment: str) -> None:
    """Run Python with these words, side by side; each has the environment of this process and its own number."""
    started = [
        subprocess.Popen(
            [sys.executable, *words],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **{k: v.format(number=n) for k, v in environment.items()}},
        )
        for n, words in enumerate(commands)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), "\n".join(said)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and the run of one process that accumulates two batches."""
    folder = tmp_path_factory.mktemp("alone")
    write_tiny_data(folder / "data")
    run_python([*training(folder, folder / "run"), "--set", "accumulate=2"])
    return folder


def training(alone: Path, out: Path) -> list[str]:
    return [*MODULE, "--data", str(alone / "data"), "--out", str(out)]


def assert_same_weights(alone: Path, out: Path) -> None:
    one, two = (read_checkpoint(run / "checkpoints" / "newest.pt") for run in (alone / "run", out))
    assert one["identity"]["processes"] == 1
    assert two["identity"]["processes"] == 2
    for part in ("task", "ema"):
        for name, weight in one[part].items():
            torch.testing.assert_close(two[part][name], weight, atol=TOLERANCE, rtol=0)
    assert two["progress"]["loss"] == pytest.approx(one["progress"]["loss"], rel=1e-4)
    rows = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3, 4, 4], "only the first process writes"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_reach_the_weights_of_one_with_twice_the_batch(
    strategy: str, alone: Path, tmp_path: Path
) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run_python([*launcher, *training(alone, tmp_path), "--set", f"strategy={strategy}"])
    assert_same_weights(alone, tmp_path)


@pytest.mark.slow
def test_two_nodes_under_torchrun_reach_the_weights_of_one_process(alone: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    launcher.append(f"--master-port={free_port()}")
    run_python(*([*launcher, f"--node-rank={node}", *training(alone, tmp_path)] for node in (0, 1)))
    assert_same_weights(alone, tmp_path)


SLURM = {
    "SLURM_JOB_ID": "123456", "SLURM_JOB_NAME": "unet3d", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "2", "SLURM_PROCID": "{number}", "SLURM_LOCALID": "0", "SLURM_NODEID": "{number}",
    "SLURM_NODELIST": "127.0.0.1",
}  # fmt: skip
"""What srun tells a task on the first and the second of two nodes."""


@pytest.mark.slow
def test_two_nodes_under_slurm_reach_the_weights_of_one_process(alone: Path, tmp_path: Path) -> None:
    words = training(alone, tmp_path)
    run_python(words, words, **SLURM, MASTER_PORT=free_port())
    assert_same_weights(alone, tmp_path)


def test_the_layout_of_a_slurm_job_is_taken_from_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value.format(number=1))
    strategy: Any = make_fabric(make_config("unet3d", preset="tiny", overrides=["device=cpu"])).strategy
    environment = strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert (environment.world_size(), environment.global_rank(), environment.node_rank()) == (2, 1, 1)
    assert (strategy.num_processes, strategy.num_nodes) == (1, 2)
    assert environment.resolve_root_node_address("gpu[07-08]") == "gpu07", "without asking scontrol"


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
