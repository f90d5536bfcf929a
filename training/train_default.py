"""Train the default weights: ``python training/train_default.py --data ../shared/data --out runs/default``.

One readable loop for one model on one GPU or CPU (bf16 either way). The learning rate follows a cosine over the
budget, which is a number of steps or of minutes; a run that was stopped goes on from its last checkpoint with the
same command (steps, weights, EMA, optimiser, used time; case i is always the same case). At the end the EMA weights
are exported with ``--export FOLDER``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import string
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from cases import Cases, load_brains, load_shapes

from neuromend.checkpoint import load_into, load_manifest, load_weights, save_model
from neuromend.manifest import TrainedRange
from neuromend.methods.fastwavelet3d import PRESETS, Condition, FastWavelet3D

Case = dict[str, torch.Tensor]

DEV_CASES = 40
WARM_UP_STEPS = 100
REPORT_EVERY = 100
"""Steps between two lines on the terminal."""

CHECKPOINT_EVERY = 500
"""Steps between two checkpoints, each with a score on dev; a killed run loses at most these."""

ENDLESS = 10**9
"""Length of the list of training cases: case i is made when it is asked for."""


@dataclass(eq=False)
class Run:
    """What a run has reached: all that a checkpoint holds, and all that a resumed run goes on from.

    Attributes:
        ema: exponential moving average of the weights, by name.
        step: optimiser steps done.
        used_s: training time of earlier processes of this run, in seconds; ``started`` is this one's begin.
        best: highest dev PSNR so far.
        loss: running mean of the loss.
    """

    model: FastWavelet3D
    ema: dict[str, torch.Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    used_s: float = 0.0
    best: float = -math.inf
    loss: float = 0.0
    started: float = 0.0

    @classmethod
    def begin(cls, args: argparse.Namespace, device: torch.device) -> Run:
        """Start with random weights, or where the checkpoint in ``args.out`` stopped.

        Raises:
            SystemExit: the checkpoint belongs to a run with other options.
        """
        torch.manual_seed(args.seed)
        model = FastWavelet3D(PRESETS[args.preset]).to(device)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=args.peak_lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        run = cls(model, {name: p.detach().clone() for name, p in model.state_dict().items()}, optimiser)
        path = args.out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, map_location=device, weights_only=True)
            made_with = state.get("options", fixed_options(args))
            if made_with != fixed_options(args):
                raise SystemExit(
                    f"{path} was made with {made_with}, this command says {fixed_options(args)}; "
                    "resume with the same options or give another --out"
                )
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            run.ema, run.step, run.used_s, run.best = (state[k] for k in ("ema", "step", "used_s", "best"))
            run.loss = state.get("loss", 0.0)
            print(f"resuming at step {run.step} after {run.used_s / 60:.1f} min", flush=True)
        elif args.init_from:
            load_into(model, load_weights(args.init_from, load_manifest(args.init_from)))
            run.ema = {name: p.detach().clone() for name, p in model.state_dict().items()}
        run.started = time.monotonic()
        return run

    @property
    def minutes(self) -> float:
        """Training time so far, over all processes of this run."""
        return (self.used_s + time.monotonic() - self.started) / 60

    def progress(self, args: argparse.Namespace) -> float:
        """The share of the budget that is used up."""
        return self.step / args.steps if args.steps else self.minutes / args.minutes

    def save(self, args: argparse.Namespace) -> None:
        """Write the checkpoint."""
        state = {
            "options": fixed_options(args),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "used_s": 60 * self.minutes,
            "best": self.best,
            "loss": self.loss,
        }
        save(args.out / "checkpoint.pt", state)


def fixed_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that may not change when a run is resumed."""
    return {name: getattr(args, name) for name in ("preset", "seed", "accumulate")}


