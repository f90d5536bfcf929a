"""Published weights become model folders; everything that does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuromend.checkpoint import load_manifest, load_weights
from neuromend.errors import CheckpointError, MissingInputError, OutputError, UsageError
from neuromend.methods import METHODS
from neuromend.models import load_method, resolve_model
from neuromend.published import PUBLISHED, import_weights
from neuromend.trainer.beginning import initialise
from neuromend.trainer.config import make_config
from neuromend.trainer.tasks import MethodTask, make_task


def authors_state(method: str = "pseudo3d") -> dict[str, Tensor]:
    """Weights with published names, at the tiny size."""
    torch.manual_seed(2)
    build: Any = METHODS[method]
    state = build(build.PRESETS["tiny"]).state_dict()
    prefix, added = PUBLISHED[method].prefix, PUBLISHED[method].ones
    return {
        key.removeprefix(prefix): torch.randn(value.shape) for key, value in state.items() if key not in added
    }


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("method", [name for name in PUBLISHED if name in METHODS])
def test_a_bare_state_dict_becomes_a_model_that_computes_the_same(method: str, tmp_path: Path) -> None:
    state = authors_state(method)
    file = saved(state, tmp_path / "savedmodel000010.pt")
    manifest = import_weights(method, file, tmp_path / "model", preset="tiny")
    assert (manifest.method, manifest.ema, manifest.licence) == (method, False, PUBLISHED[method].licence)
    module = load_method(resolve_model(tmp_path / "model"), torch.device("cpu"))
    ours = module.state_dict()
    assert all(torch.equal(ours[PUBLISHED[method].prefix + key], value) for key, value in state.items())
    licence = (tmp_path / "model" / "LICENSE-WEIGHTS.md").read_text()
    assert "not neuromend's" in licence
    assert str(manifest.training["source_sha256"]) in licence


def test_what_the_latent_method_does_without_is_left_out(tmp_path: Path) -> None:
    state = authors_state("latent3d") | {"betas": torch.ones(3), "vqgan.perceptual_model.lin0": torch.ones(1)}
    file = saved({"step": 9, "model": {}, "ema": state}, tmp_path / "model-325.pt")
    assert import_weights("latent3d", file, tmp_path / "model", preset="tiny").ema
    module: Any = load_method(resolve_model(tmp_path / "model"), torch.device("cpu"))
    assert bool(module.vqgan.codebook.initialised)


def refused(state: dict[str, Tensor], tmp_path: Path, method: str = "pseudo3d") -> CheckpointError:
    file = saved(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError) as caught:
        import_weights(method, file, tmp_path / "model", preset="tiny")
    assert caught.value.exit_status == 78
    assert not (tmp_path / "model").exists()
    return caught.value


def test_a_missing_and_an_extra_tensor_are_named(tmp_path: Path) -> None:
    state = authors_state()
    state["surplus.weight"] = state.pop("out.2.bias")
    error = refused(state, tmp_path)
    assert error.code == "MO-07"
    assert "missing tensors: out.2.bias; unexpected tensors: surplus.weight" in str(error)


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    state = authors_state()
    state["out.2.bias"] = torch.zeros(5)
    error = refused(state, tmp_path)
    assert error.code == "MO-06"
    assert "tensor 'out.2.bias' has shape (5,), expected (2,)" in str(error)


@pytest.mark.parametrize(("given", "meant"), [("slice2d", "pseudo3d"), ("slice2d", "sequential2d")])
def test_weights_of_another_method_are_recognised(given: str, meant: str, tmp_path: Path) -> None:
    error = refused(authors_state(meant), tmp_path, method=given)
    assert error.fix == f"--method {meant}"


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = authors_state()
    state["out.2.bias"][0] = torch.nan
    assert refused(state, tmp_path).code == "MO-05"


def test_a_file_method_or_preset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"absent\.pt") as missing:
        import_weights("pseudo3d", tmp_path / "absent.pt", tmp_path / "model")
    assert (missing.value.code, missing.value.exit_status) == ("IN-38", 66)
    with pytest.raises(UsageError, match="--method is 'gan', expected one of slice2d"):
        import_weights("gan", tmp_path / "absent.pt", tmp_path / "model")
    with pytest.raises(UsageError, match="--preset is 'huge', expected one of paper"):
        import_weights("pseudo3d", tmp_path / "absent.pt", tmp_path / "model", preset="huge")


def test_a_model_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    file = saved(authors_state(), tmp_path / "weights.pt")
    import_weights("pseudo3d", file, tmp_path / "model", preset="tiny")
    with pytest.raises(OutputError, match="the folder exists"):
        import_weights("pseudo3d", file, tmp_path / "model", preset="tiny")
    import_weights("pseudo3d", file, tmp_path / "model", preset="tiny", overwrite=True)


def latent_files(tmp_path: Path, *, with_autoencoder: bool = True) -> tuple[Path, Path, dict[str, Tensor]]:
    """The two files of the latent method, and the tensors that both hold."""
    state = authors_state("latent3d")
    coder = {key[len("vqgan.") :]: value for key, value in state.items() if key.startswith("vqgan.")}
    judges = {"image_discriminator.model0.0.bias": torch.ones(2), "perceptual_model.lin0": torch.ones(1)}
    settings = {"state_dict": coder | judges, "epoch": 4, "optimizer_states": []}
    ddpm = {key: value for key, value in state.items() if with_autoencoder or not key.startswith("vqgan.")}
    return (
        saved({"step": 9, "model": {}, "ema": ddpm | {"betas": torch.ones(3)}}, tmp_path / "model-ddpm.pt"),
        saved(settings, tmp_path / "model-vqgan.ckpt"),
        state,
    )


@pytest.mark.parametrize("with_autoencoder", [True, False])
def test_the_autoencoder_can_come_from_its_own_file(with_autoencoder: bool, tmp_path: Path) -> None:
    latent, coder, state = latent_files(tmp_path, with_autoencoder=with_autoencoder)
    manifest = import_weights("latent3d", latent, tmp_path / "model", preset="tiny", autoencoder=coder)
    ours = load_weights(tmp_path / "model", manifest)
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    assert manifest.training["autoencoder_file"] == "model-vqgan.ckpt"
    licence = (tmp_path / "model" / "LICENSE-WEIGHTS.md").read_text()
    assert all(str(manifest.training[f"{part}_sha256"]) in licence for part in ("source", "autoencoder"))


def test_the_autoencoder_that_is_given_takes_the_place_of_the_one_in_the_file(tmp_path: Path) -> None:
    latent, _, state = latent_files(tmp_path)
    other = {key[len("vqgan.") :]: 2 * value for key, value in state.items() if key.startswith("vqgan.")}
    file = saved({"state_dict": other}, tmp_path / "other.ckpt")
    manifest = import_weights("latent3d", latent, tmp_path / "model", preset="tiny", autoencoder=file)
    ours = load_weights(tmp_path / "model", manifest)
    assert torch.equal(ours["vqgan.codebook.embeddings"], 2 * state["vqgan.codebook.embeddings"])
    assert torch.equal(ours["denoise_fn.time_mlp.1.weight"], state["denoise_fn.time_mlp.1.weight"])


def test_a_training_begins_with_the_autoencoder_alone(tmp_path: Path) -> None:
    _, coder, state = latent_files(tmp_path)
    folder = tmp_path / "coder"
    manifest = import_weights("latent3d", coder, folder, preset="tiny", stage="autoencoder")
    assert manifest == load_manifest(folder)
    assert manifest.name == "latent3d-autoencoder-published"
    for stage in ("method", "autoencoder"):
        config: Any = make_config("latent3d", preset="tiny", stage=stage)
        task = make_task(config)
        initialise(task, config, folder)
        network = task.method.vqgan if isinstance(task, MethodTask) else task.averaged
        begun = network.state_dict()
        assert bool(begun["codebook.initialised"]), "training would draw the codes anew"
        assert all(
            torch.equal(begun[key[len("vqgan.") :]], value)
            for key, value in state.items()
            if key.startswith("vqgan.")
        )
    other = make_config("unet3d", preset="tiny")
    with pytest.raises(
        UsageError, match="a model of latent3d-autoencoder, but this run trains unet3d"
    ) as caught:
        initialise(make_task(other), other, folder)
    assert (caught.value.code, caught.value.exit_status) == ("TR-20", 2)


def test_the_autoencoder_alone_fills_nothing(tmp_path: Path) -> None:
    _, coder, _ = latent_files(tmp_path)
    import_weights("latent3d", coder, tmp_path / "coder", preset="tiny", stage="autoencoder")
    with pytest.raises(CheckpointError, match="autoencoder of latent3d alone") as caught:
        load_method(resolve_model(tmp_path / "coder"), torch.device("cpu"))
    assert (caught.value.code, caught.value.exit_status) == ("MO-06", 78)


def test_either_file_in_the_place_of_the_other_is_recognised(tmp_path: Path) -> None:
    latent, coder, _ = latent_files(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"missing tensors: vqgan\.|missing tensors: denoise_fn\."
    ) as caught:
        import_weights("latent3d", coder, tmp_path / "model", preset="tiny")
    assert "this is the autoencoder: LATENT.pt --autoencoder model-vqgan.ckpt" in str(caught.value.fix)
    with pytest.raises(CheckpointError) as caught:
        import_weights("latent3d", latent, tmp_path / "model", preset="tiny", stage="autoencoder")
    assert (caught.value.code, caught.value.fix) == ("MO-07", "--method latent3d")
    assert "missing tensors: encoder.conv_first.conv.weight" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"model-ddpm\.pt: missing tensors: encoder\."):
        import_weights("latent3d", latent, tmp_path / "model", preset="tiny", autoencoder=latent)


def test_a_latent_file_without_its_autoencoder_says_which_option_adds_it(tmp_path: Path) -> None:
    latent, _, _ = latent_files(tmp_path, with_autoencoder=False)
    with pytest.raises(CheckpointError, match=r"missing tensors: vqgan\.encoder\.") as caught:
        import_weights("latent3d", latent, tmp_path / "model", preset="tiny")
    assert (caught.value.code, caught.value.exit_status) == ("MO-07", 78)
    assert caught.value.fix == "add the file of the autoencoder: --autoencoder VQGAN.ckpt"


def test_a_tensor_of_the_autoencoder_that_does_not_fit_is_named_with_its_file(tmp_path: Path) -> None:
    latent, _, state = latent_files(tmp_path)
    coder = {key[len("vqgan.") :]: value for key, value in state.items() if key.startswith("vqgan.")}
    coder["codebook.N"] = torch.zeros(5)
    file = saved({"state_dict": coder}, tmp_path / "bent.ckpt")
    with pytest.raises(CheckpointError, match=r"bent\.ckpt: tensor 'codebook\.N' has shape \(5,\)") as caught:
        import_weights("latent3d", latent, tmp_path / "model", preset="tiny", autoencoder=file)
    assert caught.value.code == "MO-06"


@pytest.mark.parametrize(
    ("method", "more", "found"),
    [
        ("slice2d", {"stage": "autoencoder"}, "slice2d has no autoencoder"),
        ("slice2d", {"autoencoder": "a.ckpt"}, "slice2d has no autoencoder"),
        ("latent3d", {"stage": "autoencoder", "autoencoder": "a.ckpt"}, "given together"),
    ],
)
def test_options_of_the_autoencoder_that_mean_nothing_are_refused(
    method: str, more: dict[str, Any], found: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=found) as caught:
        import_weights(method, tmp_path / "absent.pt", tmp_path / "model", **more)
    assert (caught.value.code, caught.value.exit_status) == ("MO-16", 2)


def test_a_model_samples_as_it_is_told(tmp_path: Path) -> None:
    file = saved(authors_state("wavelet3d"), tmp_path / "weights.pt")
    manifest = import_weights("wavelet3d", file, tmp_path / "model", preset="tiny", sampler="published")
    assert manifest.config["sampler"] == "published"
    assert manifest.name == "wavelet3d-published-sampler-published", "one name must mean one model"
    module: Any = load_method(resolve_model(tmp_path / "model"), torch.device("cpu"))
    assert (module.config.sampler, module.default_steps) == ("published", 1000)


@pytest.mark.parametrize(("method", "known"), [("slice2d", "ddim, dpmpp, ddpm"), ("fastwdm3d", "ddpm")])
def test_a_sampler_that_a_method_does_not_have_is_refused(method: str, known: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"--sampler is 'euler', expected one of {known}, published"
    ) as caught:
        import_weights(method, tmp_path / "absent.pt", tmp_path / "model", sampler="euler")
    assert (caught.value.code, caught.value.exit_status) == ("MO-16", 2)


def test_a_file_of_the_two_networks_that_are_not_here_is_recognised(tmp_path: Path) -> None:
    state = {"module.all_modules.0.weight": torch.zeros(2, 3), "module.z_transform.0.bias": torch.zeros(2)}
    file = saved(state, tmp_path / "netG_5.pth")
    with pytest.raises(CheckpointError, match=r"unexpected tensors: all_modules\.0\.weight") as caught:
        import_weights("fastwdm3d", file, tmp_path / "model", preset="tiny")
    assert (caught.value.code, caught.value.exit_status) == ("MO-07", 78)
    assert str(caught.value.fix).startswith("this is GO3D or WDDGAN3D")
