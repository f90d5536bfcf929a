"""Device, threads and memory: what is asked for is what is used, or a clear refusal."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from neuromend import device as device_module
from neuromend.device import (
    GIB,
    bf16_is_fast,
    choose_device,
    fits_in_memory,
    freed_memory_kept,
    memory_bytes,
    set_threads,
    usable_cpus,
)
from neuromend.errors import DeviceError, UsageError
from neuromend.findings import Finding

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that torch sees one CUDA device (which this test machine may not have)."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert choose_device() == CPU
    assert choose_device("cpu") == CPU


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_an_absent_device_asked_for_by_name_is_refused(wanted: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_device(wanted)
    assert (caught.value.code, caught.value.exit_status) == ("RT-10", 69)
    assert f"--device {wanted} is not available" in str(caught.value)
    assert "--device auto" in caught.value.fix


@pytest.mark.parametrize("wanted", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:0 ", "cuda:1234"])
def test_another_spelling_is_a_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(wanted)
    assert (caught.value.code, caught.value.exit_status) == ("RT-10", 2)
    assert repr(wanted) in str(caught.value)


@pytest.mark.usefixtures("one_gpu")
def test_a_working_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "cuda_problem", lambda _: None)
    for wanted in ("auto", "cuda", "cuda:0"):
        assert choose_device(wanted) == torch.device("cuda", 0)
    with pytest.raises(DeviceError, match=r"found 1 CUDA device"):
        choose_device("cuda:1")


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_that_does_not_work_is_refused_by_name_and_noted_by_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_module, "cuda_problem", lambda _: "no kernel image is available")
    with pytest.raises(DeviceError) as caught:
        choose_device("cuda")
    assert (caught.value.code, caught.value.exit_status) == ("RT-13", 69)
    assert "no kernel image" in str(caught.value)
    findings: list[Finding] = []
    assert choose_device("auto", findings) == CPU
    assert [(f.code, f.level) for f in findings] == [("RT-13", "warning")]
    assert choose_device("auto") == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_problem_is_one_sentence_where_there_is_no_gpu() -> None:
    problem = device_module.cuda_problem(torch.device("cuda", 0))
    assert problem
    assert "\n" not in problem


def test_threads_are_set_as_asked() -> None:
    assert set_threads(3) == torch.get_num_threads() == 3


def test_the_default_is_omp_num_threads_then_what_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert set_threads() == torch.get_num_threads() == 5
    for value in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert set_threads(None) == usable_cpus()


@pytest.mark.parametrize("wanted", [0, -2])
def test_fewer_than_one_thread_is_a_usage_error(wanted: int) -> None:
    with pytest.raises(UsageError, match=f"--threads is {wanted}") as caught:
        set_threads(wanted)
    assert (caught.value.code, caught.value.exit_status) == ("RT-24", 2)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine with 8 GiB (3 free), 12 cores and a process in the group /job/step."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(
        f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {3 * GIB // 1024} kB\nHugePages_Free: 0\n"
    )
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:memory:/job/step\n0::/job/step\n")
    (tmp_path / "groups" / "job" / "step").mkdir(parents=True)
    (tmp_path / "groups" / "memory" / "job").mkdir(parents=True)
    monkeypatch.setattr(device_module, "PROC", tmp_path / "proc")
    monkeypatch.setattr(device_module, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    return tmp_path / "groups"


def test_memory_is_that_of_the_machine_or_of_the_group(machine: Path) -> None:
    assert memory_bytes(CPU) == (3 * GIB, 8 * GIB)
    (machine / "job" / "step" / "memory.max").write_text("max\n")
    assert memory_bytes(CPU) == (3 * GIB, 8 * GIB)
    (machine / "job" / "memory.max").write_text(f"{5 * GIB}\n")
    assert memory_bytes(CPU) == (3 * GIB, 5 * GIB)
    (machine / "memory" / "job" / "memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    assert memory_bytes(CPU) == (2 * GIB, 2 * GIB)


def test_cpus_are_those_of_the_affinity_mask_or_of_the_quota(machine: Path) -> None:
    assert usable_cpus() == 12
    (machine / "job" / "cpu.max").write_text("max 100000\n")
    assert usable_cpus() == 12
    (machine / "job" / "step" / "cpu.max").write_text("250000 100000\n")
    assert usable_cpus() == 3


@pytest.mark.usefixtures("machine")
def test_a_peak_that_fits_passes_one_that_squeezes_warns_and_one_beyond_is_refused() -> None:
    assert fits_in_memory(3 * GIB, CPU) is None
    squeezed = fits_in_memory(4 * GIB, CPU)
    assert squeezed is not None
    assert (squeezed.code, squeezed.level) == ("RT-12", "warning")
    assert "4.0 GiB are needed and 3.0 of 8.0 GiB" in squeezed.message
    with pytest.raises(DeviceError, match=r"about 9\.0 GiB are needed, cpu has 8\.0 GiB") as caught:
        fits_in_memory(9 * GIB, CPU)
    assert (caught.value.code, caught.value.exit_status) == ("RT-12", 69)


def test_nothing_is_said_where_the_system_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "PROC", tmp_path)
    assert memory_bytes(CPU) is None
    assert fits_in_memory(10**18, CPU) is None


def test_memory_is_kept_while_the_network_runs_and_given_back_after() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell how much memory the process holds")
    block = 64 << 20
    with freed_memory_kept():
        pages = block // os.sysconf("SC_PAGE_SIZE")
        before = resident()
        torch.ones(block, dtype=torch.uint8)
        kept = resident() - before
    given_back = resident() - before
    assert given_back < pages // 4
    assert kept > pages // 2 or not hasattr(ctypes.CDLL(None), "mallopt")


def test_bf16_is_fast_only_where_the_hardware_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not bf16_is_fast(CPU)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert bf16_is_fast(CPU) == torch.backends.mkldnn.is_available()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not bf16_is_fast(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert bf16_is_fast(torch.device("cuda", 0))
    assert not bf16_is_fast(torch.device("mps"))
