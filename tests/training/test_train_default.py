"""The training script: it learns, logs, resumes to the bit after a kill, and exports a model that fills."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import neuromend
from neuromend.doctor import synthetic_head
from neuromend.models import resolve_model, verify_model

Train = Callable[..., Path]


@pytest.fixture
def train(data: Path, train_default: ModuleType, tmp_path: Path) -> Train:
    """Runs the script in this process: tiny network, no workers; returns the run's folder."""

    def run(name: str, *more: str, steps: int = 6) -> Path:
        out = tmp_path / name
        words = ["--data", str(data), "--out", str(out), "--preset", "tiny", "--workers", "0"]
        train_default.main([*words, "--steps", str(steps), *more])
        return out

    return run


def checkpoint(folder: Path, name: str = "checkpoint.pt") -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return state


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def tensors(state: Any, path: str = "") -> dict[str, torch.Tensor]:
    """All tensors in nested dictionaries, by path."""
    if isinstance(state, torch.Tensor):
        return {path: state}
    items = state.items() if isinstance(state, dict) else []
    return {k: v for key, value in items for k, v in tensors(value, f"{path}/{key}").items()}


def test_three_steps_leave_a_log_a_checkpoint_and_the_best_weights(train: Train) -> None:
    out = train("run", steps=3)
    assert sorted(path.name for path in out.iterdir()) == ["best.pt", "checkpoint.pt", "log.jsonl"]
    rows = log(out)
    assert [row["step"] for row in rows] == [3]
    assert {"loss", "lr", "minutes", "model", "harmonic", "model_1mm", "harmonic_1mm"} <= set(rows[0])
    state, best = checkpoint(out), checkpoint(out, "best.pt")
    assert state["step"] == best["step"] == 3
    assert state["best"] == best["scores"]["model"] == rows[0]["model"]
    assert not torch.equal(*(state[k]["network.stem.weight"] for k in ("model", "ema")))


def test_a_killed_run_resumes_to_the_same_bits(
    train: Train,
    train_default: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killed at step 4, it goes on from the checkpoint of step 3 and ends where an undisturbed run ends."""
    whole = train("whole")
    step = train_default.training_step

    def killed(run: Any, *rest: Any) -> None:
        if run.step == 4:
            raise KeyboardInterrupt
        step(run, *rest)

    monkeypatch.setattr(train_default, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train("parts")
    monkeypatch.setattr(train_default, "training_step", step)
    parts = train("parts")
    assert "resuming at step 3" in capsys.readouterr().out
    first, second = checkpoint(whole), checkpoint(parts)
    for key in ("step", "best", "loss"):
        assert first[key] == second[key], key
    expected, found = tensors(first), tensors(second)
    assert {key.split("/")[1] for key in expected} == {"model", "ema", "optimiser"}
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    timeless = [
        [{k: v for k, v in row.items() if k != "minutes"} for row in log(run)] for run in (whole, parts)
    ]
    assert timeless[0] == timeless[1]


def test_a_run_that_is_done_is_left_as_it_is(train: Train) -> None:
    out = train("run", steps=3)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    train("run", steps=3)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_another_network_or_seed_is_not_trained_into_the_same_folder(train: Train) -> None:
    train("run", steps=3)
    with pytest.raises(SystemExit, match=r"checkpoint.pt was made with .*'seed': 0.*'seed': 1"):
        train("run", "--seed", "1")
    with pytest.raises(SystemExit, match=r"'tiny'.*'small'"):
        train("run", "--preset", "small")


def test_accumulated_cases_have_noise_of_their_own(
    train: Train, train_default: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    loss = train_default.FastWavelet3D.loss

    def recorded(
        self: Any, h: Any, v: Any, m: Any, generator: torch.Generator, condition: Any
    ) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        value: torch.Tensor = loss(self, h, v, m, generator, condition)
        return value

    monkeypatch.setattr(train_default.FastWavelet3D, "loss", recorded)
    train("run", "--accumulate", "2", "--seed", "3", steps=2)
    assert seeds == [3_000_000, 3_000_001, 3_000_002, 3_000_003]


def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    train: Train, train_default: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = train("run", steps=3)
    before = (out / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(
        train_default.FastWavelet3D,
        "loss",
        lambda self, *_: sum(p.sum() for p in self.parameters()) * float("nan"),
    )
    with pytest.raises(FloatingPointError, match=r"step 3; lower --peak-lr and resume from .*checkpoint.pt"):
        train("run", steps=6)
    assert (out / "checkpoint.pt").read_bytes() == before


def test_the_stream_starts_where_it_is_told(train_default: ModuleType) -> None:
    class Numbers(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, index: int) -> int:
            return index

    coming = train_default.stream(Numbers(), 7, 0)
    assert [next(coming) for _ in range(3)] == [7, 8, 9]


def test_the_learning_rate_warms_up_and_falls_to_a_fiftieth(train_default: ModuleType) -> None:
    rate = train_default.learning_rate
    assert rate(0, 0.0, 1.0) == pytest.approx(0.01)
    assert rate(99, 0.0, 1.0) == pytest.approx(1.0)
    assert rate(5000, 0.5, 1.0) == pytest.approx(0.51)
    assert rate(9999, 1.0, 1.0) == rate(9999, 1.3, 1.0) == pytest.approx(0.02)


def test_a_budget_in_minutes_counts_the_time_of_earlier_processes(train_default: ModuleType) -> None:
    run = train_default.Run(None, {}, None, used_s=90.0, started=train_default.time.monotonic())
    args = train_default.options(["--data", "d", "--out", "o", "--minutes", "3"])
    assert run.progress(args) == pytest.approx(0.5, abs=0.01)


def test_the_exported_model_verifies_and_fills(train: Train, tmp_path: Path) -> None:
    out = train("run", "--export", str(tmp_path / "model"), steps=3)
    entry = resolve_model(tmp_path / "model")
    assert verify_model(entry)[0].level == "pass"
    manifest = entry.manifest
    assert manifest is not None
    assert manifest.ema
    assert manifest.training["steps"] == 3
    assert manifest.training["dev_psnr_db"] == checkpoint(out, "best.pt")["scores"]
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "$" not in card
    assert "3 steps of one case each" in card
    scan, lesion = synthetic_head()
    result = neuromend.fill(scan, lesion, model=tmp_path / "model", threads=1)
    hole = np.asarray(lesion.dataobj) > 0
    before, after = (np.asarray(image.dataobj) for image in (scan, result.image))
    assert np.array_equal(before[~hole], after[~hole])
    assert not np.array_equal(before[hole], after[hole])
