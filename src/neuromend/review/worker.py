"""The process that fills: started fresh (spawn), kept warm, and killed to cancel, which frees all its memory.

Orders and answers are plain tuples through a pipe. The server process never imports torch and stays quick.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from neuromend.errors import NeuromendError, TemporaryError
from neuromend.findings import Finding

OnStep = Callable[[str, int, int], None]
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """One fill: the arguments of ``neuromend.fill`` that the page chooses."""

    image: Path
    mask: Path
    out: Path
    model: str
    samples: int
    steps: int | None
    seed: int
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of it: the files by role, the findings, and the settings that were really used."""

    outputs: dict[str, Path]
    findings: tuple[Finding, ...]
    steps: int | None
    seed: int


class WorkerDied(Exception):
    """The process ended before it answered; ``args[0]`` is its exit code (minus the signal that killed it)."""


class Worker:
    """A process that waits for orders. One thread at a time may ask; any may kill."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="neuromend-fill", daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take an order."""
        return self._process.is_alive()

    def ask(self, order: Order, on_step: OnStep) -> Filled:
        """Have a fill made; ``on_step`` hears (stage, done, of).

        Raises:
            NeuromendError: the fill failed.
            WorkerDied: the process was killed, by us or by the system.
        """
        try:
            self._pipe.send(order)
            while True:
                wait([self._pipe, self._process.sentinel])
                # What was said before the end is still in the pipe.
                if not self._pipe.poll() and not self._process.is_alive():
                    raise EOFError
                kind, content = self._pipe.recv()
                if kind == "step":
                    on_step(*content)
                elif kind == "failed":
                    raise content
                else:
                    return content  # type: ignore[no-any-return]  # a Filled; the pipe does not know
        except (EOFError, OSError) as error:
            if isinstance(error, NeuromendError):
                raise
            self._process.join(GRACE_SECONDS)
            raise WorkerDied(self._process.exitcode) from error

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.join(GRACE_SECONDS)


def serve(pipe: Connection) -> None:
    """The process: import what a fill needs, then fill whatever is ordered until the server goes away."""
    # Ctrl-C reaches every process of a terminal; the server decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from neuromend.filling import fill
    from neuromend.painting import LoadedModel

    # The weights stay loaded from fill to fill.
    warm = partial(fill, painter_for=LoadedModel())
    try:
        while True:
            pipe.send(_done(warm, pipe.recv(), pipe))
    except (EOFError, OSError):
        return  # the server is gone


def _done(fill: Callable[..., Any], order: Order, pipe: Connection) -> tuple[str, Any]:
    """Carry out one order; the answer is ("done", Filled) or ("failed", NeuromendError)."""
    try:
        result = fill(
            order.image, order.mask, order.out, model=order.model, samples=order.samples, steps=order.steps,
            seed=order.seed, command=order.command,
            on_step=lambda stage, done, of: pipe.send(("step", (stage, done, of))),
        )  # fmt: skip
    except NeuromendError as error:
        return "failed", error
    except MemoryError:
        return "failed", out_of_memory("the memory was not enough")
    except Exception as problem:  # a bug must not end the page
        return "failed", bug(problem)
    settings = result.record["settings"]
    return "done", Filled(dict(result.outputs), tuple(result.findings), settings["steps"], settings["seed"])


def bug(problem: Exception) -> NeuromendError:
    """What nobody foresaw."""
    return NeuromendError(
        "UX-70",
        f"{type(problem).__name__}: {problem}",
        why="nobody foresaw this: it is a bug in neuromend, please report it",
        fix="fill the same scan and mask with `neuromend fill --debug` and send what it shows",
    )


def out_of_memory(what: str) -> TemporaryError:
    """The fill needed more memory than there was."""
    return TemporaryError(
        "RT-12",
        what,
        why="the fill was not finished; nothing half-written was left, and the page goes on",
        fix="close other programs and press Fill again, or fill it where there is more memory",
    )
