"""``neuromend doctor``: is this installation able to fill a scan, and what would make it better?"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuromend.device import (
    GIB,
    bf16_is_fast,
    choose_device,
    cuda_problem,
    memory_bytes,
    set_threads,
    usable_cpus,
)
from neuromend.errors import NeuromendError
from neuromend.findings import Finding
from neuromend.models import DEFAULT_MODEL, ModelEntry, available_models, verify_model
from neuromend.provenance import version_string

#: Free space below which the outputs of one run (scan, samples, report) may not fit.
LOW_DISK_GIB = 1.0
#: Peak memory of a fill at 1 mm, the figure that the project holds itself to.
FILL_GIB = 3.0


def run_doctor(*, synthetic_run: bool = True) -> list[Finding]:
    """Every check, each as one or more findings; nothing is raised for a foreseen fault.

    Args:
        synthetic_run: also fill a small synthetic head from end to end (about 10 s).
    """
    checks: list[Callable[[], list[Finding]]] = [_versions, _device, _threads, _memory, _disk, _models]
    if synthetic_run:
        checks.append(_fill_synthetic_head)
    return [finding for check in checks for finding in check()]


def _versions() -> list[Finding]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "nibabel"))
    python = f"Python {platform.python_version()} on {platform.platform()}"
    return [Finding("DR-01", "pass", f"neuromend {version_string()}, {python}; {packages}.")]


def _device() -> list[Finding]:
    cpu = torch.device("cpu")
    speed = "native bfloat16 (fast)" if bf16_is_fast(cpu) else "no native bfloat16, float32 is used"
    found = [Finding("RT-10", "pass", f"cpu: {platform.machine()}, {speed}.")]
    if torch.version.cuda is None:
        if shutil.which("nvidia-smi"):
            message = f"an NVIDIA driver is installed but torch {torch.__version__} is a CPU build; "
            found.append(
                Finding("RT-13", "warning", message + "install a CUDA build of torch to use the GPU.")
            )
        return found
    if not torch.cuda.is_available():
        message = (
            f"torch was built for CUDA {torch.version.cuda} but finds no usable GPU (driver: {_driver()})."
        )
        return [*found, Finding("RT-13", "note", message)]
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        major, minor = torch.cuda.get_device_capability(device)
        words = (
            f"{device}: {torch.cuda.get_device_name(device)}, compute capability {major}.{minor}, "
            f"driver {_driver()}, torch built for CUDA {torch.version.cuda}"
        )
        problem = cuda_problem(device)
        if problem is None:
            found.append(Finding("RT-13", "pass", f"{words}; works."))
        else:
            fix = "update the driver, or install a torch build for this GPU"
            found.append(Finding("RT-13", "warning", f"{words}; does not work ({problem}): {fix}."))
    return found


def _driver() -> str:
    """Version of the NVIDIA driver, or ``not found``."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not found"
    return done.stdout.split("\n")[0].strip() or "not found"


def _threads() -> list[Finding]:
    before = torch.get_num_threads()
    threads = set_threads()
    torch.set_num_threads(before)
    count = "1 thread" if threads == 1 else f"{threads} threads"
    message = f"{count} by default; this process may use {usable_cpus()} of {os.cpu_count()} cores."
    found = [Finding("RT-24", "pass", message)]
    if threads > usable_cpus():
        advice = f"OMP_NUM_THREADS asks for more threads than cores; --threads {usable_cpus()} is faster."
        found.append(Finding("RT-24", "warning", advice))
    if threads > 1 and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        advice = "beside other busy programs, threads that spin stall each other; GOMP_SPINCOUNT=0 avoids it."
        found.append(Finding("RT-24", "note", advice))
    return found


