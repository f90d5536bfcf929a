"""Which case comes when: a function of the seed and the number of the case alone, so that a resumed run sees the same.

Step n of a run with G cases a step (all devices and accumulation together) takes the cases n G to (n + 1) G - 1.
Part a of a step on device r of R takes, of these, the batch that begins at (a R + r) batch: two devices see what one
sees that accumulates two batches.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuromend.errors import InputError, UsageError
from neuromend.trainer.config import Training

TRIES = 5
"""Cases tried in the place of one that cannot be read."""

TOLERATED_SHARE, TOLERATED_COUNT = 0.01, 3
"""So many cases may be left out of a run, as a share (TR-06) and, in its first minutes, as a count."""


ENDLESS = 2**62
"""Length of the one epoch that a run is: case n is made when it is asked for, and never comes again."""

ELSEWHERE = 2**40
"""How far from an unreadable case the one is that takes its place; no run gets so far."""


class Cases(Protocol):
    """What ``corpus.drawing.TrainingCases`` offers: item n is a function of the seed and n."""

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...


class Stream(Dataset[tuple[int, dict[str, Tensor], str]]):
    """Case n of the whole run -> (n, tensors, what was wrong with the cases left out before it, if any)."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases

    def __getitem__(self, number: int) -> tuple[int, dict[str, Tensor], str]:
        faults: list[str] = []
        for attempt in range(TRIES):
            try:
                case = self.cases[number + attempt * ELSEWHERE]
            except Exception as error:  # whatever one bad file raises must not end a run of days
                faults.append(f"case {number}: {type(error).__name__}: {error}".splitlines()[0])
            else:
                return number, case, "; ".join(faults)
        # Raised by the caller: an exception does not travel from a worker whole.
        return number, {}, "; ".join(faults)


class Feed:
    """Batches of this process, in order, and the count of cases that had to be left out.

    Args:
        cases: the training cases.
        training: batch and accumulation.
        first_step: where the run stands.
        rank, world: this process among all.
        workers: processes that make cases ahead; 0 makes them when they are asked for.
    """

    def __init__(
        self, cases: Cases, training: Training, *, first_step: int, rank: int, world: int, workers: int
    ) -> None:
        self._training, self._rank, self._world = training, rank, world
        self.seen, self.faults = 0, 0
        loader: DataLoader[Any] = DataLoader(
            Stream(cases),
            batch_size=None,
            sampler=self._numbers(first_step),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_begin_worker,
            pin_memory=torch.cuda.is_available(),
        )
        before = multiprocessing.active_children()
        self._coming: Iterator[Any] = iter(loader)
        self._helpers = [child for child in multiprocessing.active_children() if child not in before]

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The workers end when their iterator is dropped. One that has not (a busy machine) would be waited for at
        # the end of the program for ever, because it ignores SIGTERM.
        self._coming = iter(())
        for helper in self._helpers:
            helper.kill()
            helper.join()

    def first_case(self, step: int, part: int) -> int:
        """The number of the first case of a part of a step on this device."""
        training = self._training
        whole = self._world * training.batch
        return (step * training.accumulate + part) * whole + self._rank * training.batch

    def batch(self) -> tuple[dict[str, Tensor], list[str]]:
        """The next batch, tensors (B, 1, X, Y, Z), and a sentence for each fault.

        Raises:
            InputError: TR-06, more cases are bad than a run should overlook.
            UsageError: TR-20, cases of different shapes cannot form a batch.
        """
        drawn, sentences = [], []
        for _ in range(self._training.batch):
            _, case, fault = next(self._coming)
            self.seen += 1
            if fault:
                self.faults += 1
                sentences.append(fault)
            if not case or self.faults > max(TOLERATED_COUNT, TOLERATED_SHARE * self.seen):
                raise _too_many(self.faults, self.seen, fault)
            drawn.append(case)
        shapes = {tuple(case["healthy"].shape) for case in drawn}
        if len(shapes) > 1:
            raise UsageError(
                "TR-20",
                f"training.batch is {self._training.batch}, but the cases have shapes {sorted(shapes)}",
                why="only volumes of one shape form a batch",
                fix=f"--set batch=1 --set accumulate={self._training.batch * self._training.accumulate}",
            )
        return {name: torch.stack([case[name] for case in drawn]) for name in drawn[0]}, sentences

    def _numbers(self, step: int) -> Iterator[int]:
        """The numbers of the cases of this process from a step on, without end."""
        while True:
            for part in range(self._training.accumulate):
                first = self.first_case(step, part)
                yield from range(first, first + self._training.batch)
            step += 1


def seed_of(seed: int, number: int) -> int:
    """The seed of all that is random about case ``number``."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _begin_worker(worker: int) -> None:
    """Ctrl-C and SIGTERM reach the whole group of processes; workers end when the loop says so, after saving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


def _too_many(faults: int, seen: int, last: str) -> InputError:
    return InputError(
        "TR-06",
        f"{faults} of {seen} cases could not be read; the last: {last}",
        why="a run that leaves out more than 1 % of its data does not train on what it says",
        fix="run the same `neuromend prepare` command again: it checks every file and names the bad ones",
    )
