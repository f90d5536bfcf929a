"""How workers are sized, and what is asked of batch systems; nothing is started here."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuromend.cohort import clusters
from neuromend.cohort.clusters import (
    EngineOptions,
    LocalPlan,
    batch_cluster,
    case_bytes,
    plan_local,
    read_cluster_file,
)
from neuromend.errors import InputError, MissingInputError, UsageError
from neuromend.models import DEFAULT_MODEL

from ..filling_cases import save_network

SLURM = """
[slurm]
jobs = 5
cores = 8
memory = "24GB"
walltime = "12:00:00"
queue = "gpu"
account = "neuro"
job_extra_directives = ["--gres=gpu:1"]
job_script_prologue = ["module load cuda"]
"""


EACH = 3_000_000_000
"""Bytes of a case."""


def test_workers_are_sized_to_the_machine() -> None:
    def plan(wanted: int | None, threads: int | None, cpus: int, free: int | None) -> LocalPlan:
        return plan_local(wanted, threads, each=EACH, cpus=cpus, free_bytes=free)

    assert plan(None, None, 8, 100 * EACH) == LocalPlan(8, 1, EACH * 100 // 8)
    assert plan(None, None, 8, 3 * EACH) == LocalPlan(3, 2, EACH)
    assert plan(None, 4, 8, 100 * EACH) == LocalPlan(2, 4, EACH * 50)
    assert plan(None, None, 2, EACH // 2) == LocalPlan(1, 2, EACH)
    assert plan(3, None, 2, None) == LocalPlan(3, 1, 0)


def test_a_worker_gets_the_memory_that_its_model_needs(tmp_path: Path) -> None:
    larger = save_network(tmp_path / "model")
    assert 0.6e9 < case_bytes("harmonic") < case_bytes(str(larger)) < case_bytes(DEFAULT_MODEL) < 4e9


def test_every_gpu_gets_a_worker_that_sees_no_other() -> None:
    plan = plan_local(None, None, each=EACH, cpus=16, free_bytes=100 * EACH, gpus=("0", "3"))
    assert (plan.workers, plan.threads) == (2, 8)
    seen = [clusters._nanny_options(plan, number)["env"]["CUDA_VISIBLE_DEVICES"] for number in (0, 1, 2)]
    assert seen == ["0", "3", "0"]
    alone = clusters._nanny_options(replace(plan, gpus=()), 0)
    assert "CUDA_VISIBLE_DEVICES" not in alone["env"]
    assert (alone["nthreads"], alone["env"]["OMP_NUM_THREADS"]) == (1, "8")


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert clusters.visible_gpus("auto") == ("0", "1")
    assert clusters.visible_gpus("cuda:1") == clusters.visible_gpus("cpu") == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-8f")
    assert clusters.visible_gpus("cuda") == ("2", "GPU-8f")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scheduler": "tcp://a:1", "cluster": "slurm", "cluster_file": Path("x")},
        {"scheduler": "tcp://a:1", "workers": 2},
        {"cluster": "slurm"},
        {"cluster_file": Path("x")},
        {"workers": 0},
        {"attempts": 0},
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="CO-03") as caught:
        EngineOptions(**wrong)
    assert caught.value.exit_status == 2


def test_the_job_script_asks_for_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "slurm.toml"
    path.write_text(SLURM)
    jobs, keywords = read_cluster_file(path, "slurm")
    assert jobs == 5
    with batch_cluster("slurm", keywords, EngineOptions(cluster="slurm", cluster_file=path)) as cluster:
        lines = cluster.job_script().splitlines()
    for line in ("-p gpu", "-A neuro", "--cpus-per-task=8", "-t 12:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}" in lines
    assert "module load cuda" in lines
    assert "export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False" in lines
    words = next(line for line in lines if "dask_worker" in line).split()
    assert words[-4:] == ["--nthreads", "1", "--preload", "neuromend.cohort.worker"], "one case at a time"
    assert "--nanny" in words


@pytest.mark.parametrize(("system", "sign"), [("pbs", "#PBS -l"), ("lsf", "#BSUB -W"), ("sge", "#$ -l h_rt")])
def test_other_batch_systems_are_asked_in_their_own_words(tmp_path: Path, system: Any, sign: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(SLURM.split("queue")[0].replace("slurm", system).replace("12:00:00", "12:00"))
    _, keywords = read_cluster_file(path, system)
    if system == "lsf":
        keywords["lsf_units"] = "mb"  # otherwise the system itself would be asked
    with batch_cluster(system, keywords, EngineOptions(cluster=system, cluster_file=path)) as cluster:
        assert sign in cluster.job_script()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[slurm", "no TOML"),
        ("[pbs]\n", "no table [slurm]"),
        ("slurm = 3\n", "no table [slurm]"),
        (SLURM.replace("walltime", "time"), "no walltime"),
        (SLURM.replace("jobs = 5", "jobs = 0"), "jobs is 0"),
        (SLURM.replace("cores = 8", 'cores = "8"'), "cores is '8'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "slurm.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="CO-03") as caught:
        read_cluster_file(path, "slurm")
    assert (caught.value.path, caught.value.exit_status) == (path, 65)
    assert named in caught.value.what


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="IN-38"):
        read_cluster_file(tmp_path / "no.toml", "slurm")


@pytest.mark.filterwarnings("ignore:unclosed cluster", "ignore:Exception ignored in")
def test_options_that_the_batch_system_does_not_know_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slurm.toml"
    path.write_text(SLURM + "colour = 3\n")
    _, keywords = read_cluster_file(path, "slurm")
    with pytest.raises(UsageError, match="colour") as caught:
        batch_cluster("slurm", keywords, EngineOptions(cluster="slurm", cluster_file=path))
    assert caught.value.code == "CO-03"
    del caught
    gc.collect()  # what dask-jobqueue left half-made complains when it goes
