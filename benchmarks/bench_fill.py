"""Wall time and peak memory of `neuromend fill`: `make bench-fill`, or `python benchmarks/bench_fill.py --help`.

A 1 mm scan (a dev person of ../shared/data, else a synthetic head) with lesions of 1, 20 and 100 ml is filled
through the command line, each time in a process of its own that may use two cores: what a user waits for, from
the start of Python to the last file. Peak memory is the largest resident set of that process. The table is
printed and written to runs/bench-fill.md with the hardware and the versions. Nothing here asserts; the numbers
are for people. On a busy machine the times mean little: see the load average in the table's foot.

It also draws samples at 1 and at 2 mm and derives how many bytes of peak memory a voxel of the model's volume
costs, beside what `neuromend fill` foresees (neuromend/forecast.py), which must not be less. For `harmonic` that is
FILL_BYTES_PER_VOXEL there. (Samples need more than the expected fill.)
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from neuromend.data.head import find_head
from neuromend.data.lesions import random_blob
from neuromend.data.volume import read_volume
from neuromend.doctor import synthetic_head
from neuromend.forecast import memory_needed
from neuromend.models import DEFAULT_MODEL, resolve_model
from neuromend.provenance import version_string

SHARED = Path(__file__).resolve().parents[2] / "shared"
LESIONS_ML = (1.0, 20.0, 100.0)
GOAL_SECONDS, GOAL_GB, GOAL_ML = 10.0, 3.0, 20.0  # on 2 cores, for a 1 mm scan
HELP_GOAL_SECONDS = 0.3
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, getrusage(2)


@dataclass(frozen=True)
class Run:
    """One process: how long it took and the largest memory it held; the sidecar of its fill, if it made one."""

    seconds: float
    peak_bytes: int
    record: dict[str, Any]

    @property
    def model_voxels(self) -> int:
        """Voxels of the model's volume."""
        return prod(self.record["frame"]["model_shape"])


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan, source = prepare(folder, options)
        rows = []
        for ml in options.lesions_ml:
            for model in options.models:
                runs = [fill(scan, mask_of(folder, ml), model, options) for _ in range(options.repeats)]
                rows.append((ml, model, runs))
                print(f"{ml:g} ml, {model}: {median(runs):.2f} s", file=sys.stderr, flush=True)
        helps = [measure(["--help"], options.threads) for _ in range(3 if options.quick else 10)]
        growth = [growth_of(model, folder, options) for model in options.models]
    text = report(rows, helps, growth, source, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(f"{text}\nwritten: {options.out}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one run each, of the 20 ml lesion only")
    parser.add_argument("--models", nargs="+", default=[DEFAULT_MODEL, "harmonic"])
    parser.add_argument(
        "--image", type=Path, help="a 1 mm scan (default: a dev person, else a synthetic head)"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads and cores of each process")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder that holds data/")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-fill.md"))
    options = parser.parse_args()
    options.lesions_ml = (GOAL_ML,) if options.quick else LESIONS_ML
    options.repeats = 1 if options.quick else options.repeats
    return options


def prepare(folder: Path, options: argparse.Namespace) -> tuple[Path, str]:
    """Write the scan and its lesions, at full size and (as ``half``) every second voxel of them."""
    path = options.image or dev_scan(options.shared)
    if path is None:
        head: Any = synthetic_head()[0]
        voxels = np.asarray(head.dataobj).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        image, source = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.0, 1.0])), "a synthetic head"
    else:
        image, source = nib.load(path), path.name
    scan = folder / "scan_T1w.nii.gz"
    nib.save(image, scan)
    nib.save(half(image), folder / "half_T1w.nii.gz")
    volume = read_volume(scan)
    found = find_head(volume, np.zeros(volume.shape, np.bool_))
    assert found is not None, "there is no head in this scan"
    centre = np.argwhere(found.tissue).mean(0) * found.step
    centre += np.linalg.inv(volume.affine[:3, :3]) @ [25.0, 0, 10.0]  # mm to the right and up
    for ml in options.lesions_ml:
        x, y, z = map(float, centre)
        blob = random_blob(np.random.default_rng(0), volume.shape, (x, y, z), ml, min(volume.spacing_mm))
        mask = nib.Nifti1Image(blob.astype(np.uint8), volume.affine)
        nib.save(mask, mask_of(folder, ml))
        nib.save(half(mask), mask_of(folder, ml, "half"))
    return scan, f"{source}, {'x'.join(map(str, volume.shape))} voxels of {min(volume.spacing_mm):.1f} mm"


