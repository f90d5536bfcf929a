"""The settings of a training run: preset, then the TOML file, then ``--set`` (the last word counts)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neuromend.corpus.recipe import Recipe
from neuromend.errors import UsageError
from neuromend.methods import METHODS
from neuromend.trainer.presets import AUTOENCODER, CASES, TRAINING

Stage = Literal["method", "autoencoder"]
Precision = Literal["fp32", "bf16", "fp16"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Training(_Section):
    """What decides the weights. The budget is ``steps`` or ``minutes`` of training time, whichever is given.

    Attributes:
        batch: cases at once on each device. accumulate: such batches an optimiser step, one after the other.
        schedule: of the learning rate after the warm-up: a cosine down to ``final_share`` of the peak, or constant.
        clip: largest norm of the gradient of one optimiser; 0 does not clip.
        ema_decay: of the moving average that is sampled and exported; 0 keeps the weights themselves. It starts
            smaller: min(ema_decay, (1 + step) / (20 + step)).
        precision: of the network's arithmetic; weights, averages and losses are float32.
        adversaries_from_step: of the autoencoder: when the discriminators are heard.
        give_up_after: so many steps in a row that are not finite end the run.
    """

    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    seed: int = Field(0, ge=0)
    batch: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)
    optimiser: Literal["adamw", "adam"] = "adamw"
    peak_lr: float = Field(3e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up_steps: int = Field(100, ge=0)
    final_share: float = Field(0.02, ge=0, le=1)
    clip: float = Field(1.0, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    precision: Precision = "bf16"
    adversaries_from_step: int = Field(30_000, ge=0)
    give_up_after: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _one_budget(self) -> Training:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either steps or minutes as the budget")
        return self


class Running(_Section):
    """How and where the work is done; may change when a run is resumed.

    Attributes:
        device: auto, cpu, cuda or mps. devices: processes on this node, 0 for what torchrun or SLURM says, else
            all GPUs or one CPU process. nodes: machines. strategy: how several processes share the work:
            copies of the network (ddp) or pieces of it (fsdp).
        workers: processes that make cases, for each device. threads: of the network on a CPU; 0 for all.
        log_every, save_every, score_every: steps. keep_every: steps between checkpoints that stay; 0 for none.
        dev_cases: fixed dev cases that are scored. dev_steps: sampling steps for them; 0 for the expected fill,
            or where the method knows none, for a quarter of its usual steps. best_by: the score that decides.
        previews: dev cases drawn.
        watchdog_minutes: without a step for so long, the process ends (exit status 75); 0 waits for ever.
        trackers: who is told besides log.jsonl.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(0, ge=0)
    nodes: int = Field(1, ge=1)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    workers: int = Field(1, ge=0)
    threads: int = Field(0, ge=0)
    log_every: int = Field(50, ge=1)
    save_every: int = Field(500, ge=1)
    score_every: int = Field(1000, ge=1)
    keep_every: int = Field(0, ge=0)
    dev_cases: int = Field(8, ge=0)
    dev_steps: int = Field(0, ge=0)
    best_by: Literal["psnr_01", "ssim", "mse", "mae"] = "psnr_01"
    previews: int = Field(3, ge=0)
    watchdog_minutes: float = Field(30.0, ge=0)
    trackers: tuple[Literal["tensorboard", "csv"], ...] = ("tensorboard",)


