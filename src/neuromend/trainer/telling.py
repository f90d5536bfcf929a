"""What a person is told while a run starts: what is trained, on what, for how long, and where to look."""

from __future__ import annotations

from pathlib import Path

from lightning_fabric import Fabric

from neuromend.corpus.cache import CaseCache
from neuromend.trainer.config import RunConfig
from neuromend.trainer.journal import LOG
from neuromend.trainer.state import RunState


def data_line(config: RunConfig, cache: CaseCache) -> str:
    """The scans, and what else is about to be read."""
    train, dev = cache.rows("train"), cache.rows("dev")
    persons = [len({row.subject for row in rows}) for rows in (train, dev)]
    folders = [Path(word.split(":")[0]).as_posix() for word in config.shapes]
    return (
        f"volumes: {len(train)} of {persons[0]} subjects to train on, {len(dev)} of {persons[1]} for dev scores"
        + (f"; now reading the lesion shapes in {' and '.join(folders)}" if folders else "")
    )


def run_line(config: RunConfig, state: RunState, fabric: Fabric, out: Path) -> str:
    """The network, where and how it computes, the budget, and where its curves are."""
    training = config.training
    weights = sum(parameter.numel() for parameter in state.task.parameters())
    cases = training.batch * training.accumulate * fabric.world_size
    budget = f"{training.minutes:g} minutes" if training.steps is None else f"{training.steps:,} steps"
    what = config.method if config.stage == "method" else f"the {config.stage} of {config.method}"
    processes = f"{fabric.world_size} x " if fabric.world_size > 1 else ""
    return (
        f"{what}, preset {config.preset}: {weights:,} parameters, {training.precision} on {processes}"
        f"{fabric.device}; {budget} of {cases} {'case' if cases == 1 else 'cases'} a step; log: {out / LOG}"
    )
