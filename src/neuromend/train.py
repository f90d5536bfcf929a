"""``neuromend train``: one loop for every method, on one device or many (Lightning Fabric).

A run is a folder. What decides its weights is written into it before the first step (config.toml, run.json) and is
compared when the same command goes on with it. Case n, its noise and the learning rate of step n are functions of the
settings and of n, so a run that was killed and resumed ends with the very weights of one that was not (on CPUs, with
a budget in steps).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor

from neuromend.corpus.cache import CaseCache
from neuromend.device import freed_memory_kept, set_threads
from neuromend.findings import Finding
from neuromend.interrupts import Stopped
from neuromend.trainer.beginning import begin, dev_cases, training_cases
from neuromend.trainer.checkpoints import BEST, GOOD, Checkpoints
from neuromend.trainer.config import RunConfig
from neuromend.trainer.devices import make_fabric
from neuromend.trainer.export import write_card
from neuromend.trainer.feeding import Feed, seed_of
from neuromend.trainer.guards import StopRequests, Watchdog, stop_if_hopeless
from neuromend.trainer.journal import Journal
from neuromend.trainer.locking import run_lock
from neuromend.trainer.previews import write_previews
from neuromend.trainer.scores import SHOWN, fill_dev, goodness, mean_scores
from neuromend.trainer.state import RunState, learning_rate
from neuromend.trainer.telling import data_line, run_line

Say = Callable[[str], None]
LOSS_MEMORY = 0.01
"""Weight of a new loss in the running mean."""


@dataclass(eq=False)
class Run:
    """What the functions of the loop share.

    Attributes:
        model: ``state.task`` as Fabric wraps it; its call is the loss.
        dev: the fixed dev cases.
        say: shows a line to a person; only the first process does.
        check_lock: raises if the folder is no longer this run's.
        identity: what may not change; part of every checkpoint.
        resumed_seconds, started: training time before this process, and the clock when it began to train.
    """

    config: RunConfig
    folder: Path
    fabric: Fabric
    state: RunState
    model: _FabricModule
    checkpoints: Checkpoints
    journal: Journal
    watchdog: Watchdog
    dev: Sequence[dict[str, Tensor]]
    say: Say
    check_lock: Callable[[], None]
    identity: dict[str, Any]
    resumed_seconds: float = 0.0
    started: float = 0.0
    sound_since_save: bool = True

    @property
    def elapsed(self) -> float:
        """Training time in seconds, over all processes that worked on this run one after another."""
        return self.resumed_seconds + time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run stands.

    Attributes:
        finished: False where ``--max-time`` ended it before its budget was used up.
        best: the highest score on dev that decides; None where none was taken.
    """

    run: Path
    step: int
    minutes: float
    finished: bool
    best: float | None