class RunConfig(_Section):
    """Everything that was decided before the first step.

    Attributes:
        model: the method's ``Config``, every field.
        shapes: folders of real lesion masks in MNI space to make holes of: FOLDER, FOLDER:WEIGHT or
            FOLDER:WEIGHT:EVERY, where every EVERY-th mask is left out for tests.
        cases: how training cases are drawn, as ``corpus.recipe.Recipe.from_table`` takes it.
    """

    method: str
    stage: Stage = "method"
    preset: str
    shapes: tuple[str, ...] = ()
    model: dict[str, Any]
    training: Training
    cases: dict[str, Any] = Field(default_factory=dict)
    running: Running = Field(default_factory=lambda: Running.model_validate({}))

    def to_toml(self) -> str:
        """The text of ``config.toml``, which ``--config`` reads."""
        content = self.model_dump(mode="json", exclude_none=True)
        head = [f"{key} = {_toml(value)}" for key, value in content.items() if not isinstance(value, dict)]
        tables = [
            [f"\n[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
            for name, table in content.items()
            if isinstance(table, dict)
        ]
        return "\n".join([*head, *(line for table in tables for line in table)]) + "\n"

    def decisive(self) -> dict[str, Any]:
        """What decides the weights, by dotted name: all but the section ``running``."""
        content = self.model_dump(mode="json", exclude={"running"})
        flat = {}
        for name, value in content.items():
            inner = (
                {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
            )
            flat.update(inner)
        return flat


def make_config(
    method: str,
    *,
    preset: str = "small",
    stage: Stage = "method",
    file: Path | None = None,
    overrides: Sequence[str] = (),
    shapes: Sequence[str] = (),
) -> RunConfig:
    """Put the settings together.

    Args:
        file: TOML with the sections of :class:`RunConfig`; each key is optional.
        overrides: ``key=value`` words; the key may leave its section out, the value is TOML or a bare word.
        shapes: see :class:`RunConfig`; take the place of the file's.

    Raises:
        UsageError: TR-20, an unknown method, preset, key or value.
    """
    given = _read_toml(file) if file else {}
    preset = str(given.get("preset", preset)) if preset == "small" else preset
    for name, ours in (("method", method), ("stage", stage), ("preset", preset)):
        if given.pop(name, ours) != ours:
            raise _usage(
                f"{file} is for another {name} than the command line's '{ours}'", "leave one of them out"
            )
    known = TRAINING.get(method) if stage == "method" else AUTOENCODER if method == "latent3d" else {}
    if known is None or method not in METHODS:
        raise _usage(f"there is no method '{method}'", f"--method {' | '.join(TRAINING)}")
    if preset not in known:
        raise _usage(
            f"{method} has no preset '{preset}' for stage '{stage}'",
            f"--preset {' | '.join(known) or 'none'}",
        )
    shapes = tuple(shapes) or tuple(given.pop("shapes", ()))
    given.pop("shapes", None)
    sections: dict[str, dict[str, Any]] = {
        "model": json.loads(json.dumps(asdict(METHODS[method].PRESETS[preset]))),
        "training": dict(known[preset]),
        "cases": dict(CASES.get(f"{method}/{preset}", {})),
        "running": {},
    }
    for section, values in given.items():
        if section not in sections or not isinstance(values, dict):
            raise _usage(f"{file} has an unknown key '{section}'", f"use the sections {', '.join(sections)}")
        _put(sections, section, values)
    for word in overrides:
        section, key, value = _parse_override(word, sections)
        _put(sections, section, {key: value})
    _check_model(method, sections["model"])
    try:
        return RunConfig.model_validate(
            {"method": method, "stage": stage, "preset": preset, "shapes": shapes, **sections}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "config"
        raise _usage(
            f"{where}: {first['msg']} (found {first['input']!r})", "correct it in --config or --set"
        ) from error


def build_method(config: RunConfig) -> Any:
    """The method with random weights, as an ``nn.Module``."""
    kind = METHODS[config.method]
    return kind(kind.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.model.items()}))


def _put(sections: dict[str, dict[str, Any]], section: str, values: Mapping[str, Any]) -> None:
    """Set keys; a budget of one kind takes the place of a preset's budget of the other kind."""
    if section == "training" and len({"steps", "minutes"} & values.keys()) == 1:
        for name in ("steps", "minutes"):
            sections["training"].pop(name, None)
    sections[section].update(values)


def _parse_override(word: str, sections: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, Any]:
    name, equals, text = word.partition("=")
    if not equals:
        raise _usage(f"--set {word} has no '='", "--set training.peak_lr=1e-4")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    section, dot, key = name.strip().rpartition(".")
    if dot:
        if section not in sections:
            raise _usage(f"--set {word}: there is no section '{section}'", f"use {', '.join(sections)}")
        return section, key, value
    known = {
        "model": set(sections["model"]),
        "training": set(Training.model_fields),
        "cases": {field.name for field in fields(Recipe)} | {"base"},
        "running": set(Running.model_fields),
    }
    homes = [home for home, keys in known.items() if key in keys]
    if not homes:
        near = get_close_matches(key, {known_key for keys in known.values() for known_key in keys}, n=3)
        raise _usage(
            f"--set {word}: '{key}' is not a setting",
            f"did you mean {' or '.join(near)}?"
            if near
            else "see the config.toml of a run, or docs/how-to/train.md",
        )
    if len(homes) > 1:
        raise _usage(
            f"--set {word}: '{key}' is in {' and '.join(homes)}",
            "write the section too: " + " or ".join(f"--set '{home}.{key}={text}'" for home in homes),
        )
    return homes[0], key, value


def _check_model(method: str, values: Mapping[str, Any]) -> None:
    expected = METHODS[method].Config.__dataclass_fields__
    if unknown := sorted(values.keys() - expected.keys()):
        raise _usage(f"model.{unknown[0]} is no setting of {method}", f"use one of {', '.join(expected)}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _usage(
            f"--config {path} cannot be read ({error})", "give a TOML file such as a run's config.toml"
        ) from error


def _toml(value: Any) -> str:
    """A string, number, truth value or list of these as TOML; JSON writes them the same way."""
    return json.dumps(value, ensure_ascii=False)


def _usage(what: str, fix: str) -> UsageError:
    return UsageError("TR-20", what, why="nothing was trained: every setting must be understood", fix=fix)
