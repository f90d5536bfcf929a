"""``neuromend train`` and ``neuromend export``."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from neuromend import cli_options as opt
from neuromend.errors import UsageError
from neuromend.terminal import Talk

_INPUT, _TRAINING, _OUTPUT = "Input", "Training", "Output"

Method = Annotated[
    str, opt._option(_INPUT, "--method", "NAME", "What to train: fastwavelet3d, unet3d, pseudo3d ...")
]
Data = Annotated[Path, opt._path_option(_INPUT, "--data", "DIR", "What `neuromend prepare` wrote.")]
Out = Annotated[
    Path,
    opt._path_option(
        _OUTPUT, "--out -o", "RUN", "The run's folder. Where a run has begun there, it goes on exactly."
    ),
]
Stage = Annotated[
    Literal["method", "autoencoder"],
    opt._option(_TRAINING, "--stage", "STAGE", "latent3d has two stages: first autoencoder, then method."),
]
Preset = Annotated[
    str,
    opt._option(
        _TRAINING, "--preset", "NAME", "Size of the network and hyper-parameters: paper, small, tiny."
    ),
]
Config = Annotated[
    Path | None,
    opt._path_option(
        _TRAINING,
        "--config",
        "FILE.toml",
        "Settings, as in the config.toml that every run leaves.",
        default="none",
    ),
]
Overrides = Annotated[
    list[str] | None,
    opt._option(
        _TRAINING, "--set", "KEY=VALUE", "One setting, the last word on it; may be repeated.", default="none"
    ),
]
Shapes = Annotated[
    list[str] | None,
    opt._option(
        _INPUT,
        "--shapes",
        "DIR[:W[:N]]",
        "Real lesion masks in MNI space as shapes of holes; W how often, leaving out every N-th; may be repeated.",
        default="random blobs",
    ),
]
InitFrom = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--init-from",
        "DIR",
        "Begin with these weights: a model folder, a run, or for latent3d the run of its autoencoder.",
        default="random weights",
    ),
]
MaxTime = Annotated[
    float | None,
    opt._option(
        _TRAINING,
        "--max-time",
        "MIN",
        "Save and stop after so many minutes; the same command goes on.",
        default="none",
    ),
]
AllowChange = Annotated[
    bool,
    opt._flag(
        _TRAINING,
        "Go on though settings, data or code have changed; recorded in run.json.",
        "--allow-config-change",
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that was --out of neuromend train.")]
ModelOut = Annotated[Path, opt._path_option(_OUTPUT, "--out -o", "DIR", "The model folder to make.")]
Name = Annotated[
    str | None,
    opt._option(_OUTPUT, "--name", "NAME", "Of the model.", default="the name of the run's folder"),
]
Licence = Annotated[str, opt._option(_OUTPUT, "--licence", "SPDX", "Of the weights: what their data allow.")]
LicenceFile = Annotated[
    Path | None,
    opt._path_option(
        _OUTPUT, "--licence-file", "FILE", "The terms in full.", default="a sentence naming the licence"
    ),
]
Modalities = Annotated[
    list[str] | None,
    opt._option(_OUTPUT, "--modality", "SUFFIX", "What was trained on; may be repeated.", default="T1w"),
]
CoverageOption = Annotated[
    Literal["skull-stripped", "whole-head", "both"],
    opt._option(_OUTPUT, "--coverage", "KIND", "What it was trained on: skull-stripped, whole-head or both."),
]
Notes = Annotated[
    Path | None,
    opt._path_option(
        _OUTPUT,
        "--notes",
        "FILE.md",
        "Added to the model card: where the scans are from, what the model is not fit for.",
        default="none",
    ),
]
Which = Annotated[
    Literal["best", "newest"],
    opt._option(_INPUT, "--checkpoint", "WHICH", "The weights that were best on dev, or the newest."),
]
PushTo = Annotated[
    str | None,
    opt._option(
        _OUTPUT, "--push-to", "OWNER/NAME", "Also upload to the Hugging Face hub.", default="no upload"
    ),
]
Public = Annotated[bool, opt._flag(_OUTPUT, "Make a new repository on the hub public.", "--public")]


def train(
    context: typer.Context,
    method: Method,
    data: Data,
    out: Out,
    stage: Stage = "method",
    preset: Preset = "small",
    config: Config = None,
    overrides: Overrides = None,
    shapes: Shapes = None,
    init_from: InitFrom = None,
    max_time: MaxTime = None,
    allow_config_change: AllowChange = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Train a method on prepared data; the same command resumes it exactly.

    RUN holds config.toml, log.jsonl, tensorboard, previews, checkpoints and a model card.
    """
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        _require_extra()
        from neuromend.train import train as run_training
        from neuromend.trainer.config import make_config

        settings = make_config(
            method, preset=preset, stage=stage, file=config, overrides=overrides or (), shapes=shapes or ()
        )
        talk.end_progress()
        result = run_training(
            settings, data, out, init_from=init_from, max_minutes=max_time,
            allow_config_change=allow_config_change, say=talk.say, show=talk.show_findings,
            command=["neuromend", *context.obj],
        )  # fmt: skip
        talk.result(f"run: {result.run}")
        talk.result_json({**dataclasses.asdict(result), "run": str(result.run)})
        if result.finished and stage == "autoencoder":
            after = f"neuromend train --method {method} --init-from '{out}' --data '{data}' --out RUN"
            talk.say(f"done: step {result.step}. Now: {after}")
        elif result.finished:
            talk.say(f"done: step {result.step}. Now: neuromend export '{out}' --out MODEL")
        else:
            talk.say(f"stopped at step {result.step} after --max-time; the same command goes on")


def export(
    context: typer.Context,
    run: Run,
    out: ModelOut,
    name: Name = None,
    checkpoint: Which = "best",
    licence: Licence = "LicenseRef-unspecified",
    licence_file: LicenceFile = None,
    modality: Modalities = None,
    coverage: CoverageOption = "skull-stripped",
    notes: Notes = None,
    push_to: PushTo = None,
    public: Public = False,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Make a model folder for `neuromend fill --model` from a training run."""
    with Talk(context.obj, json_output=as_json, quiet=quiet) as talk:
        talk.step("starting", 0, 1)
        _require_extra()
        from neuromend.trainer.export import ExportOptions, push_to_hub, read_text
        from neuromend.trainer.export import export as write_model

        options = ExportOptions(
            name=name,
            licence=licence,
            licence_text=None if licence_file is None else read_text(licence_file),
            modalities=tuple(modality or ("T1w",)),
            coverage=("skull-stripped", "whole-head") if coverage == "both" else (coverage,),
            notes="" if notes is None else read_text(notes),
            checkpoint=checkpoint,
        )
        manifest = write_model(run, out, options, overwrite=overwrite)
        talk.end_progress()
        address = push_to_hub(out, push_to, private=not public) if push_to else None
        talk.result(f"model: {out}" + (f"\nuploaded: {address}" if address else ""))
        talk.result_json(
            {"folder": str(out), "uploaded": address, "manifest": manifest.model_dump(mode="json")}
        )
        talk.say(f"neuromend fill --model {out} ...")


def _require_extra() -> None:
    """Refuse early where the packages of training are not installed (TR-21)."""
    if any(find_spec(name) is None for name in ("lightning_fabric", "tensorboard", "psutil")):
        raise UsageError(
            "TR-21",
            "training needs the packages lightning-fabric, tensorboard and psutil",
            why="they are not installed with neuromend itself: who only fills scans does not need them",
            fix="pip install 'neuromend[train]'",
        )
