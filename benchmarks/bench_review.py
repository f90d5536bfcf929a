"""How long until a scan is there: `python benchmarks/bench_review.py [SCAN ...]`.

`neuromend review` is started on a 1 mm scan (a synthetic head of 197 x 233 x 189 voxels in every format that is
sent differently, or the scans named) and asked as the page asks: the page itself, the session, the whole scan. The
table tells seconds from the start of the process to the printed address, from the request to the first byte and to
the last, once before and once after the server has converted it. With `--browser` the page is opened in Chromium
without a graphics card instead (Playwright; once unmeasured, then in new tabs), and its own marks (`performance.mark`)
tell when the scan was unpacked, the code there, the viewer ready, the scan read, its planes drawn and its 3-D
rendering drawn, in seconds from the opening of the address. Nothing here asserts. On a busy machine the times mean
little.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
from scipy import ndimage

SHAPE = (197, 233, 189)
SOFTWARE = (
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-sandbox",
)
MARKS = ("unpacked", "code", "viewer", "read", "planes", "rendering")
TIMES = """() => Object.fromEntries([
  ...performance.getEntriesByType("mark").reverse().map(mark => [mark.name, mark.startTime]),
  ...performance.getEntriesByType("resource").filter(({name}) => name.includes("/api/files/")).slice(0, 1)
    .flatMap(file => [["asked", file.requestStart], ["first", file.responseStart], ["all", file.responseEnd]])])"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--browser", action="store_true", help="open the page in Chromium")
    options = parser.parse_args()
    if options.browser:
        heads, measure = ["server (s)", "sending (s)", *(f"{mark} (s)" for mark in MARKS)], in_browser
    else:
        heads = [
            "MB sent",
            "address printed (s)",
            "first byte (s)",
            "all (s)",
            "again: all (s)",
            "session (ms)",
        ]
        measure = row
    print(f"| scan | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder:
        for scan in options.scans or synthetic(Path(folder)):
            print(measure(scan, options.repeats), flush=True)
    print(
        f"\n{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, median of {options.repeats} where repeated"
    )


def synthetic(folder: Path) -> list[Path]:
    """The same head in three formats; smooth noise, which compresses about as a scan does."""
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.normal(0, 300, SHAPE), 1.0)
    place = np.indices(SHAPE).transpose(1, 2, 3, 0) / np.array(SHAPE) - 0.5
    values = np.where(np.linalg.norm(place, axis=-1) < 0.45, 600 + noise, 0).astype(np.int16)
    paths = [folder / f"head{suffix}" for suffix in (".nii.gz", ".nii", ".mgz")]
    for path in paths:
        kind: Any = nib.MGHImage if path.suffix == ".mgz" else nib.Nifti1Image
        nib.save(kind(values, np.eye(4, dtype=np.float32)), path)
    return paths


@contextmanager
def serving(scan: Path) -> Iterator[str]:
    """The address that `neuromend review` prints."""
    command = [sys.executable, "-m", "neuromend", "review", str(scan), "--no-browser", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def row(scan: Path, repeats: int) -> str:
    """Start a server on one scan and ask it for everything that the page needs to show it."""
    began = time.perf_counter()
    with serving(scan) as address:
        base, token = address.split("/#token=")
        printed = time.perf_counter() - began
        with httpx.Client(base_url=base, headers={"X-Neuromend-Token": token}, timeout=120) as web:
            web.get("/")
            asked = [timed(web, "/api/session")[1] for _ in range(repeats)]
            id = web.get("/api/session").json()["scans"][0]["id"]
            first, whole, size = timed(web, f"/api/files/{id}")
            again = [timed(web, f"/api/files/{id}")[1] for _ in range(repeats)]
    return (
        f"| {''.join(scan.suffixes)} | {size / 1e6:.1f} | {printed:.2f} | {first:.3f} | {whole:.3f} "
        f"| {statistics.median(again):.3f} | {1000 * statistics.median(asked):.1f} |"
    )


def in_browser(scan: Path, repeats: int) -> str:
    """Open the page in Chromium again and again; medians of its marks, and of the server's part in them."""
    from playwright.sync_api import sync_playwright

    found: list[dict[str, float]] = []
    with serving(scan) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*SOFTWARE])
        for _ in range(1 + repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.goto(address)
            while MARKS[-1] not in (times := page.evaluate(TIMES)):
                page.wait_for_timeout(50)
            page.close()
            served = {"server": times["first"] - times["asked"], "sending": times["all"] - times["first"]}
            found.append(served | {mark: times[mark] for mark in MARKS})
        browser.close()
    del found[0]  # a browser that has only just started
    numbers = (statistics.median(one[name] for one in found) / 1000 for name in found[0])
    return f"| {''.join(scan.suffixes)} | {' | '.join(f'{number:.2f}' for number in numbers)} |"


def timed(web: httpx.Client, path: str) -> tuple[float, float, int]:
    """Seconds to the first byte and to the last, and the number of bytes."""
    began, first, size = time.perf_counter(), 0.0, 0
    with web.stream("GET", path) as reply:
        for piece in reply.iter_raw():
            first = first or time.perf_counter() - began
            size += len(piece)
    return first, time.perf_counter() - began, size


if __name__ == "__main__":
    main()