def dev_scan(shared: Path) -> Path | None:
    """The first dev scan at 1 mm; None without the shared data."""
    table = shared / "data" / "subjects.tsv"
    if not table.is_file():
        return None
    with table.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        names = [row["subject"] for row in rows if row["dataset"] == "malf" and row["split"] == "dev"]
    return shared / "data" / "healthy" / "oasis" / f"{names[0]}_T1w.nii.gz"


def half(image: Any) -> Any:
    """Every second voxel."""
    return nib.Nifti1Image(np.asarray(image.dataobj)[::2, ::2, ::2], image.affine @ np.diag([2, 2, 2, 1]))


def mask_of(folder: Path, ml: float, which: str = "lesion") -> Path:
    return folder / f"{which}-{ml:g}.nii.gz"


def fill(scan: Path, mask: Path, model: str, options: argparse.Namespace, samples: int = 0) -> Run:
    """Fill through the command line, in a process of its own."""
    out = scan.parent / "filled.nii.gz"
    words = ["fill", "-i", scan, "-m", mask, "-o", out, "--model", model, "--overwrite", "-q"]
    words += ["--device", "cpu", "--threads", options.threads, "--samples", samples]
    return measure(words, options.threads, out.with_name("filled.json"))


def measure(words: Sequence[object], cores: int, record: Path | None = None) -> Run:
    """Run ``neuromend`` with these words on so many cores.

    Raises:
        SystemExit: it failed; its messages are shown.
    """

    def few_cores() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    with tempfile.TemporaryFile() as messages:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "neuromend", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=messages,
            preexec_fn=few_cores,
        )
        _, status, usage = os.wait4(process.pid, 0)  # rusage of this very child
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            messages.seek(0)
            sys.exit(messages.read().decode(errors="replace"))
    facts = json.loads(record.read_text()) if record is not None else {}
    return Run(seconds, usage.ru_maxrss * RSS_UNIT, facts)


def growth_of(model: str, folder: Path, options: argparse.Namespace) -> str:
    """What one more voxel of the model's volume costs, between 2 mm and 1 mm, and what is foreseen; a sentence."""
    ml = options.lesions_ml[-1]
    large = fill(folder / "scan_T1w.nii.gz", mask_of(folder, ml), model, options, samples=2)
    small = fill(folder / "half_T1w.nii.gz", mask_of(folder, ml, "half"), model, options, samples=2)
    more = large.model_voxels - small.model_voxels
    entry = resolve_model(model)
    shapes = [tuple(run.record["frame"]["model_shape"]) for run in (large, small)]
    foreseen = (memory_needed(entry, shapes[0]) - memory_needed(entry, shapes[1])) / more
    return (
        f"{model}: two samples at 1 mm take {large.peak_bytes / 1e9:.2f} GB, and a voxel of the model's volume "
        f"{(large.peak_bytes - small.peak_bytes) / more:.0f} bytes; {foreseen:.0f} are foreseen."
    )


def median(runs: Sequence[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def report(
    rows: Sequence[tuple[float, str, list[Run]]],
    helps: Sequence[Run],
    growth: Sequence[str],
    source: str,
    options: argparse.Namespace,
) -> str:
    """Everything as Markdown."""
    lines = [
        "# Time and memory of a fill",
        "",
        f"Scan: {source}. {options.threads} threads on as many cores, the whole process from start to exit, "
        f"median of {options.repeats}. The goal for {GOAL_ML:g} ml: {GOAL_SECONDS:g} s and {GOAL_GB:g} GB.",
        "",
        "| lesion (ml) | model | wall time (s) | fastest - slowest (s) | peak memory (GB) | model's volume |",
        "|---:|---|---:|---|---:|---|",
    ]
    for ml, model, runs in rows:
        times = [run.seconds for run in runs]
        shape = "x".join(map(str, runs[0].record["frame"]["model_shape"]))
        lines.append(
            f"| {ml:g} | {model} | {median(runs):.2f} | {min(times):.2f} - {max(times):.2f} "
            f"| {max(run.peak_bytes for run in runs) / 1e9:.2f} | {shape} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"`neuromend --help`: {median(helps):.2f} s (goal {HELP_GOAL_SECONDS:g} s).",
            *growth,
            "",
            f"{cpu_model()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; {platform.platform()}; "
            f"Python {platform.python_version()}, torch {version('torch')}, numpy {version('numpy')}, "
            f"scipy {version('scipy')}; neuromend {version_string()}.",
            "",
        ]
    )


def cpu_model() -> str:
    """The name of the processor."""
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
