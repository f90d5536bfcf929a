"""From a run to a model folder that ``neuromend fill --model`` takes, and to the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuromend.checkpoint import save_model
from neuromend.data.atomic import write_atomically
from neuromend.errors import MissingInputError, TemporaryError, UsageError
from neuromend.manifest import CARD_NAME, Manifest, TrainedRange
from neuromend.trainer.beginning import RUN_FILE, read_run

Coverage = Literal["skull-stripped", "whole-head"]

CARD = """# {name}

Fills a lesion mask in a brain scan with plausible healthy tissue. **Synthetic tissue: not measured, not for
diagnosis.**

| | |
|---|---|
| method | `{method}`, preset `{preset}` ({parameters} parameters) |
| weights | {weights} |
| licence | {licence}, see `LICENSE-WEIGHTS.md` |

## Training

- Data: {scans} scans of {subjects} subjects (prepared data with SHA-256 `{data}`), voxels of {spacing} mm.
- Budget: {steps} steps of {cases} cases, {minutes} minutes on {hardware}; {skipped} steps skipped, {left_out} cases
  left out. Seed {seed}, {precision}.
- neuromend {neuromend}, commit {commit}, PyTorch {torch}.
- `neuromend train --method {method} --preset {preset}` with these settings:

```toml
{config}```

## What it reached on dev

{scores}

## Limits

- Fit for scans like those it was trained on: {modalities}, {coverage}, voxels of {spacing} mm.
- The dev scans above are of other subjects, but of the same sources as the training scans; expect less elsewhere.
{notes}"""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What a run does not know about itself.

    Attributes:
        name: of the model; None for that of the run's folder.
        licence: of the weights, as an SPDX name. licence_text: the terms; None for one sentence that names it.
        modalities: BIDS suffixes that it was trained on. coverage: what the scans showed.
        notes: Markdown, added to the card: where the scans are from, what the model is not fit for.
        checkpoint: the best on dev, or the newest.
    """

    name: str | None = None
    licence: str = "LicenseRef-unspecified"
    licence_text: str | None = None
    modalities: tuple[str, ...] = ("T1w",)
    coverage: tuple[Coverage, ...] = ("skull-stripped",)
    notes: str = ""
    checkpoint: Literal["best", "newest"] = "best"


def export(
    run: Path, out: Path, options: ExportOptions = ExportOptions(), *, overwrite: bool = False
) -> Manifest:
    """Write the averaged weights of a run as a model folder.

    Raises:
        MissingInputError: TR-22, no run is there.
        UsageError: TR-22, it is the run of an autoencoder.
        CheckpointError: TR-03, its checkpoint is damaged. OutputError: RT-04, ``out`` exists.
    """
    content, facts = _read(run, options.checkpoint)
    config = content["config"]
    if config["stage"] == "autoencoder":
        raise UsageError(
            "TR-22",
            f"{run} is the run of an autoencoder, which fills nothing by itself",
            why="latent3d needs the diffusion in its latent space too",
            fix=f"neuromend train --method latent3d --init-from '{run}' --data DATA --out RUN",
        )
    summary = training_summary(content, facts)
    name = options.name or run.resolve().name
    low, high = facts["data"]["spacing_mm"] or (1.0, 1.0)
    return save_model(
        out,
        content["ema"],
        name=name,
        description=f"{config['method']} ({config['preset']}), {summary['steps']} steps, by neuromend train",
        method=config["method"],
        config=config["model"],
        trained_range=TrainedRange(
            modalities=options.modalities, spacing_mm=(low, high), coverage=options.coverage
        ),
        licence=options.licence,
        licence_text=options.licence_text or f"The weights are licensed {options.licence}.\n",
        card=card(name, content, facts, options),
        training=summary,
        ema=config["training"]["ema_decay"] > 0,
        overwrite=overwrite,
    )