def _memory() -> list[Finding]:
    known = memory_bytes(torch.device("cpu"))
    if known is None:
        return [Finding("RT-12", "note", "this system does not tell how much memory is free.")]
    free, total = (value / GIB for value in known)
    message = (
        f"{free:.1f} of {total:.1f} GiB of memory are free; a scan at 1 mm needs up to {FILL_GIB:.0f} GiB."
    )
    return [Finding("RT-12", "pass" if free >= FILL_GIB else "warning", message)]


def _disk() -> list[Finding]:
    """Free space here and in the temporary folder, and whether both, and the cache, can be written to."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    places = {
        "working directory": Path.cwd(),
        "temporary folder": Path(tempfile.gettempdir()),
        "cache": cache,
    }
    found = []
    for name, folder in places.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free / GIB
        good = os.access(there, os.W_OK) and free >= LOW_DISK_GIB
        words = "writable" if os.access(there, os.W_OK) else "not writable"
        message = f"{name}: {words}, {free:.1f} GiB free."
        found.append(Finding("RT-03", "pass" if good else "warning", message))
    return found


def _models() -> list[Finding]:
    found: list[Finding] = []
    entries = available_models()
    for entry in entries:
        if not entry.is_classical:
            found += _model(entry)
    if not any(entry.name == DEFAULT_MODEL and entry.problem is None for entry in entries):
        message = (
            f"the default model '{DEFAULT_MODEL}' is not installed; --model harmonic works without weights."
        )
        found.append(Finding("MO-16", "warning", message))
    return found


def _model(entry: ModelEntry) -> list[Finding]:
    try:
        return verify_model(entry)
    except NeuromendError as error:
        return [Finding(error.code, "warning", f"'{entry.name}' cannot be used: {error.what}")]


def _fill_synthetic_head() -> list[Finding]:
    """Fill a sphere in a synthetic head through the public function and look at every voxel of the result."""
    import neuromend

    scan, lesion = synthetic_head()
    names = {entry.name for entry in available_models() if entry.problem is None}
    model = DEFAULT_MODEL if DEFAULT_MODEL in names else "harmonic"
    start = time.perf_counter()
    try:
        filled: Any = neuromend.fill(scan, lesion, model=model).image
    except NeuromendError as error:
        return [Finding("DR-02", "warning", f"filling a synthetic head failed: {error.what} ({error.code})")]
    seconds = time.perf_counter() - start
    before, after = np.asarray(scan.dataobj), np.asarray(filled.dataobj)
    hole = np.asarray(lesion.dataobj) > 0
    if not np.array_equal(before[~hole], after[~hole]):
        return [Finding("DR-02", "warning", "filling a synthetic head changed voxels outside the mask.")]
    message = (
        f"filled {int(hole.sum())} voxels of a synthetic head with '{model}' on {choose_device()} "
        f"in {seconds:.1f} s; {int((~hole).sum())} voxels outside are identical."
    )
    return [Finding("DR-02", "pass", message)]


def synthetic_head() -> tuple[Any, Any]:
    """A toy brain (two shells and noise, int16, 2 mm, 80 x 96 x 72 voxels) and a sphere of 6 ml in it."""
    import nibabel

    shape, spacing_mm = (80, 96, 72), 2.0
    centre = (np.array(shape) - 1) / 2
    offset_mm = (np.indices(shape).transpose(1, 2, 3, 0) - centre) * spacing_mm
    radius = np.sqrt(((offset_mm / [66.0, 82.0, 60.0]) ** 2).sum(-1))
    noise = np.random.default_rng(0).normal(0, 15, shape)
    tissue = np.select([radius < 0.75, radius < 1], [900.0, 600.0]) + np.where(radius < 1, noise, 0)
    hole = np.linalg.norm(offset_mm - [30.0, 10.0, 10.0], axis=-1) < 11.3
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -centre * spacing_mm
    scan: Any = nibabel.Nifti1Image(tissue.astype(np.int16), affine)  # type: ignore[no-untyped-call]
    lesion: Any = nibabel.Nifti1Image(hole.astype(np.uint8), affine)  # type: ignore[no-untyped-call]
    return scan, lesion
