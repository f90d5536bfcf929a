"""Where the cases are filled: on this machine, on a running Dask cluster, or in jobs of a batch system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BatchSystem = Literal["slurm", "pbs", "lsf", "sge"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the work is spread.

    Attributes:
        workers: processes (jobs, on a batch system); None: as many as fit this machine.
        scheduler: address of a running Dask scheduler; None: workers are started here.
        cluster: the batch system that is to start the workers.
        cluster_file: TOML file with the options of its jobs.
        attempts: how many workers a case may kill before it is given up.
        dashboard: address of the dashboard, such as ":8787"; ":0" takes any free port.
    """

    workers: int | None = None
    scheduler: str | None = None
    cluster: BatchSystem | None = None
    cluster_file: Path | None = None
    attempts: int = 3
    dashboard: str = ":0"
