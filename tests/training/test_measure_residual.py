"""The command behind ``residual_scale``."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ..trainer.tiny_data import write_tiny_data
from .conftest import load_script


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """training/measure_residual.py."""
    return load_script("measure_residual", monkeypatch)


def test_a_known_residual_is_measured_inside_the_masks_only(measure: ModuleType) -> None:
    def case(residual: float, voxels: int) -> dict[str, torch.Tensor]:
        mask = torch.zeros(1, 3, 4, 5)
        mask.view(-1)[:voxels] = 1
        base = torch.full_like(mask, 0.25)
        return {"mask": mask, "base": base, "healthy": base + torch.where(mask > 0, residual, 9.0)}

    by_case, by_voxel = measure.residual_std([case(1.0, 30), case(-3.0, 10)])
    assert by_case == pytest.approx(((1 + 9) / 2) ** 0.5)
    assert by_voxel == pytest.approx(((30 + 90) / 40) ** 0.5)


def test_the_command_prints_both_and_the_scale_in_use(
    measure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_data(tmp_path)
    measure.main(["--data", str(tmp_path), "--cases", "2"])
    out = capsys.readouterr().out
    assert re.search(r"2 cases of seed 0: 0\.\d{4} a case, 0\.\d{4} a voxel", out)
    assert "residual_scale is 0.12" in out
