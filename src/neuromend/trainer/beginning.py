"""The beginning of a run, or of its next part: networks, data, the run's folder, and whether it may go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor

from neuromend.checkpoint import load_into, load_manifest, load_weights
from neuromend.corpus.cache import CaseCache
from neuromend.corpus.drawing import TrainingCases
from neuromend.corpus.recipe import Recipe
from neuromend.corpus.shapes import ShapeBook, ShapeSource, load_shapes
from neuromend.data.atomic import storage_error, write_atomically
from neuromend.errors import UsageError
from neuromend.findings import Finding
from neuromend.manifest import AUTOENCODER
from neuromend.provenance import run_record
from neuromend.trainer.checkpoints import BEST, NEWEST, Checkpoints, read_checkpoint
from neuromend.trainer.config import RunConfig
from neuromend.trainer.devices import scaler_of, share_average
from neuromend.trainer.feeding import ENDLESS
from neuromend.trainer.identity import differences, identity, refuse_change
from neuromend.trainer.journal import Journal, NoJournal
from neuromend.trainer.state import RunState, average_of, make_optimiser
from neuromend.trainer.tasks import AutoencoderTask, MethodTask, make_task

CONFIG_FILE, RUN_FILE, CHECKPOINTS, PREVIEWS = "config.toml", "run.json", "checkpoints", "previews"
DEV_SEED = 12345
"""Of the fixed dev cases: the same ones in every run on the same data."""


def begin(
    config: RunConfig,
    cache: CaseCache,
    out: Path,
    fabric: Fabric,
    *,
    init_from: Path | None,
    allow_change: bool,
    command: Sequence[str],
) -> tuple[RunState, _FabricModule, Checkpoints, Journal, dict[str, Any], list[Finding]]:
    """Make or restore the state of a run.

    Returns:
        The state, the wrapped network, the checkpoints, the journal, the identity, and what was noticed.

    Raises:
        CheckpointError: TR-05, TR-03, MO-*. StorageError, OutputPermissionError: RT-*.
    """
    torch.manual_seed(config.training.seed)
    task = make_task(config)
    if init_from is not None:
        initialise(task, config, init_from)
    ours = identity(config, cache.digest, fabric.world_size)
    checkpoints = Checkpoints(out / CHECKPOINTS)
    found = checkpoints.latest()
    changes = differences(found[0]["identity"], ours) if found else []
    if not allow_change:
        refuse_change(changes, out)
    state, model = wrap(task, config, fabric)
    findings: list[Finding] = []
    if found:
        state.restore(found[0])
        findings = [*found[1], Finding("TR-04", "note", f"The run goes on from step {state.progress.step}.")]
        findings += [Finding("TR-05", "warning", f"Changed on the way: {change}") for change in changes]
    journal: Journal = NoJournal()
    if fabric.is_global_zero:
        try:
            (out / PREVIEWS).mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(out / PREVIEWS, error) from error
        record_start(config, cache, out, fabric, step=state.progress.step, changes=changes, command=command)
        progress = state.progress
        journal = Journal(out, config.running.trackers, step=progress.step, log_bytes=progress.log_bytes)
    return state, model, checkpoints, journal, ours, findings


def wrap(
    task: MethodTask | AutoencoderTask, config: RunConfig, fabric: Fabric
) -> tuple[RunState, _FabricModule]:
    """Bring a task to its device and make what steps it."""
    average = average_of(task.averaged).to(fabric.device)
    model = fabric.setup_module(task)
    if config.running.strategy == "fsdp":
        average = share_average(average, fabric)
    optimisers = [make_optimiser(network, config.training) for network in task.networks]
    return RunState(task, average, optimisers, scaler_of(fabric)), model


def initialise(task: MethodTask | AutoencoderTask, config: RunConfig, source: Path) -> None:
    """Begin with given weights: a model's or a run's of the same method, or, for latent3d, an autoencoder's.

    Raises:
        CheckpointError: MO-*, the model does not fit; TR-03, the run has no sound checkpoint.
        UsageError: TR-20, the weights are another method's.
    """
    if not (source / CHECKPOINTS).is_dir():
        manifest = load_manifest(source)
        network = task.averaged
        if manifest.method == AUTOENCODER and config.method == "latent3d":
            network = task.method.vqgan if isinstance(task, MethodTask) else network
        elif manifest.method != config.method or config.stage != "method":
            raise _wrong_source(source, f"a model of {manifest.method}", config)
        load_into(network, load_weights(source, manifest), path=source)
        return
    content = read_run(source)
    made_with = content["config"]
    if made_with["method"] != config.method:
        raise _wrong_source(source, f"a run of {made_with['method']}", config)
    if made_with["stage"] == "autoencoder" and isinstance(task, MethodTask):
        load_into(task.method.vqgan, content["ema"], path=source)
    elif made_with["stage"] != config.stage:
        raise _wrong_source(source, f"a run of stage {made_with['stage']}", config)
    else:
        load_into(task.averaged, content["ema"], path=source)


def read_run(run: Path, which: str = "best") -> dict[str, Any]:
    """The checkpoint of a run that was best on dev, or its newest one.

    Raises:
        CheckpointError: TR-03, it is not there or damaged.
    """
    name = BEST if which == "best" and (run / CHECKPOINTS / BEST).exists() else NEWEST
    return read_checkpoint(run / CHECKPOINTS / name)


def training_cases(config: RunConfig, cache: CaseCache, task: MethodTask | AutoencoderTask) -> TrainingCases:
    """The endless row of training cases.

    Raises:
        InputError: TR-33, no scans to train on. UsageError: TR-31, a recipe that means nothing.
    """
    return TrainingCases(
        cache,
        "train",
        seed=config.training.seed,
        epoch_length=ENDLESS,
        recipe=Recipe.from_table(config.cases),
        multiple=task.multiple,
        condition=bool(task.condition_names),
        shapes=shapes_of(config),
    )


def dev_cases(
    config: RunConfig, cache: CaseCache, task: MethodTask | AutoencoderTask
) -> list[dict[str, Tensor]]:
    """The fixed dev cases; none where the data have no scans in the split ``dev``."""
    count = config.running.dev_cases
    if not count or not any(row.kind == "scan" for row in cache.rows("dev")):
        return []
    cases = TrainingCases(
        cache,
        "dev",
        seed=DEV_SEED,
        epoch_length=count,
        recipe=Recipe.from_table(config.cases),
        multiple=task.multiple,
        shapes=shapes_of(config),
        plain=True,
    )
    return [cases[index] for index in range(count)]


def shapes_of(config: RunConfig) -> ShapeBook | None:
    """The lesion shapes that a run draws holes from, read once for training and dev.

    Raises:
        UsageError: TR-20, a word of another form than ``FOLDER:WEIGHT:EVERY``.
        MissingInputError, InputError: TR-32, a folder is missing, empty or has a damaged file.
    """
    return _read_shapes(config.shapes) if config.shapes else None


@lru_cache(maxsize=1)
def _read_shapes(words: tuple[str, ...]) -> ShapeBook:
    sources = []
    for word in words:
        folder, *numbers = word.split(":")
        try:
            weight, every = (*numbers, *("1", "0")[len(numbers) :])
            sources.append(ShapeSource(Path(folder), float(weight), int(every)))
        except ValueError:
            raise UsageError(
                "TR-20",
                f"--shapes is '{word}', expected FOLDER, FOLDER:WEIGHT or FOLDER:WEIGHT:EVERY",
                why="the folder's masks are the shapes of holes",
                fix=f"--shapes {folder}:1:4",
            ) from None
    return load_shapes(*sources)


def record_start(
    config: RunConfig,
    cache: CaseCache,
    out: Path,
    fabric: Fabric,
    *,
    step: int,
    changes: list[str],
    command: Sequence[str],
) -> None:
    """Write config.toml, and add this start to run.json: when, from where, on what, by which code, what changed."""
    rows = [row for row in cache.rows("train") if row.kind == "scan"]
    spacings = [length for row in rows for length in row.spacing_mm]
    record = run_record(
        device=str(fabric.device), threads=torch.get_num_threads(), started=datetime.now(UTC), command=command
    )
    gpu = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else None
    start = {
        "step": step,
        "processes": fabric.world_size,
        "gpu": gpu,
        "changes": changes,
        **record.model_dump(mode="json", exclude={"ended"}),
    }
    try:
        history = json.loads((out / RUN_FILE).read_text())["starts"]
    except (OSError, ValueError, KeyError):
        history = []
    content = {
        "data": {
            "digest": cache.digest,
            "subjects": {
                split: len({row.subject for row in cache.rows(split)}) for split in ("train", "dev")
            },
            "scans": {split: len(cache.rows(split)) for split in ("train", "dev")},
            "spacing_mm": [min(spacings), max(spacings)] if spacings else None,
        },
        "starts": [*history, start],
    }
    write_atomically(out / CONFIG_FILE, config.to_toml().encode())
    write_atomically(out / RUN_FILE, (json.dumps(content, indent=2) + "\n").encode())


def _wrong_source(source: Path, found: str, config: RunConfig) -> UsageError:
    return UsageError(
        "TR-20",
        f"--init-from {source} is {found}, but this run trains {config.method} (stage {config.stage})",
        why="weights of another network mean nothing here",
        fix="give a model or a run of the same method, or leave --init-from out",
    )
