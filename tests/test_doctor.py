"""The doctor: every check speaks, no foreseen fault raises."""

from __future__ import annotations

import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import neuromend
from neuromend import doctor
from neuromend.doctor import run_doctor, synthetic_head
from neuromend.errors import CheckpointError, InputError
from neuromend.findings import Finding
from neuromend.models import ModelEntry


def of(code: str, findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


def set_fill(monkeypatch: pytest.MonkeyPatch, fill: Callable[..., Any]) -> None:
    monkeypatch.setitem(vars(neuromend), "fill", fill)


def test_every_check_speaks() -> None:
    findings = run_doctor(synthetic_run=False)
    assert {"DR-01", "RT-10", "RT-24", "RT-12", "RT-03"} <= {finding.code for finding in findings}
    assert f"torch {torch.__version__}" in of("DR-01", findings)[0].message


@pytest.mark.parametrize("damage", [0, 1])
def test_the_synthetic_run_looks_at_every_voxel_outside(monkeypatch: pytest.MonkeyPatch, damage: int) -> None:
    def fill(scan: Any, lesion: Any, *, model: str) -> Any:
        voxels = np.asarray(scan.dataobj).copy()
        voxels[np.asarray(lesion.dataobj) > 0] = 700
        voxels[0, 0, 0] += damage
        return types.SimpleNamespace(image=nibabel.Nifti1Image(voxels, scan.affine))

    set_fill(monkeypatch, fill)
    (finding,) = of("DR-02", run_doctor())
    assert finding.level == ("warning" if damage else "pass")


def test_a_synthetic_run_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise InputError("IN-16", "constant", why="", fix="")

    set_fill(monkeypatch, fill)
    (finding,) = of("DR-02", run_doctor())
    assert finding.level == "warning"
    assert "constant (IN-16)" in finding.message


def test_the_synthetic_lesion_is_about_6_ml_and_lies_in_the_brain() -> None:
    scan, lesion = synthetic_head()
    hole = np.asarray(lesion.dataobj) > 0
    assert scan.shape == lesion.shape == (80, 96, 72)
    assert hole.sum() * 0.008 == pytest.approx(6, abs=0.3)
    assert (np.asarray(scan.dataobj)[hole] > 0).all()


def test_faulty_models_are_told_and_a_missing_default_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    problem = CheckpointError("MO-08", "made by a newer neuromend", why="", fix="", path=tmp_path)
    entry = ModelEntry("new", "", tmp_path, problem=problem)
    monkeypatch.setattr(doctor, "available_models", lambda: [ModelEntry("harmonic", ""), entry])
    findings = run_doctor(synthetic_run=False)
    assert [f.level for f in of("MO-08", findings)] == ["warning"]
    assert doctor.DEFAULT_MODEL in of("MO-16", findings)[0].message


def test_spinning_threads_are_advised_against_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(doctor, "usable_cpus", lambda: 2)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [f.level for f in of("RT-24", run_doctor(synthetic_run=False))] == ["pass", "warning", "note"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert [f.level for f in of("RT-24", run_doctor(synthetic_run=False))] == ["pass"]
    assert torch.get_num_threads() == before


def test_little_memory_and_disk_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "memory_bytes", lambda _: (1 << 30, 4 << 30))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1 << 20))
    findings = run_doctor(synthetic_run=False)
    assert [f.level for f in of("RT-12", findings)] == ["warning"]
    assert {f.level for f in of("RT-03", findings)} == {"warning"}
    monkeypatch.setattr(doctor, "memory_bytes", lambda _: None)
    assert [f.level for f in of("RT-12", run_doctor(synthetic_run=False))] == ["note"]


def test_a_gpu_behind_a_cpu_build_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "nvidia-smi")
    (finding,) = of("RT-13", run_doctor(synthetic_run=False))
    assert finding.level == "warning"
    assert "CPU build" in finding.message


@pytest.mark.parametrize(("problem", "level"), [(None, "pass"), ("no kernel image", "warning")])
def test_driver_gpu_and_torch_are_told_together(
    monkeypatch: pytest.MonkeyPatch, problem: str | None, level: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H200")
    monkeypatch.setattr(doctor, "cuda_problem", lambda _: problem)
    monkeypatch.setattr(doctor, "version_string", lambda: "1.2.3")
    done = types.SimpleNamespace(stdout="580.1\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    (finding,) = of("RT-13", run_doctor(synthetic_run=False))
    assert finding.level == level
    assert "H200, compute capability 9.0, driver 580.1, torch built for CUDA 13.0" in finding.message
    assert str(problem or "works") in finding.message


def test_a_cuda_build_without_a_gpu_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", "")
    (finding,) = of("RT-13", run_doctor(synthetic_run=False))
    assert finding.level == "note"
    assert "driver: not found" in finding.message
