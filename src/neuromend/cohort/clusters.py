"""Where the cases are filled: on this machine, on a running Dask cluster, or in jobs of a batch system.

Workers fill one case at a time. Dask's own limits on memory are switched off but one: a process that grows beyond
its share is ended, and its case done again elsewhere. Pausing and spilling would only stall a worker, because
what fills its memory is no data of Dask's.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster

from neuromend.cohort.cases import Settings
from neuromend.device import memory_bytes, usable_cpus
from neuromend.errors import InputError, MissingInputError, TemporaryError, UsageError
from neuromend.forecast import memory_needed
from neuromend.models import resolve_model

BatchSystem = Literal["slurm", "pbs", "lsf", "sge"]

IDLE_BYTES = 600_000_000
"""Memory of a worker that fills nothing: a process with torch and Dask."""

HEAD = (192, 240, 192)
"""A whole head at 1 mm with the air around it."""

PRELOAD = "neuromend.cohort.worker"

CONNECT_SECONDS = 30

#: Keys of the TOML file that are ours and not dask-jobqueue's.
_OURS = ("jobs",)

_QUIET: dict[str, Any] = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.dashboard.tasks.task-stream-length": 1000,
}


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the work is spread.

    Attributes:
        workers: processes (jobs, on a batch system); None: as many as fit this machine (a GPU each, if it has
            some), or the number that the TOML file says.
        scheduler: address of a running Dask scheduler; None: workers are started here.
        cluster: the batch system that is to start the workers.
        cluster_file: TOML file with the options of its jobs.
        attempts: how many workers a case may kill before it is given up.
        dashboard: address of the dashboard of our own scheduler; port 0 is any free one.
    """

    workers: int | None = None
    scheduler: str | None = None
    cluster: BatchSystem | None = None
    cluster_file: Path | None = None
    attempts: int = 3
    dashboard: str = "127.0.0.1:0"

    def __post_init__(self) -> None:
        fix = "neuromend batch --help"
        if self.scheduler is not None and self.cluster is not None:
            what, why = "--scheduler and --cluster contradict each other", "one cluster does the work"
            raise UsageError("CO-03", what, why=why, fix=fix)
        if self.scheduler is not None and self.workers is not None:
            what, why = "--workers does nothing with --scheduler", "a running cluster has its workers"
            raise UsageError("CO-03", what, why=why, fix=fix)
        if (self.cluster is None) != (self.cluster_file is None):
            what, why = (
                "--cluster and --cluster-file need each other",
                "the file holds the options of the jobs",
            )
            raise UsageError("CO-03", what, why=why, fix="--cluster slurm --cluster-file slurm.toml")
        if (self.workers is not None and self.workers < 1) or self.attempts < 1:
            what, why = "--workers and --attempts take 1 or more", "nothing could be done with less"
            raise UsageError("CO-03", what, why=why, fix=fix)


@dataclass(frozen=True, slots=True)
class Workforce:
    """A cluster at work.

    Attributes:
        client: of Dask.
        settings: with the device and the threads that its workers are to use.
        dashboard: address of the dashboard; empty if it has none.
        story: one sentence about what was started.
    """

    client: Client
    settings: Settings
    dashboard: str
    story: str


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """Workers for this machine: how many, threads of each, memory limit of each (0: none), names of the GPUs."""

    workers: int
    threads: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()


def case_bytes(model: str) -> int:
    """Memory that a worker needs to fill a whole head at 1 mm with this model.

    Raises:
        NeuromendError: there is no such model, or it is faulty.
    """
    return IDLE_BYTES + memory_needed(resolve_model(model), HEAD)


