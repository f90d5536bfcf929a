"""What is trained: conditions handed over, the autoencoder with its judges, every method by the same loop."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neuromend.checkpoint import load_into, load_manifest, load_weights
from neuromend.errors import MissingInputError, ModelFaultError, TemporaryError, UsageError
from neuromend.methods import METHODS
from neuromend.train import train
from neuromend.trainer.checkpoints import read_checkpoint
from neuromend.trainer.config import build_method, make_config
from neuromend.trainer.export import ExportOptions, export, push_to_hub
from neuromend.trainer.guards import stop_if_hopeless
from neuromend.trainer.presets import TRAINING
from neuromend.trainer.tasks import MethodTask, make_task

from .test_train import SETTINGS, assert_equal_runs
from .tiny_data import write_tiny_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_tiny_data(folder)
    return folder


def test_every_method_has_hyper_parameters_for_every_size_it_comes_in() -> None:
    assert {name: set(rows) for name, rows in TRAINING.items()} == {
        name: set(method.PRESETS) for name, method in METHODS.items()
    }
    for name, rows in TRAINING.items():
        for preset in rows:
            make_config(name, preset=preset)


def test_a_ready_made_condition_reaches_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    task = MethodTask(make_config("fastwavelet3d", preset="tiny"))
    assert task.condition_names == ("base", "mirror")
    names = ("healthy", "voided", "mask", "base", "mirror")
    case = {name: torch.full((1, 1, 2, 3, 4), float(number)) for number, name in enumerate(names)}
    seen: list[Any] = []
    monkeypatch.setattr(task.method, "loss", lambda *arguments, **more: seen.append(more["condition"]))
    task(case, 0, torch.Generator())
    assert torch.equal(seen[0].base, case["base"])
    assert torch.equal(seen[0].mirror, case["mirror"])


def test_other_methods_take_no_condition() -> None:
    assert MethodTask(make_config("unet3d", preset="tiny")).condition_names == ()


def autoencoder(*more: str) -> Any:
    settings = (*SETTINGS, "adversaries_from_step=2", "steps=4", *more)
    return make_config("latent3d", preset="tiny", stage="autoencoder", overrides=settings)


def test_each_side_of_the_autoencoder_gets_the_gradient_of_its_own_loss() -> None:
    task = make_task(autoencoder())
    case = {"healthy": torch.rand(1, 1, 16, 16, 16)}
    task(case, 0, torch.Generator().manual_seed(0)).backward()
    vqgan, judges = task.networks
    assert all(p.grad is None for p in judges.parameters()), "the judges learn before their time"
    assert any(p.grad is not None and bool(p.grad.any()) for p in vqgan.parameters())
    task(case, 2, torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is not None for p in judges.parameters())


def test_an_autoencoder_resumes_exactly_its_codebook_is_not_drawn_again_and_latent3d_begins_with_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken, latent = tmp_path / "whole", tmp_path / "broken", tmp_path / "latent"
    quiet = {"say": lambda line: None}
    train(autoencoder(), data, whole, **quiet)  # type: ignore[arg-type]
    for _ in range(6):
        train(autoencoder(), data, broken, max_minutes=0, **quiet)  # type: ignore[arg-type]
    assert_equal_runs(whole, broken)
    content = read_checkpoint(whole / "checkpoints" / "newest.pt")
    assert len(content["optimisers"]) == 2
    assert content["task"]["vqgan.codebook.initialised"].item() == 1
    with pytest.raises(UsageError, match="autoencoder") as caught:
        export(whole, tmp_path / "model")
    assert caught.value.code == "TR-22"
    config = make_config("latent3d", preset="tiny", overrides=(*SETTINGS, "steps=1", "dev_cases=0"))
    train(config, data, latent, init_from=whole, **quiet)  # type: ignore[arg-type]
    trained = read_checkpoint(latent / "checkpoints" / "newest.pt")["ema"]
    for name, weight in content["ema"].items():
        assert torch.equal(trained[f"vqgan.{name}"], weight)


def test_a_run_becomes_a_model_that_holds_its_average(data: Path, tmp_path: Path) -> None:
    config = make_config("unet3d", preset="tiny", overrides=SETTINGS)
    train(config, data, tmp_path / "run", say=lambda line: None)
    manifest = export(tmp_path / "run", tmp_path / "model", ExportOptions(name="mine", licence="CC0-1.0"))
    assert (manifest.name, manifest.licence, manifest.ema) == ("mine", "CC0-1.0", True)
    assert manifest.trained_range.spacing_mm == (2.0, 2.0)
    assert manifest.training["steps"] == 6
    again = load_manifest(tmp_path / "model")
    method = build_method(config)
    load_into(method, load_weights(tmp_path / "model", again))
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")["ema"]
    for name, weight in method.state_dict().items():
        torch.testing.assert_close(weight, best[name], rtol=1e-2, atol=1e-3)  # stored as bfloat16
    started = make_task(config)
    from neuromend.trainer.beginning import initialise

    initialise(started, config, tmp_path / "model")
    assert torch.equal(next(started.parameters()), next(method.parameters()))


def test_what_is_no_run_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no run of") as caught:
        export(tmp_path, tmp_path / "model")
    assert (caught.value.code, caught.value.exit_status) == ("TR-22", 66)


def test_a_model_is_pushed_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Hub:
        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append((repo, options))

        def upload_folder(self, **options: Any) -> str:
            calls.append(options)
            return "there"

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", SimpleNamespace(HfApi=Hub))
    assert push_to_hub(tmp_path, "me/model") == "there"
    assert calls[0] == ("me/model", {"private": True, "exist_ok": True})
    assert calls[1]["folder_path"] == str(tmp_path)


def test_a_hub_that_refuses_is_an_error_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        def create_repo(self, repo: str, **options: Any) -> None:
            raise OSError("401 Unauthorized")

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", SimpleNamespace(HfApi=Hub))
    with pytest.raises(TemporaryError, match="401") as caught:
        push_to_hub(tmp_path, "me/model")
    assert (caught.value.code, caught.value.exit_status) == ("TR-23", 75)


def test_without_its_client_the_hub_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="huggingface_hub") as caught:
        push_to_hub(tmp_path, "me/model")
    assert "neuromend[hub]" in caught.value.fix


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense=1"], "is not a setting"),
        (["steps"], "has no '='"),
        (["training.nonsense=1"], "training.nonsense"),
        (["steps=0"], "training.steps"),
        (["peak_lr=fast"], "training.peak_lr"),
        (["model.nonsense=1"], "model.nonsense"),
    ],
)
def test_settings_that_mean_nothing_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config("unet3d", preset="tiny", overrides=words)
    assert (caught.value.code, caught.value.exit_status) == ("TR-20", 2)
    assert said in caught.value.what


def test_a_key_of_two_sections_is_answered_with_both_names_in_full() -> None:
    with pytest.raises(UsageError, match="'crop' is in model and cases") as caught:
        make_config("fastwdm3d", preset="tiny", overrides=["crop=[96,96,96]"])
    assert "--set 'model.crop=[96,96,96]' or --set 'cases.crop=[96,96,96]'" in caught.value.fix
    assert "training." not in caught.value.fix
    for home in ("model", "cases"):
        config = make_config("fastwdm3d", preset="tiny", overrides=[f"{home}.crop=[96,96,96]"])
        assert getattr(config, home)["crop"] == [96, 96, 96]


def test_a_mistyped_key_is_answered_with_those_like_it() -> None:
    with pytest.raises(UsageError, match="'peek_lr' is not a setting") as caught:
        make_config("unet3d", preset="tiny", overrides=["peek_lr=0.1"])
    assert "peak_lr" in caught.value.fix
    assert "training." not in caught.value.fix


def test_minutes_take_the_place_of_a_presets_steps() -> None:
    config = make_config("unet3d", preset="tiny", overrides=["minutes=5"])
    assert (config.training.steps, config.training.minutes) == (None, 5)


def test_a_scale_of_fp16_losses_below_one_ends_the_run() -> None:
    progress = SimpleNamespace(step=7, in_a_row=0)
    state: Any = SimpleNamespace(progress=progress, scaler=SimpleNamespace(get_scale=lambda: 0.5))
    training = make_config("unet3d", preset="tiny").training
    with pytest.raises(ModelFaultError, match=r"fell to 0\.5") as caught:
        stop_if_hopeless(state, training, Path("run"), loss=1.0, norm=float("inf"))
    assert (caught.value.code, caught.value.exit_status) == ("TR-02", 70)
