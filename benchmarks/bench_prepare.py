"""How long does it take to prepare a data set, and how much memory?

    python benchmarks/bench_prepare.py --cases 24 --workers 2

Writes BraTS-sized cases (240 x 240 x 155, int16, gzip; a healthy mask and a lesion mask) of synthetic brains to a
temporary folder, prepares them, prepares them again (everything is kept), and prints one JSON line: seconds a case,
peak memory of a worker, and two extrapolations to 1,251 cases: at the rate of the clock, which counts whatever else
the machine was doing, and from CPU seconds, as if 8 cores were free and nothing waited. The comparison of all pairs,
which grows with the square of their number, is measured at full size on random descriptors.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from neuromend.corpus import leaks
from neuromend.prepare import prepare

SHAPE = (240, 240, 155)
BRATS = 1251


def write_case(folder: Path, number: int) -> None:
    """A case with folds of its own: random numbers of 4 mm, smoothed, in an ellipsoid the size of a brain."""
    rng = np.random.default_rng(number)
    name = f"BraTS-GLI-{number:05d}-000"
    (folder / name).mkdir(parents=True)
    coarse = ndimage.gaussian_filter(rng.normal(size=(60, 60, 39)), 2.2)
    folds = ndimage.zoom(coarse / coarse.std(), (4, 4, 155 / 39), order=1)[:240, :240, :155]
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) - n / 2 for n in SHAPE), indexing="ij")
    inside = (x / 68) ** 2 + (y / 86) ** 2 + (z / 66) ** 2 < 1
    noise = rng.normal(0, 20, SHAPE).astype(np.float32)
    scan = np.where(inside, np.clip(600 + 200 * folds + noise, 50, 1500), 0).astype(np.int16)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = [0, 239, 0]
    lesion = ((x - 30) ** 2 + y**2 + z**2 < 20**2).astype(np.uint8)
    healthy = ((x + 30) ** 2 + y**2 + z**2 < 14**2).astype(np.uint8)
    for kind, voxels in (("t1n", scan), ("mask-unhealthy", lesion), ("mask-healthy", healthy)):
        nib.save(nib.Nifti1Image(voxels, affine), folder / name / f"{name}-{kind}.nii.gz")


def comparison_seconds(count: int = BRATS) -> float:
    """Seconds that comparing all pairs of ``count`` descriptors takes (random ones: none are alike)."""
    descriptors = np.random.default_rng(0).normal(size=(count, *leaks.GRID_SHAPE)).astype(np.float16)
    descriptors /= np.linalg.norm(descriptors.reshape(count, -1).astype(np.float32), axis=1)[
        :, None, None, None
    ]
    start = time.perf_counter()
    leaks.find_twins(descriptors, leaks.CANDIDATE)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "data"), Path(folder, "out")
        for number in range(args.cases):
            write_case(data, number)
        spent = _child_seconds()
        start = time.perf_counter()
        done = prepare(data, out, workers=args.workers)
        seconds = time.perf_counter() - start
        cpu = _child_seconds() - spent
        peak_kb = resource.getrusage(
            resource.RUSAGE_CHILDREN if args.workers > 1 else resource.RUSAGE_SELF
        ).ru_maxrss
        start = time.perf_counter()
        prepare(data, out, workers=args.workers)
        again = time.perf_counter() - start
    compared = comparison_seconds()
    row = {
        "cases": args.cases,
        "workers": args.workers,
        "seconds_a_case": round(seconds / args.cases, 2),
        "cpu_seconds_a_case": round(cpu / args.cases, 2),
        "seconds_a_kept_case": round(again / args.cases, 2),
        "megabytes_a_case": round(done.summary.megabytes / args.cases, 1),
        "peak_gb_a_worker": round(peak_kb / 2**20, 2),
        "seconds_to_compare_1251": round(compared, 1),
        "load_average": round(os.getloadavg()[0], 1),
        "minutes_for_1251_at_this_rate": round((BRATS * seconds / args.cases + compared) / 60, 1),
        "minutes_for_1251_on_8_free_cores": round((BRATS * cpu / args.cases / 8 + compared) / 60, 1),
    }
    print(json.dumps(row))


def _child_seconds() -> float:
    """CPU seconds of this process and its finished workers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