def train(
    config: RunConfig,
    data: Path,
    out: Path,
    *,
    init_from: Path | None = None,
    max_minutes: float | None = None,
    allow_config_change: bool = False,
    say: Say = print,
    show: Callable[[Sequence[Finding]], None] = lambda findings: None,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train, or go on training, until the budget is used up.

    Args:
        config: the settings.
        data: what ``neuromend prepare`` wrote.
        out: the run's folder; where a run has begun there, it goes on.
        init_from: a model folder whose weights a new run begins with, or the run of an autoencoder for latent3d.
        max_minutes: stop after so long, whatever the budget says; the same command goes on later.
        allow_config_change: go on although settings, data or code have changed; recorded in run.json.
        say, show: show a line, and what was noticed at the start, to a person.
        command: the command line, for the record.

    Raises:
        MissingInputError, InputError: the data (TR-07, TR-06, TR-33).
        CheckpointError: TR-05, another run than the checkpoint's; TR-03, no sound checkpoint; MO-*, ``init_from``.
        ModelFaultError: TR-01, losses or gradients are not finite; TR-02, the scale of fp16 losses collapsed.
        UsageError: TR-20, TR-21, TR-31, settings that mean nothing here.
        StorageError, OutputPermissionError: RT-02, RT-03, RT-07.
        TemporaryError: TR-24, another run is at work in the folder.
        Stopped: SIGINT or SIGTERM, after saving.
    """
    fabric = make_fabric(config)
    fabric.launch()
    set_threads(config.running.threads or None)
    if not fabric.is_global_zero:
        say = _silent
    cache = CaseCache.open(data)
    with run_lock(out, fabric) as check_lock:
        state, model, checkpoints, journal, identity, findings = begin(
            config, cache, out, fabric, init_from=init_from, allow_change=allow_config_change, command=command
        )
        if fabric.is_global_zero:
            show(findings)
            say(run_line(config, state, fabric, out))
            say(data_line(config, cache))
        feed = Feed(
            training_cases(config, cache, state.task),
            config.training,
            first_step=state.progress.step,
            rank=fabric.global_rank,
            world=fabric.world_size,
            workers=config.running.workers,
        )
        dev = dev_cases(config, cache, state.task)
        watchdog = Watchdog(config.running.watchdog_minutes, out / "stacks.txt")
        run = Run(
            config, out, fabric, state, model, checkpoints, journal, watchdog, dev, say, check_lock, identity,
            state.progress.seconds, time.monotonic(),
        )  # fmt: skip
        with freed_memory_kept():
            asked = loop(run, feed, math.inf if max_minutes is None else 60 * max_minutes)
    if asked:
        raise Stopped(asked)
    progress = state.progress
    finished = progress.share(config.training) >= 1
    best = progress.best if math.isfinite(progress.best) else None
    return TrainResult(out, progress.step, progress.seconds / 60, finished, best)


def loop(run: Run, feed: Feed, seconds: float) -> int:
    """Train until the budget is used up, for at most so many seconds; the number of the signal that came, or 0."""
    progress = run.state.progress
    deadline, first = progress.seconds + seconds, progress.step
    with run.journal, feed, run.watchdog, StopRequests() as requests:
        while progress.share(run.config.training) < 1:
            stop = training_step(run, feed, requests)
            run.watchdog.beat()
            if progress.step == first + 1:
                every = run.config.running.log_every
                run.say(
                    f"first step after {run.elapsed - run.resumed_seconds:.1f} s; a line every {every} steps"
                )
            keep_records(run)
            if stop or progress.seconds >= deadline:
                save(run)
                break
        else:
            if (
                progress.scored_at != progress.step
            ):  # the last step has not had its turn, here or before a restart
                score(run)
    return requests.asked


def training_step(run: Run, feed: Feed, requests: StopRequests) -> bool:
    """One optimiser step over ``accumulate`` batches; True where some process was asked to stop."""
    training, state, progress = run.config.training, run.state, run.state.progress
    loss = 0.0
    for part in range(training.accumulate):
        case, faults = feed.batch()
        for fault in faults:
            progress.left_out += 1
            run.journal.write({"step": progress.step, "left_out": fault})
        seed = seed_of(training.seed, feed.first_case(progress.step, part))
        torch.manual_seed(seed)  # for whatever draws without a generator of its own, such as dropout
        generator = torch.Generator(run.fabric.device).manual_seed(seed)
        with run.fabric.no_backward_sync(run.model, enabled=part + 1 < training.accumulate):
            value = run.model(run.fabric.to_device(case), progress.step, generator)
            run.fabric.backward(value / training.accumulate)
        loss += float(value.detach()) / training.accumulate
    norms = state.clip(training)
    loss, norm, asked, seconds = agree(run, loss, max(norms), float(requests.asked > 0), run.elapsed)
    rate = learning_rate(training, progress.step, progress.share(training))
    taken = state.step(rate, training, loss=loss, norm=norm)
    if taken:
        before = loss if progress.loss is None else progress.loss
        progress.loss = before + LOSS_MEMORY * (loss - before)
    else:
        run.sound_since_save = False
        run.journal.write({"step": progress.step, "not_finite": f"loss {loss}, gradient {norm}"})
        stop_if_hopeless(state, training, run.folder, loss=loss, norm=norm)
    progress.step += 1
    progress.seconds = seconds
    if progress.step % run.config.running.log_every == 0:
        mean = math.nan if progress.loss is None else progress.loss
        row = {"loss": loss, "mean_loss": mean, "gradient": norm, "learning_rate": rate}
        row |= {"minutes": seconds / 60, "skipped": progress.skipped, "left_out": progress.left_out}
        row |= {} if state.scaler is None else {"scale": state.scaler.get_scale()}
        run.journal.write({"step": progress.step, **row})
        run.say(
            f"step {progress.step}, {seconds / 60:.1f} min, loss {mean:.4f}, gradient {norm:.3g}"
            + (f", {progress.skipped} skipped" if progress.skipped else "")
        )
    return asked > 0


def agree(run: Run, *values: float) -> list[float]:
    """The means over all processes, in one exchange: they must agree on what happened and on whether to go on."""
    mine = torch.tensor(values, dtype=torch.float64)
    if run.fabric.world_size == 1:
        return list(values)
    shared = run.fabric.all_reduce(mine.to(run.fabric.device), reduce_op="mean")
    return [float(value) for value in shared]


def keep_records(run: Run) -> None:
    """Score and save, each when its turn has come."""
    step, running = run.state.progress.step, run.config.running
    if step % running.score_every == 0:
        score(run)
    elif step % running.save_every == 0 or (running.keep_every and step % running.keep_every == 0):
        save(run)
    if running.keep_every and step % running.keep_every == 0 and run.fabric.is_global_zero:
        run.checkpoints.keep(f"step-{step:08d}.pt")


def score(run: Run) -> None:
    """Fill the dev cases with the averaged weights; log, draw, save, and keep what was best."""
    progress, running = run.state.progress, run.config.running
    fills = fill_dev(run.state, run.dev, running.dev_steps, run.fabric, run.watchdog.beat)
    if fills:
        scores = mean_scores([fill.scores for fill in fills])
        rows = {f"dev/{name}": value for name, value in scores.items()}
        if fills[0].harmonic_scores:
            plain = mean_scores([fill.harmonic_scores for fill in fills])
            rows |= {f"dev_harmonic/{name}": value for name, value in plain.items()}
        progress.scores = rows
        run.journal.write({"step": progress.step, "minutes": progress.seconds / 60, **rows})
        run.say(f"step {progress.step}, dev: " + ", ".join(f"{name} {scores[name]:.4g}" for name in SHOWN))
        if running.previews and run.fabric.is_global_zero:
            write_previews(
                fills[: running.previews], run.folder / "previews" / f"step-{progress.step:08d}.png"
            )
    found = goodness(scores, running) if fills else -math.inf
    is_best = not fills or found > progress.best
    progress.best = max(progress.best, found)
    progress.scored_at = progress.step
    content = save(run)
    if is_best and run.fabric.is_global_zero:
        run.checkpoints.keep(BEST)
        write_card(run.folder, content)


def save(run: Run) -> dict[str, Any]:
    """Write the checkpoint and return it; where no step since the last one was skipped, keep it as the good one too.

    Raises:
        ModelFaultError: TR-01, a weight is not finite. TemporaryError: TR-24, the folder is another run's now.
    """
    run.state.progress.log_bytes = run.journal.log_bytes
    content = run.state.content()
    content |= {"identity": run.identity, "config": run.config.model_dump(mode="json")}
    if run.fabric.is_global_zero:
        run.check_lock()
        run.checkpoints.save(content)
        if run.sound_since_save:
            run.checkpoints.keep(GOOD)
    run.sound_since_save = True
    run.fabric.barrier()
    return content


def _silent(line: str) -> None:
    """The other processes of a run say nothing."""
