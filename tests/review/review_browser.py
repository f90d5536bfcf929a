"""The page in Chromium against a server in this process; what the browser complains about is kept."""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import uvicorn

from neuromend.review.api import build_app
from neuromend.review.desk import Desk
from neuromend.review.guard import Gate, Guard

from ..report.report_browser import CHROMIUM
from .review_cases import SHAPE, TOKEN, ball, head, make_desk

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# NEUROMEND_REQUIRE_BROWSER=1 (see .ci/run) leaves no way to skip these tests.
_ABSENT = CHROMIUM is None or importlib.util.find_spec("playwright") is None
needs_browser = pytest.mark.skipif(
    _ABSENT and os.environ.get("NEUROMEND_REQUIRE_BROWSER") != "1",
    reason="needs Chromium (apt-get install chromium) and playwright (pip install playwright)",
)

SOFTWARE = (
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-sandbox",
)  # fmt: skip
PATIENCE_MS = 60_000

# Left, posterior, superior, and the axes of the file in another order than those of the head.
TURNED = np.array([[0, -2.5, 0, 48], [0, 0, 2.5, -41], [-2.5, 0, 0, 35], [0, 0, 0, 1]], dtype=float)


def save_turned(folder: Path, name: str, voxels: Any) -> Path:
    """The scan or mask of ``review_cases`` in a file whose axes run in other directions than the page's."""
    make: Any = nib.Nifti1Image
    nib.save(make(voxels, TURNED), folder / name)
    return folder / name


class Served:
    """A server in a thread, which can be stopped and started again on its port."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.port = 0
        self.start()

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        guard = Guard(build_app(self.desk), Gate.of({"127.0.0.1"}, self.port, TOKEN))
        config = uvicorn.Config(
            guard, log_config=None, access_log=False, ws="none", lifespan="off",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Watched:
    """A tab with the page, its complaints and its requests.

    Attributes:
        expected: beginnings of console errors that a test provokes.
    """

    def __init__(self, page: Page, served: Served) -> None:
        self.page = page
        self.served = served
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.expected: tuple[str, ...] = ()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text))
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self) -> None:
        self.page.goto(f"{self.served.address}/#token={TOKEN}")
        self.page.wait_for_selector("body[data-ready]")

    def check(self) -> None:
        """No complaint, and no request to any other host."""
        assert [text for text in self.complaints if not text.startswith(self.expected or "\0")] == []
        elsewhere = [
            url for url in self.requests if not url.startswith((self.served.address, "data:", "blob:"))
        ]
        assert elsewhere == []

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def ml(self) -> float:
        return float(self.text("#volume").split()[0])

    def mm(self) -> list[float]:
        return [float(value) for value in self.text("#at-mm").removesuffix("mm").split(",")]

    def until(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        """Wait until something is so (the strict policy of the page forbids the browser's own way)."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{self.text('#notices')}\n{self.text('body')}\n{self.complaints}"
            self.page.wait_for_timeout(30)

    def wait(self, selector: str, seconds: float = 300.0) -> None:
        """Wait until an element is seen; what the page says instead is in the failure."""
        self.until(lambda: self.page.locator(selector).first.is_visible(), seconds)

    def tile(self, number: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of a tile in the window: axial, coronal, sagittal, 3-D."""
        frame = self.page.evaluate("document.getElementById('stage').getBoundingClientRect().toJSON()")
        boxes = self.page.evaluate("import('/page/viewer.js').then(({viewer}) => viewer.tiles)")
        left, top, width, height = boxes[number]["box"]
        return frame["x"] + left, frame["y"] + top, width, height

    def at(self, number: int, x: float, y: float) -> tuple[float, float]:
        """A point of a tile, by fractions of its width and height."""
        left, top, width, height = self.tile(number)
        return left + x * width, top + y * height

    def drag(self, start: tuple[float, float], *others: tuple[float, float], button: Any = "left") -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down(button=button)
        for point in others:
            mouse.move(*point, steps=4)
        mouse.up(button=button)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


@contextmanager
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SOFTWARE])
        yield browser
        browser.close()


@contextmanager
def tab(browser: Browser, served: Served) -> Iterator[Watched]:
    """A fresh tab at 1280 x 720, checked when it is closed."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    watched = Watched(context.new_page(), served)
    watched.open()
    yield watched
    watched.check()
    context.close()


@contextmanager
def serving(folder: Path, *, mask: bool = True) -> Iterator[Served]:
    """A server with the turned scan (and its mask), whose fills run in this process."""
    desk = make_desk(folder, model="harmonic")
    scan = desk.session.add_scan(save_turned(folder, "scan.nii.gz", head()))
    if mask:
        path = save_turned(folder, "lesion.nii.gz", ball())
        desk.session.add_mask(scan, path, path.name)
    served = Served(desk)
    yield served
    served.stop()
    desk.close()


VOXEL_ML = 2.5**3 / 1000
__all__ = ["SHAPE", "TURNED", "VOXEL_ML", "Served", "Watched", "chromium", "needs_browser", "serving", "tab"]
