"""The script of docs/how-to/train.md, run by bash with stand-ins for the commands of SLURM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuromend.trainer.checkpoints import read_checkpoint

from .test_train import SETTINGS
from .tiny_data import write_tiny_data

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "train.md"

STAND_INS = {
    # srun runs its command as one task and ends as that does.
    "srun": f"""echo $$ > task
[ "$1 $2" = "neuromend train" ] && shift 2
exec "{sys.executable}" -m neuromend train "$@" $MORE
""",
    "scancel": """echo "scancel $*" >> said
[ "$1" = --signal=TERM ] && kill -TERM $(cat task)
""",
    "scontrol": """echo "scontrol $*" >> said
""",
}


def script() -> str:
    (found,) = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder with data, the script, and the stand-ins."""
    write_tiny_data(tmp_path / "prepared")
    (tmp_path / "train.sbatch").write_text(script().replace("--preset paper", "--preset tiny"))
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    return tmp_path


def submit(job: Path, *settings: str) -> subprocess.Popen[str]:
    more = " ".join(f"--set {word.replace(' ', '')}" for word in (*SETTINGS, *settings))
    return subprocess.Popen(
        ["bash", "train.sbatch"],
        cwd=job,
        text=True,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "PATH": f"{job / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "MORE": more,
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "interactive",  # one task of its own: Fabric is not to look for others
        },
    )


def test_the_script_asks_for_the_signal_and_the_queue() -> None:
    options = [line for line in script().splitlines() if line.startswith("#SBATCH")]
    words = " ".join(options).split()
    assert {"--signal=B:TERM@120", "--requeue", "--open-mode=append", "--ntasks-per-node=4"} <= set(words)
    assert len(script().splitlines()) <= 15
    subprocess.run(["bash", "-n"], input=script(), text=True, check=True)


def stop_after_a_save(job: Path) -> str:
    """Submit, wait for a checkpoint, signal the script alone as ``B:TERM`` does; what was said on stderr."""
    newest = job / "runs" / "unet3d" / "checkpoints" / "newest.pt"
    before = newest.stat().st_mtime_ns if newest.exists() else 0
    running = submit(job, "steps=100000", "save_every=1")
    deadline = time.monotonic() + 240
    while (newest.stat().st_mtime_ns if newest.exists() else 0) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    errors = running.communicate(timeout=240)[1]
    assert running.returncode == 143, errors
    return errors


@pytest.mark.slow
def test_before_its_limit_the_job_saves_is_queued_again_and_goes_on(job: Path) -> None:
    assert "[RT-09]" in stop_after_a_save(job)
    said = (job / "said").read_text().splitlines()
    assert said == ["scancel --signal=TERM 4711", "scontrol requeue 4711"]
    step = read_checkpoint(job / "runs" / "unet3d" / "checkpoints" / "newest.pt")["progress"]["step"]
    assert not (job / "runs" / "unet3d" / ".neuromend-lock").exists()
    assert f"The run goes on from step {step}." in stop_after_a_save(job)


def test_a_finished_job_is_not_queued_again(job: Path) -> None:
    done = submit(job, "steps=1", "dev_cases=0")
    assert done.communicate(timeout=240)[1].count("done: step 1") == 1
    assert done.returncode == 0
    assert not (job / "said").exists()