def training_summary(content: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest tells about the training: budget, data, hardware, scores."""
    progress, start = content["progress"], facts["starts"][-1]
    gpu = f"{start['processes']} x {start['gpu']}" if start["gpu"] else f"{start['threads']} CPU threads"
    return {
        "steps": progress["step"],
        "minutes": round(progress["seconds"] / 60, 1),
        "seed": content["config"]["training"]["seed"],
        "hardware": gpu,
        "data_sha256": facts["data"]["digest"],
        "subjects": facts["data"]["subjects"],
        "dev": content["progress"]["scores"],
        "changed_on_the_way": [change for begun in facts["starts"] for change in begun["changes"]],
    }


def card(name: str, content: Mapping[str, Any], facts: Mapping[str, Any], options: ExportOptions) -> str:
    """The text of the model card."""
    config, progress, start, data = content["config"], content["progress"], facts["starts"][-1], facts["data"]
    training = config["training"]
    summary = training_summary(content, facts)
    spacing = "{:g} to {:g}".format(*(data["spacing_mm"] or (float("nan"),) * 2))
    return CARD.format(
        name=name,
        method=config["method"],
        preset=config["preset"],
        parameters=f"{sum(v.numel() for v in content['ema'].values() if v.is_floating_point()):,}",
        weights="exponential moving average over training" if training["ema_decay"] else "of the last step",
        licence=options.licence,
        scans=data["scans"]["train"],
        subjects=data["subjects"]["train"],
        data=data["digest"][:16],
        spacing=spacing,
        steps=progress["step"],
        cases=training["batch"] * training["accumulate"] * start["processes"],
        minutes=summary["minutes"],
        hardware=summary["hardware"],
        skipped=progress["skipped"],
        left_out=progress["left_out"],
        seed=training["seed"],
        precision=training["precision"],
        neuromend=start["neuromend"],
        commit=start["commit"],
        torch=start["packages"].get("torch"),
        config="".join(
            f"{key} = {json.dumps(value)}\n" for key, value in training.items() if value is not None
        ),
        scores=_scores_table(content["progress"]["scores"]),
        modalities=", ".join(options.modalities),
        coverage=" and ".join(options.coverage),
        notes=f"\n{options.notes.strip()}\n" if options.notes.strip() else "",
    )


def write_card(run: Path, content: Mapping[str, Any]) -> None:
    """Write ``MODEL_CARD.md`` into the run's folder, for what its best checkpoint would be exported as.

    Raises:
        StorageError, OutputPermissionError: RT-02, RT-03, RT-07.
    """
    facts = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    text = card(run.resolve().name, content, facts, ExportOptions())
    write_atomically(run / CARD_NAME, text.encode())


def read_text(path: Path) -> str:
    """A text that the user hands over.

    Raises:
        MissingInputError: IN-38, it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise MissingInputError(
            "IN-38",
            f"the text cannot be read ({error})",
            why="it was to go into the model folder",
            fix="check the path; a text file in UTF-8 is expected",
            path=path,
        ) from error


def push_to_hub(folder: Path, repo: str, *, private: bool = True) -> str:
    """Upload a model folder; returns its address. The user must be logged in (``hf auth login``).

    Raises:
        UsageError: TR-23, huggingface_hub is not installed. TemporaryError: TR-23, the hub refused or was not reached.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UsageError(
            "TR-23",
            "--push-to needs the package huggingface_hub",
            why=f"the model was written to {folder}, but not uploaded",
            fix="pip install 'neuromend[hub]'",
        ) from None
    hub = HfApi()
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repo, folder_path=str(folder), commit_message="Upload by neuromend export"
        )
    except Exception as error:  # the client's errors are many, and all mean that it is not there
        raise TemporaryError(
            "TR-23",
            f"the upload to {repo} failed ({str(error).splitlines()[0]})",
            why=f"the model was written to {folder}, but not uploaded",
            fix="log in with `hf auth login`, check the name OWNER/NAME, and run the same command again",
        ) from error
    return str(done)


def _read(run: Path, which: Literal["best", "newest"]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        facts = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingInputError(
            "TR-22",
            f"no run of `neuromend train` is here ({RUN_FILE} cannot be read)",
            why="a model is made of a run's checkpoint and of what the run knows about itself",
            fix="give the folder that was --out of neuromend train",
            path=run,
        ) from error
    return read_run(run, which), dict(facts)


def _scores_table(scores: Mapping[str, float]) -> str:
    if not scores:
        return "Not scored: the data have no dev scans."
    names: Sequence[str] = [name.removeprefix("dev/") for name in scores if name.startswith("dev/")]
    rows = [
        f"| {name} | {scores[f'dev/{name}']:.4g} | {scores.get(f'dev_harmonic/{name}', float('nan')):.4g} |"
        for name in names
    ]
    return "\n".join(["| score | this model | harmonic fill |", "|---|---|---|", *rows])
