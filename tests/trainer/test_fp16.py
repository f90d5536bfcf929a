"""fp16 on a CPU: the scale of the losses, and the steps that overflow (TR-02)."""

from __future__ import annotations

import functools
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuromend.errors import ModelFaultError, UsageError
from neuromend.train import train
from neuromend.trainer.checkpoints import read_checkpoint
from neuromend.trainer.config import RunConfig, make_config
from neuromend.trainer.devices import make_fabric
from neuromend.trainer.tasks import MethodTask

from .test_train import SETTINGS, assert_equal_runs
from .tiny_data import write_tiny_data

FP16 = (*SETTINGS, "precision=fp16", "device=cpu", "threads=1", "dev_cases=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_tiny_data(folder)
    return folder


@pytest.fixture
def begin_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the scale begin elsewhere than at 65536, and grow after every good step, not after 2,000."""

    def patch(scale: float) -> None:
        kind = functools.partial(torch.amp.GradScaler, init_scale=scale, growth_interval=1)
        monkeypatch.setattr(torch.amp, "GradScaler", kind)

    return patch


def fp16(method: str, steps: int, **options: Any) -> RunConfig:
    return make_config(method, preset="tiny", overrides=(*FP16, f"steps={steps}"), **options)


def run(config: RunConfig, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    train(config, data, out, say=lambda line: None, **options)
    return read_checkpoint(out / "checkpoints" / "newest.pt")


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("method", "stage", "scale", "steps"),
    [
        ("fastwavelet3d", "method", 2.0**21, 6),
        ("unet3d", "method", 2.0**17, 6),
        ("latent3d", "autoencoder", 2.0**15, 4),
    ],
)
def test_the_scale_falls_and_grows_and_survives_stops_to_the_bit(
    method: str, stage: str, scale: float, steps: int, data: Path, tmp_path: Path, begin_at: Any
) -> None:
    begin_at(scale)
    config = fp16(method, steps, stage=stage)
    whole = run(config, data, tmp_path / "whole")
    scales = [scale, *(row["scale"] for row in rows_of(tmp_path / "whole") if "scale" in row)]
    moves = [after / before for before, after in pairwise(scales)]
    assert set(moves) == {0.5, 2.0}, "some steps overflow and some do not"
    assert whole["progress"]["skipped"] == moves.count(0.5)
    assert whole["progress"]["in_a_row"] == 0
    assert whole["scaler"]["scale"] == scales[-1]
    for _ in range(steps + 1):  # the last time it only finishes
        run(config, data, tmp_path / "broken", max_minutes=0)
    assert_equal_runs(tmp_path / "whole", tmp_path / "broken")


def test_a_growth_that_is_half_way_is_resumed_there(data: Path, tmp_path: Path) -> None:
    config = fp16("fastwavelet3d", 3)
    for done in (1, 2, 3):
        scaler = run(config, data, tmp_path, max_minutes=0)["scaler"]
        assert (scaler["scale"], scaler["_growth_tracker"]) == (65536.0, done)


def test_a_step_that_overflows_changes_no_weight(data: Path, tmp_path: Path, begin_at: Any) -> None:
    begin_at(2.0**40)
    before = run(fp16("fastwavelet3d", 3), data, tmp_path, max_minutes=0)
    after = run(fp16("fastwavelet3d", 3), data, tmp_path)
    assert (after["progress"]["step"], after["progress"]["skipped"]) == (3, 3)
    assert after["scaler"]["scale"] == 2.0**37
    for part in ("task", "ema"):
        for name, weight in before[part].items():
            assert torch.equal(after[part][name], weight)
    assert [row["not_finite"].split(",")[1] for row in rows_of(tmp_path) if "not_finite" in row]


def test_a_scale_that_collapses_ends_the_run(
    data: Path, tmp_path: Path, begin_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_at(4.0)
    whole = MethodTask.forward

    def steep(self: MethodTask, case: Any, step: int, generator: Any) -> Tensor:
        return whole(self, case, step, generator) * 1e12

    monkeypatch.setattr(MethodTask, "forward", steep)
    with pytest.raises(ModelFaultError, match=r"the scale of fp16 losses fell to 0\.5 at step 2") as caught:
        run(fp16("fastwavelet3d", 9), data, tmp_path)
    assert (caught.value.code, caught.value.exit_status) == ("TR-02", 70)
    assert "bf16" in caught.value.fix


def test_a_loss_that_is_not_finite_counts_whatever_the_scale_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MethodTask.forward

    def endless(self: MethodTask, case: Any, step: int, generator: Any) -> Tensor:
        return whole(self, case, step, generator) * float("inf")

    monkeypatch.setattr(MethodTask, "forward", endless)
    with pytest.raises(ModelFaultError, match="3 steps in a row") as caught:
        run(make_config("fastwavelet3d", preset="tiny", overrides=(*FP16, "give_up_after=3")), data, tmp_path)
    assert caught.value.code == "TR-01"


def test_fp16_is_refused_where_nobody_has_tried_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="this run is on mps") as caught:
        make_fabric(make_config("unet3d", preset="tiny", overrides=["precision=fp16", "device=mps"]))
    assert caught.value.code == "TR-21"
    with pytest.raises(UsageError, match="not offered for the autoencoder or for fp16"):
        make_fabric(make_config("unet3d", preset="tiny", overrides=[*FP16, "strategy=fsdp"]))
