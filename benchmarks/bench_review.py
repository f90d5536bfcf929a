"""How long until a scan is there: `python benchmarks/bench_review.py [SCAN ...]`.

`neuromend review` is started on a 1 mm scan (a synthetic head of 197 x 233 x 189 voxels in every format that is
sent differently, or the scans named) and asked as the page asks: the page itself, the session, the whole scan. The
table tells seconds from the start of the process to the printed address, from the request to the first byte and to
the last, once before and once after the server has converted it. Nothing here asserts. On a busy machine the times
mean little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
from scipy import ndimage

SHAPE = (197, 233, 189)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(
        "| scan | MB sent | address printed (s) | first byte (s) | all (s) | again: all (s) | session (ms) |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for scan in options.scans or synthetic(Path(folder)):
            print(row(scan, options.repeats), flush=True)
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


def row(scan: Path, repeats: int) -> str:
    """Start a server on one scan and ask it for everything that the page needs to show it."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "neuromend", "review", str(scan), "--no-browser", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base, token = server.stdout.readline().strip().split("/#token=")
        printed = time.perf_counter() - began
        with httpx.Client(base_url=base, headers={"X-Neuromend-Token": token}, timeout=120) as web:
            web.get("/")
            asked = [timed(web, "/api/session")[1] for _ in range(repeats)]
            id = web.get("/api/session").json()["scans"][0]["id"]
            first, whole, size = timed(web, f"/api/files/{id}")
            again = [timed(web, f"/api/files/{id}")[1] for _ in range(repeats)]
        server.terminate()
    return (
        f"| {''.join(scan.suffixes)} | {size / 1e6:.1f} | {printed:.2f} | {first:.3f} | {whole:.3f} "
        f"| {statistics.median(again):.3f} | {1000 * statistics.median(asked):.1f} |"
    )


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