def plan_local(
    wanted: int | None,
    threads: int | None,
    *,
    each: int,
    cpus: int,
    free_bytes: int | None,
    gpus: tuple[str, ...] = (),
) -> LocalPlan:
    """Size the workers: one a GPU; without GPUs one a core, or fewer where the memory, ``each`` bytes, is for fewer."""
    room = cpus if free_bytes is None else max(1, free_bytes // each)
    workers = wanted or len(gpus) or max(1, min(cpus // (threads or 1), room))
    share = 0 if free_bytes is None else max(each, free_bytes // workers)
    return LocalPlan(workers, threads or max(1, cpus // workers), share, gpus)


@contextmanager
def open_workforce(options: EngineOptions, settings: Settings) -> Iterator[Workforce]:
    """Start the workers, or connect to a cluster that runs; all of it ends with the block.

    Raises:
        TemporaryError: CO-04, there is no scheduler at this address, or its workers lack neuromend.
        InputError, MissingInputError: CO-03, IN-38, the TOML file is wrong.
        UsageError: CO-03, options that the batch system does not know.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told as outcomes of cases
    with dask.config.set({**_QUIET, "distributed.scheduler.allowed-failures": options.attempts - 1}):
        if options.scheduler is not None:
            with _connect(options.scheduler) as client:
                _require_neuromend(client)
                yield Workforce(client, settings, _dashboard_of(client), f"cluster at {options.scheduler}")
        elif options.cluster is not None and options.cluster_file is not None:
            jobs, keywords = read_cluster_file(options.cluster_file, options.cluster)
            with batch_cluster(options.cluster, keywords, options) as cluster, Client(cluster) as client:
                cluster.scale(jobs=options.workers or jobs)
                threads = settings.threads or max(1, keywords["cores"] // keywords.get("processes", 1))
                story = f"{options.workers or jobs} jobs of {options.cluster.upper()}, {threads} threads each"
                yield Workforce(client, replace(settings, threads=threads), cluster.dashboard_link, story)
        else:
            with _local(options, settings) as workforce:
                yield workforce


def read_cluster_file(path: Path, system: BatchSystem) -> tuple[int, dict[str, Any]]:
    """Number of jobs and the keywords for dask-jobqueue, from the table of a TOML file that bears the system's name.

    Raises:
        MissingInputError: IN-38, no such file.
        InputError: CO-03, no TOML, no such table, or it lacks cores, memory or walltime.
    """
    fix = "docs/how-to/slurm.md shows a file"
    why = "it tells what to ask the batch system for"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"the cluster's file cannot be read ({error.strerror})"
        raise MissingInputError("IN-38", what, why=why, fix=fix, path=path) from error
    except ValueError as error:
        raise InputError("CO-03", f"this is no TOML ({error})", why=why, fix=fix, path=path) from error
    table = content.get(system)
    if not isinstance(table, dict):
        raise InputError("CO-03", f"there is no table [{system}]", why=why, fix=fix, path=path)
    keywords = {key: value for key, value in table.items() if key not in _OURS}
    missing = [key for key in ("cores", "memory", "walltime") if key not in keywords]
    if missing:
        raise InputError("CO-03", f"[{system}] has no {missing[0]}", why=why, fix=fix, path=path)
    jobs = table.get("jobs", 1)
    whole = {"jobs": jobs, "cores": keywords["cores"], "processes": keywords.get("processes", 1)}
    for key, value in whole.items():
        if not isinstance(value, int) or value < 1:
            what = f"[{system}] {key} is {value!r}, expected a whole number of 1 or more"
            raise InputError("CO-03", what, why=why, fix=fix, path=path)
    return jobs, keywords


def batch_cluster(system: BatchSystem, keywords: Mapping[str, Any], options: EngineOptions) -> Any:
    """A cluster of dask-jobqueue without jobs so far; ``cluster.job_script()`` tells what they will be.

    Raises:
        UsageError: CO-03, keywords that it does not take.
    """
    import dask_jobqueue

    kind = getattr(dask_jobqueue, f"{system.upper()}Cluster")
    chosen = {"processes": 1, **keywords}
    # One case at a time: its threads are torch's.
    chosen["worker_extra_args"] = [
        *chosen.get("worker_extra_args", []), "--nthreads", "1", "--preload", PRELOAD,
    ]  # fmt: skip
    memory = [f"export DASK_DISTRIBUTED__WORKER__MEMORY__{key}=False" for key in ("TARGET", "SPILL", "PAUSE")]
    chosen["job_script_prologue"] = [*chosen.get("job_script_prologue", []), *memory]
    chosen["scheduler_options"] = {
        "dashboard_address": options.dashboard,
        **chosen.get("scheduler_options", {}),
    }
    try:
        return kind(**chosen)
    except (TypeError, ValueError) as error:
        raise UsageError(
            "CO-03",
            f"dask-jobqueue refuses the options of [{system}]: {error}",
            why="no job could be submitted",
            fix=f"its options: https://jobqueue.dask.org (class {kind.__name__})",
            path=options.cluster_file,
        ) from error


@contextmanager
def _local(options: EngineOptions, settings: Settings) -> Iterator[Workforce]:
    memory = memory_bytes(torch.device("cpu"))
    gpus = visible_gpus(settings.device)
    plan = plan_local(
        options.workers, settings.threads, each=case_bytes(settings.model), cpus=usable_cpus(), gpus=gpus,
        free_bytes=None if memory is None else memory[0],
    )  # fmt: skip
    specs = {name: {"cls": Nanny, "options": _nanny_options(plan, name)} for name in range(plan.workers)}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "dashboard_address": options.dashboard, "dashboard": True},
    }
    with (
        SpecCluster(workers=specs, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        device = "cuda" if plan.gpus else settings.device
        each = f"{plan.threads} thread{'s' if plan.threads > 1 else ''} each"
        limit = f", {plan.memory_bytes / 2**30:.1f} GiB of memory each at most" if plan.memory_bytes else ""
        story = f"{plan.workers} worker{'s' if plan.workers > 1 else ''}, {each}{limit}"
        yield Workforce(
            client, replace(settings, threads=plan.threads, device=device), cluster.dashboard_link, story
        )


def visible_gpus(device: str) -> tuple[str, ...]:
    """The GPUs that workers are to share out, as CUDA_VISIBLE_DEVICES names them; none for another device."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(torch.cuda.device_count())]
    return tuple(names if named is None else [name.strip() for name in named.split(",")][: len(names)])


def _nanny_options(plan: LocalPlan, number: int) -> dict[str, Any]:
    environment = {"OMP_NUM_THREADS": str(plan.threads)}
    if plan.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = plan.gpus[number % len(plan.gpus)]
    return {
        "nthreads": 1,
        "memory_limit": plan.memory_bytes,
        "env": environment,
        "preload": PRELOAD,
        "silence_logs": logging.CRITICAL,
        "host": "127.0.0.1",
    }


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise TemporaryError(
            "CO-04",
            f"no Dask scheduler answers at {address} ({error})",
            why="the work cannot be handed out",
            fix="check the address that `dask scheduler` printed, such as tcp://node01:8786",
        ) from error


def _dashboard_of(client: Client) -> str:
    """Its address; empty where the scheduler has none."""
    try:
        link: str | None = client.dashboard_link
    except KeyError:
        return ""
    return link or ""


def _require_neuromend(client: Client) -> None:
    """Every worker that is there must have neuromend; those of other environments would fail each case."""
    found = client.run(_has_neuromend, on_error="return")
    lacking = [address for address, answer in found.items() if answer is not True]
    if lacking:
        raise TemporaryError(
            "CO-04",
            f"neuromend[cohort] cannot be imported by {len(lacking)} of {len(found)} workers: {lacking[0]}",
            why="they could fill nothing",
            fix="start the workers in an environment with neuromend: pip install 'neuromend[cohort]'",
        )


def _has_neuromend() -> bool:
    from importlib.util import find_spec

    return find_spec("neuromend") is not None
