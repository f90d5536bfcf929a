"""What a fill needs is foreseen from the method, its window and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuromend import forecast
from neuromend.forecast import FILL_BYTES_PER_VOXEL, KERNEL_BYTES, memory_needed, seen_at_once
from neuromend.models import resolve_model

from .filling_cases import save_network


class Told:
    """A method that sees 32 x 32 x 64 voxels at once, multiples of 16, and has 25 weights of 4 bytes."""

    multiple, window = 16, (32, 32, 64)

    def state_dict(self) -> dict[str, Any]:
        return {"weight": SimpleNamespace(numel=lambda: 25, element_size=lambda: 4)}

    def memory_bytes(self, sides: Sequence[int]) -> int:
        return 7 * sides[0] * sides[1] * sides[2]


def test_the_network_sees_the_volume_enlarged_or_a_window_of_it() -> None:
    assert seen_at_once(Told(), (17, 40, 50)) == (32, 32, 64)
    assert seen_at_once(SimpleNamespace(multiple=16, window=None), (17, 40, 50)) == (32, 48, 64)


def test_volume_window_and_weights_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = resolve_model(save_network(tmp_path / "model"))
    monkeypatch.setattr(forecast, "build_method", lambda _: Told())
    for shape in ((17, 40, 50), (200, 180, 160)):
        volume = FILL_BYTES_PER_VOXEL * shape[0] * shape[1] * shape[2]
        assert memory_needed(entry, shape) == volume + KERNEL_BYTES + 100 + 7 * 32 * 32 * 64


def test_a_classical_fill_needs_no_network() -> None:
    assert memory_needed(resolve_model("harmonic"), (10, 20, 30)) == FILL_BYTES_PER_VOXEL * 6000


def test_the_default_fits_a_small_computer() -> None:
    assert 0.5e9 < memory_needed(resolve_model("fastwavelet3d-default"), (160, 208, 160)) < 2e9