def learning_rate(step: int, progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak at the end of the budget."""
    return (
        peak
        * min(1.0, (step + 1) / WARM_UP_STEPS)
        * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    )


def to_device(case: Case, device: torch.device) -> Case:
    """Add the batch axis where it is missing and move a case."""
    return {name: (v if v.dim() == 5 else v[None]).to(device, non_blocking=True) for name, v in case.items()}


def training_step(run: Run, cases: Iterator[Case], args: argparse.Namespace, device: torch.device) -> None:
    """One optimiser step over ``args.accumulate`` cases.

    Raises:
        FloatingPointError: the gradient is not finite.
    """
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(run.step, run.progress(args), args.peak_lr)
    for part in range(args.accumulate):
        case = to_device(next(cases), device)
        number = run.step * args.accumulate + part
        noise = torch.Generator(device).manual_seed(args.seed * 10**6 + number)
        with torch.autocast(device.type, torch.bfloat16):
            condition = Condition(case["base"], case["mirror"])
            loss = run.model.loss(case["healthy"], case["voided"], case["mask"], noise, condition)
        (loss / args.accumulate).backward()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    if not torch.isfinite(norm):
        raise FloatingPointError(
            f"gradient not finite at step {run.step}; "
            f"lower --peak-lr and resume from {args.out / 'checkpoint.pt'}"
        )
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    decay = min(0.999, (1 + run.step) / (20 + run.step))
    with torch.no_grad():
        for name, value in run.model.state_dict().items():
            run.ema[name].lerp_(value, 1 - decay)
    run.loss += (float(loss.detach()) - run.loss) * max(0.01, 1 / (run.step + 1))
    run.step += 1


@torch.inference_mode()
def dev_psnr(model: FastWavelet3D, cases: Sequence[Case], device: torch.device) -> dict[str, float]:
    """Mean PSNR (dB, range 1) of the expected fill and of the harmonic fill over fixed dev cases, by grid."""
    scores: dict[str, list[float]] = {}
    for case in cases:
        c = to_device(case, device)
        with torch.autocast(device.type, torch.bfloat16):
            abar = torch.full((1,), math.exp(-10.05), device=device)
            x0 = model._predict(
                torch.zeros_like(c["base"]), abar, c["mask"], Condition(c["base"], c["mirror"])
            )
        hole = c["mask"] > 0
        fill = c["base"] + model.config.residual_scale * x0
        grid = "2mm" if c["base"].shape[2] == 80 and c["base"].shape[3] == 96 else "1mm"
        for name, image in (("model", fill), ("harmonic", c["base"])):
            error = (image - c["healthy"])[hole].square().mean()
            for key in (name, f"{name}_{grid}"):
                scores.setdefault(key, []).append(float(-10 * torch.log10(error)))
    return {name: round(sum(v) / len(v), 3) for name, v in scores.items()}


def evaluate_and_save(run: Run, dev: Sequence[Case], args: argparse.Namespace, device: torch.device) -> None:
    """Score the averaged weights on dev, log it, write the checkpoint and, if none was better, best.pt."""
    live = {name: v.clone() for name, v in run.model.state_dict().items()}
    run.model.load_state_dict(run.ema)
    scores = dev_psnr(run.model, dev, device)
    run.model.load_state_dict(live)
    row = {
        "step": run.step,
        "minutes": round(run.minutes, 2),
        "loss": round(run.loss, 5),
        "lr": run.optimiser.param_groups[0]["lr"],
        **scores,
    }
    with (args.out / "log.jsonl").open("a") as log:
        log.write(json.dumps(row) + "\n")
    print(row, flush=True)
    is_best = scores["model"] >= run.best
    run.best = max(run.best, scores["model"])
    run.save(args)
    if is_best:
        best = {"ema": run.ema, "step": run.step, "scores": scores, "minutes": run.minutes}
        save(args.out / "best.pt", best)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it (a kill leaves the old one)."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def stream(cases: Cases, first: int, workers: int) -> Iterator[Case]:
    """Cases from number ``first`` on, made ahead by ``workers`` processes (0: when they are asked for)."""
    loader = torch.utils.data.DataLoader(
        cases,
        batch_size=None,
        sampler=range(first, len(cases)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with subjects.tsv, healthy/, labels/, stroke/, ms/"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder: log, checkpoint")
    parser.add_argument("--preset", default="default", choices=sorted(PRESETS))
    parser.add_argument("--minutes", type=float, default=100.0, help="budget of training time")
    parser.add_argument("--init-from", type=Path, help="model folder whose weights the run begins with")
    parser.add_argument("--steps", type=int, default=0, help="budget in steps instead of minutes")
    parser.add_argument("--peak-lr", type=float, default=4e-4)
    parser.add_argument("--accumulate", type=int, default=1, help="cases per optimiser step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the network (0: all)")
    parser.add_argument("--export", type=Path, help="write the EMA weights as a model folder at the end")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Load, train until the budget is used up, score, export."""
    args = options(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    shapes = load_shapes(args.data)  # without the masks that the dev holes are made of
    dev_set = Cases(load_brains(args.data, "dev"), shapes, seed=12345, length=DEV_CASES, plain=True)
    dev = [dev_set[i] for i in range(DEV_CASES)]
    cases = Cases(load_brains(args.data), shapes, seed=args.seed, length=ENDLESS)

    run = Run.begin(args, device)
    coming = stream(cases, run.step * args.accumulate, args.workers)
    while run.progress(args) < 1:
        training_step(run, coming, args, device)
        if run.step % REPORT_EVERY == 0:
            print(f"step {run.step}, {run.minutes:.1f} min, loss {run.loss:.4f}", flush=True)
        if run.step % CHECKPOINT_EVERY == 0:
            evaluate_and_save(run, dev, args, device)
    if run.step % CHECKPOINT_EVERY:
        evaluate_and_save(run, dev, args, device)
    if args.export:
        export(args)


def export(args: argparse.Namespace) -> None:
    """Write the weights that were best on dev as a model folder; card and licence are filled in from templates."""
    best = torch.load(args.out / "best.pt", weights_only=True)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    training: dict[str, Any] = {
        "seed": args.seed,
        "steps": best["step"],
        "minutes": round(best["minutes"], 1),
        "hardware": gpu or f"{os.cpu_count()} CPU cores ({platform.machine()}), bf16, no GPU",
        "dev_psnr_db": best["scores"],
    }
    began = "with random weights"
    if args.init_from:
        first = load_manifest(args.init_from)
        training["began_with"] = {"weights_sha256": first.weights_sha256, **first.training}
        began = (
            "with weights of the same kind, after {steps} steps in {minutes} minutes (seed {seed})".format(
                **first.training
            )
        )
    here = Path(__file__).parent
    save_model(
        args.export,
        best["ema"],
        name="fastwavelet3d-default",
        description="few-step wavelet diffusion of the residual against the harmonic fill, T1-weighted brains",
        method="fastwavelet3d",
        config=asdict(PRESETS[args.preset]),
        trained_range=TrainedRange(
            modalities=("T1w",), spacing_mm=(1.0, 2.2), coverage=("skull-stripped", "whole-head")
        ),
        licence="CC-BY-NC-SA-4.0",
        licence_text=(here / "LICENSE-WEIGHTS.md").read_text(),
        card=string.Template((here / "MODEL_CARD.md").read_text()).substitute(
            {**training, "began": began, "scores": json.dumps(best["scores"])}
        ),
        training=training,
        ema=True,
        overwrite=True,
    )


if __name__ == "__main__":
    main()
