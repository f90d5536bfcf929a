"""One method in a process of its own, so that its peak memory is its own and its death ends no benchmark.

The process is handed voided scans and masks, never the truth. Peak memory is the resident set of this process
at its highest since it was started (``getrusage``; of a tool that it calls, that tool's), with the libraries
that it needs; a later case therefore never shows less than an earlier one.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from neuromend.errors import NeuromendError, TemporaryError
from neuromend.external import EXTERNAL, fill_with

SECONDS_TO_STOP = 10.0
"""After this time a process that does not stop when asked is killed."""

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in what ``ru_maxrss`` counts."""


@dataclass(frozen=True)
class Measured:
    """One fill, with what it cost; ``image`` and ``samples`` are nibabel images, as ``blind_fill`` wants them.

    Attributes:
        seconds: wall time inside the process, from the scan in memory to the fill in memory; loading a model is
            part of it, importing libraries is not.
        peak_memory_mb: resident memory of the process, in MB (10^6 bytes).
        gpu_memory_mb: memory allocated on the GPU, if one was used.
        device: what was really used.
        steps: denoising steps; None for a tool.
    """

    image: Any
    samples: tuple[Any, ...]
    seconds: float
    peak_memory_mb: float
    gpu_memory_mb: float | None
    device: str
    steps: int | None


@dataclass
class Worker:
    """A context manager around the process; call it with a scan and a hole.

    Args:
        model: name or folder of a model, or the name of an external tool.
        settings: keyword arguments of ``neuromend.fill``; external tools know none of them.
    """

    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._start()
        return self

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, self.model, dict(self.settings)), daemon=True
        )
        self._process.start()
        there.close()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if kind is not None:
            self._process.terminate()
        self._process.join(SECONDS_TO_STOP)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __call__(self, scan: Any, hole: Any) -> Measured:
        """Fill a hole.

        Args:
            scan, hole: nibabel images (x, y, z) on one grid.

        Raises:
            NeuromendError: the error with which the method ended; BM-04, its process died.
        """
        if not self._process.is_alive():  # it died of the case before; this one may be smaller
            self._connection.close()
            self._start()
        try:
            self._connection.send((np.asanyarray(scan.dataobj), np.asanyarray(hole.dataobj), scan.affine))
            answer = self._connection.recv()
        except (EOFError, ConnectionError, BrokenPipeError):
            self._process.join(SECONDS_TO_STOP)
            raise TemporaryError(
                "BM-04",
                f"the process of '{self.model}' died ({_ending(self._process.exitcode)})",
                why="most often the memory was not enough",
                fix="run it where there is more memory, or without this method",
            ) from None
        if isinstance(answer, NeuromendError):
            raise answer
        arrays, facts = answer
        image, *samples = (nib.Nifti1Image(array, scan.affine) for array in arrays)  # type: ignore[no-untyped-call]
        return Measured(image, tuple(samples), **facts)


def _serve(connection: Connection, model: str, settings: dict[str, Any]) -> None:
    """Fill what comes through the connection until its other end is closed."""
    # Ctrl-C reaches the whole group of processes; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a tool that was called is stopped too
    fill = _external if model in EXTERNAL else _own
    if fill is _own:
        import neuromend.filling  # noqa: F401  (so that the first case does not pay for the import)
    while True:
        try:
            voxels, hole, affine = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            connection.send(fill(model, settings, voxels, hole, affine))
        except NeuromendError as error:
            connection.send(_Portable(error))


class _Portable:
    """An error on its way through a pipe: exceptions with keyword arguments cannot be pickled whole."""

    def __init__(self, error: NeuromendError) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        e = self.error
        return _rebuilt, (type(e), e.code, e.what, e.why, e.fix, e.path)


def _rebuilt(kind: Any, code: str, what: str, why: str, fix: str, path: Any) -> NeuromendError:
    error: NeuromendError = kind(code, what, why=why, fix=fix, path=path)
    return error


def _own(model: str, settings: dict[str, Any], voxels: Any, hole: Any, affine: Any) -> Any:
    import torch

    import neuromend

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    scan, mask = _image(voxels, affine), _image(hole, affine)
    start = time.perf_counter()
    result = neuromend.fill(scan, mask, model=model, **settings)
    seconds = time.perf_counter() - start
    device = result.record["run"]["device"]
    on_gpu = device.startswith("cuda")
    arrays = [np.asarray(image.dataobj, np.float32) for image in (result.image, *result.samples)]
    return arrays, {
        "seconds": seconds,
        "peak_memory_mb": _peak_mb(resource.RUSAGE_SELF),
        "gpu_memory_mb": torch.cuda.max_memory_allocated() / 1e6 if on_gpu else None,
        "device": device,
        "steps": result.record["settings"]["steps"],
    }


def _external(
    model: str, settings: dict[str, Any], voxels: NDArray[Any], hole: NDArray[Any], affine: NDArray[Any]
) -> tuple[list[NDArray[np.float32]], dict[str, Any]]:
    start = time.perf_counter()
    filled = fill_with(EXTERNAL[model], _image(voxels, affine), _image(hole, affine))
    return [filled], {
        "seconds": time.perf_counter() - start,
        "peak_memory_mb": _peak_mb(resource.RUSAGE_CHILDREN),
        "gpu_memory_mb": None,
        "device": "its own",
        "steps": None,
    }


def _image(voxels: NDArray[Any], affine: NDArray[Any]) -> Any:
    return nib.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * RSS_UNIT / 1e6


def _ending(code: int | None) -> str:
    if code is None:
        return "it does not answer"
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
