"""Where the network runs: device, threads, memory, and whether bfloat16 pays there."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from neuromend.errors import DeviceError, UsageError
from neuromend.findings import Finding

GIB = 1 << 30
#: Of malloc.h: blocks above this size, and free memory above this size at the end, belong to the system.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
#: Where Linux tells about memory and the limits of containers and batch jobs; absent on other systems.
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def choose_device(wanted: str = "auto", findings: list[Finding] | None = None) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` takes the first CUDA device if it works and the CPU otherwise (MPS only when asked for: it lacks
    some 3-D operators and is less tested); a CUDA device that does not work is noted in ``findings``.

    Raises:
        UsageError: another spelling.
        DeviceError: RT-10, a device asked for by name is absent; RT-13, it is there but does not work.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", wanted):
        raise UsageError(
            "RT-10",
            f"--device is '{wanted}', expected auto, cpu, cuda, cuda:N or mps",
            why="the device decides where the network runs",
            fix="--device auto",
        )
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise _absent(wanted, "this computer, system or torch build has no Metal support")
    if not torch.cuda.is_available():
        if wanted == "auto":
            return torch.device("cpu")
        reason = "is a CPU build" if torch.version.cuda is None else "finds no usable NVIDIA driver or GPU"
        raise _absent(wanted, f"torch {torch.__version__} {reason}")
    index = int(wanted.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise _absent(wanted, f"found {torch.cuda.device_count()} CUDA device(s), numbered from 0")
    device = torch.device("cuda", index)
    problem = cuda_problem(device)
    if problem is None:
        return device
    if wanted != "auto":
        raise DeviceError(
            "RT-13",
            f"{wanted} is there but does not work: {problem}",
            why="the driver, the GPU and this torch build do not fit together",
            fix="run `neuromend doctor`, update the driver or torch, or use --device cpu",
        )
    if findings is not None:
        findings.append(Finding("RT-13", "warning", f"{device} does not work ({problem}); the CPU is used."))
    return torch.device("cpu")


def cuda_problem(device: torch.device) -> str | None:
    """One sentence on why a CUDA device cannot run a kernel, or None where it can."""
    try:
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0][:200]
    return None


def set_threads(wanted: int | None = None) -> int:
    """Let torch use ``wanted`` CPU threads and return the number; by default what this process may use.

    The default is ``OMP_NUM_THREADS`` where it is set, else :func:`usable_cpus`, not the cores of the whole
    machine (RT-24).

    Raises:
        UsageError: fewer than one thread.
    """
    if wanted is not None and wanted < 1:
        raise UsageError(
            "RT-24",
            f"--threads is {wanted}, expected 1 or more",
            why="the network needs at least one thread",
            fix="leave --threads out to use every core that this process may use",
        )
    requested = os.environ.get("OMP_NUM_THREADS", "")
    default = int(requested) if requested.isdecimal() and int(requested) > 0 else usable_cpus()
    threads = wanted or default
    torch.set_num_threads(threads)
    return threads


def usable_cpus() -> int:
    """Cores this process may use: the affinity mask, and the quota of its container where that is smaller."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    for folder in _control_group("cpu"):
        quota = _read_words(folder / "cpu.max")
        if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal():
            count = min(count, max(1, -(-int(quota[0]) // int(quota[1]))))
    return count


def memory_bytes(device: torch.device) -> tuple[int, int] | None:
    """(free, total) memory of ``device`` in bytes; None where the system does not tell.

    For the CPU: ``/proc/meminfo``, cut down to the limit of the control group that the process runs in.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    kilobytes = {
        words[0].rstrip(":"): int(words[1]) * 1024
        for words in (line.split() for line in _read_lines(PROC / "meminfo"))
        if len(words) > 1 and words[1].isdecimal()
    }
    if "MemTotal" not in kilobytes or "MemAvailable" not in kilobytes:
        return None
    free, total = kilobytes["MemAvailable"], kilobytes["MemTotal"]
    for folder in _control_group("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read_words(folder / name)
            if limit and limit[0].isdecimal():
                total = min(total, int(limit[0]))
    return min(free, total), total


def fits_in_memory(needed_bytes: int, device: torch.device) -> Finding | None:
    """Compare an estimate of the peak with what ``device`` has, before the work begins (RT-12).

    Returns:
        None where it fits or nothing is known; a warning where it fits only if other programs give way.

    Raises:
        DeviceError: more than the device has at all.
    """
    known = memory_bytes(device)
    if known is None or needed_bytes <= known[0]:
        return None
    free, total = (value / GIB for value in known)
    needed = needed_bytes / GIB
    if needed_bytes > known[1]:
        raise DeviceError(
            "RT-12",
            f"about {needed:.1f} GiB are needed, {device} has {total:.1f} GiB in all",
            why="the run would end in an out-of-memory kill",
            fix="use a machine or job with more memory, another --device, or a smaller field of view",
        )
    message = f"about {needed:.1f} GiB are needed and {free:.1f} of {total:.1f} GiB are free on {device}."
    return Finding("RT-12", "warning", message + " Close other programs if the run is slow or is killed.")


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the large blocks that a network frees for its next layer, instead of giving each back to the system.

    Every layer of a volume asks for tens of megabytes on a CPU; fresh pages for them are a tenth to a third of the
    time. Afterwards the system gets all of it back. Where the C library is not that of GNU, nothing happens.
    """
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, GIB)
    libc.mallopt(M_TRIM_THRESHOLD, 2 * GIB - 1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def bf16_is_fast(device: torch.device) -> bool:
    """True where the device multiplies bfloat16 natively (CUDA from Ampere; CPUs with AMX or AVX512-BF16).

    Elsewhere bfloat16 is emulated and slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # torch has these under private names only; where they are gone, float32 is the safe answer.
    probes = (
        getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return any(bool(probe()) for probe in probes if probe is not None)


def _absent(wanted: str, reason: str) -> DeviceError:
    return DeviceError(
        "RT-10",
        f"--device {wanted} is not available: {reason}",
        why="a device asked for by name is never replaced by another one in silence",
        fix="use --device auto (falls back to the CPU), or run `neuromend doctor`",
    )


def _control_group(controller: str) -> list[Path]:
    """The folders of this process's Linux control group (v1 or v2) and of the groups around it."""
    folders: list[Path] = []
    for line in _read_lines(PROC / "self" / "cgroup"):
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers or controller in controllers.split(","):
            base = CGROUPS / controller if controllers else CGROUPS
            inner = base / group.lstrip("/")
            folders += [inner, *(parent for parent in inner.parents if parent.is_relative_to(base))]
    return folders


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


def _read_words(path: Path) -> list[str]:
    lines = _read_lines(path)
    return lines[0].split() if lines else []
