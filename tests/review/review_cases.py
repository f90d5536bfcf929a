"""A small scan with its lesion, a desk whose fills run in this process, and a client that is let in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from neuromend.review.api import build_app
from neuromend.review.desk import Desk
from neuromend.review.guard import Gate, Guard
from neuromend.review.worker import Filled, Order, WorkerDied, _done

SHAPE = (34, 40, 30)
AFFINE = np.array([[2.5, 0, 0, -41], [0, 2.5, 0, -48], [0, 0, 2.5, -35], [0, 0, 0, 1]])
TOKEN = "a-token-for-tests-that-is-long-enough-to-be-one"
BASE = "http://127.0.0.1:8123"
MARKUP = '"><img src=x onerror=alert(1)>.nii.gz'


def radius(centre: Any = (0.0, 0.0, 0.0)) -> NDArray[np.float64]:
    """Distance from a centre, 1 at the border of the volume."""
    half = (np.array(SHAPE) - 1) / 2
    return np.asarray(
        np.linalg.norm((np.indices(SHAPE).transpose(1, 2, 3, 0) - half) / half - centre, axis=-1)
    )


def head() -> NDArray[np.int16]:
    """A brain of two shells with noise."""
    rng = np.random.default_rng(5)
    inner = np.where(radius() < 0.6, rng.normal(900, 20, SHAPE), rng.normal(600, 20, SHAPE))
    return np.rint(np.where(radius() < 0.8, inner, 0)).astype(np.int16)


def ball() -> NDArray[np.uint8]:
    """A lesion."""
    return (radius((0.3, 0.1, 0.15)) < 0.25).astype(np.uint8)


def save_scan(folder: Path, name: str = "scan.nii.gz") -> Path:
    kind: Any = nib.MGHImage if name.endswith(".mgz") else nib.Nifti1Image
    nib.save(kind(head(), AFFINE.astype(np.float32)), folder / name)
    return folder / name


def save_mask(folder: Path, name: str = "lesion.nii.gz", voxels: Any = None, affine: Any = AFFINE) -> Path:
    make: Any = nib.Nifti1Image
    nib.save(make(ball() if voxels is None else voxels, affine), folder / name)
    return folder / name


class HereWorker:
    """The worker without its process: what it does is done in the thread of the queue."""

    alive = True
    pid = None

    def ask(self, order: Order, on_step: Callable[[str, int, int], None]) -> Filled:
        import neuromend.filling

        class Pipe:
            def send(self, message: Any) -> None:
                on_step(*message[1])

        kind, content = _done(neuromend.filling.fill, order, Pipe())  # type: ignore[arg-type]
        if kind == "failed":
            raise content
        filled: Filled = content
        return filled

    def kill(self) -> None:
        pass


class HeldWorker:
    """A worker that fills until it is let go or killed."""

    def __init__(self) -> None:
        self.alive = True
        self.pid = None
        self.go = threading.Event()
        self.began = threading.Event()
        self.orders: list[Order] = []

    def ask(self, order: Order, on_step: Callable[[str, int, int], None]) -> Filled:
        self.orders.append(order)
        on_step("filling", 1, 4)
        self.began.set()
        assert self.go.wait(20)
        self.go.clear()
        if not self.alive:
            raise WorkerDied(-9)
        return Filled({}, (), 1, 0)

    def kill(self) -> None:
        self.alive = False
        self.go.set()


def make_desk(folder: Path, **options: Any) -> Desk:
    """A desk without a process; what it logs is in ``folder/log``."""
    session = folder / "session"
    session.mkdir()
    options = {"make_worker": HereWorker, "say": lambda line: _append(folder / "log", line)} | options
    return Desk(session, folder / "out", **options)


def client_of(desk: Desk, **headers: str) -> TestClient:
    """A browser that has the token."""
    guard = Guard(build_app(desk), Gate.of({"127.0.0.1"}, 8123, TOKEN))
    sent = {"X-Neuromend-Token": TOKEN, "Origin": BASE, "Sec-Fetch-Site": "same-origin"} | headers
    return TestClient(guard, base_url=BASE, headers=sent, raise_server_exceptions=False)


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
