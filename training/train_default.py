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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from cases import Cases, load_brains, load_shapes

from neuromend.checkpoint import save_model
from neuromend.manifest import TrainedRange
from neuromend.methods.fastwavelet3d import PRESETS, Condition, FastWavelet3D

DEV_CASES = 40
WARM_UP_STEPS = 100


def learning_rate(step: int, progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak at the end of the budget."""
    return (
        peak
        * min(1.0, (step + 1) / WARM_UP_STEPS)
        * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    )


def to_device(case: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Add the batch axis where it is missing and move a case."""
    return {name: (v if v.dim() == 5 else v[None]).to(device, non_blocking=True) for name, v in case.items()}


@torch.inference_mode()
def dev_psnr(
    model: FastWavelet3D, cases: list[dict[str, torch.Tensor]], device: torch.device
) -> dict[str, float]:
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


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it (a kill leaves the old one)."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def main() -> None:
    """Parse the options, train, report, export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with subjects.tsv, healthy/, labels/, stroke/, ms/"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder: log, checkpoint")
    parser.add_argument("--preset", default="default", choices=sorted(PRESETS))
    parser.add_argument("--minutes", type=float, default=100.0, help="budget of training time")
    parser.add_argument("--steps", type=int, default=0, help="budget in steps instead of minutes")
    parser.add_argument("--peak-lr", type=float, default=4e-4)
    parser.add_argument("--accumulate", type=int, default=1, help="cases per optimiser step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the network (0: all)")
    parser.add_argument("--export", type=Path, help="write the EMA weights as a model folder at the end")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    shapes = load_shapes(args.data)  # without the masks that the dev holes are made of
    brains = load_brains(args.data)
    dev_set = Cases(load_brains(args.data, "dev"), shapes, seed=12345, length=DEV_CASES, plain=True)
    dev = [dev_set[i] for i in range(DEV_CASES)]

    model = FastWavelet3D(PRESETS[args.preset]).to(device).to(memory_format=torch.channels_last_3d)
    ema = {name: p.detach().clone() for name, p in model.state_dict().items()}
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=args.peak_lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    step, used_s, best = 0, 0.0, -math.inf
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        ema, step, used_s, best = state["ema"], state["step"], state["used_s"], state["best"]
        print(f"resuming at step {step} after {used_s / 60:.1f} min", flush=True)

    def progress() -> float:
        return (
            step / args.steps if args.steps else (used_s + time.monotonic() - started) / (60 * args.minutes)
        )

    cases = Cases(brains, shapes, seed=args.seed, length=10**9)
    order = range(step * args.accumulate, 10**9)
    loader = torch.utils.data.DataLoader(
        cases,
        batch_size=None,
        sampler=order,
        num_workers=args.workers,
        prefetch_factor=4 if args.workers else None,  # type: ignore[arg-type]
    )
    stream = iter(loader)
    log = (args.out / "log.jsonl").open("a")
    started, running = time.monotonic(), 0.0

    def evaluate_and_save() -> None:
        nonlocal best
        live = {name: v.clone() for name, v in model.state_dict().items()}
        model.load_state_dict(ema)
        scores = dev_psnr(model, dev, device)
        model.load_state_dict(live)
        spent = used_s + time.monotonic() - started
        row = {
            "step": step,
            "minutes": round(spent / 60, 2),
            "loss": round(running, 5),
            "lr": optimiser.param_groups[0]["lr"],
            **scores,
        }
        log.write(json.dumps(row) + "\n")
        log.flush()
        print(row, flush=True)
        state = {
            "model": live,
            "ema": ema,
            "optimiser": optimiser.state_dict(),
            "step": step,
            "used_s": spent,
        }
        best = max(best, scores["model"])
        save(checkpoint, {**state, "best": best})
        if scores["model"] >= best:
            save(args.out / "best.pt", {"ema": ema, "step": step, "scores": scores, "minutes": spent / 60})

    while progress() < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, progress(), args.peak_lr)
        for _ in range(args.accumulate):
            case = to_device(next(stream), device)
            noise = torch.Generator(device).manual_seed(args.seed * 10**6 + step)
            with torch.autocast(device.type, torch.bfloat16):
                loss = model.loss(
                    case["healthy"],
                    case["voided"],
                    case["mask"],
                    noise,
                    Condition(case["base"], case["mirror"]),
                )
            (loss / args.accumulate).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"gradient not finite at step {step}; lower --peak-lr and resume from {checkpoint}"
            )
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        decay = min(0.999, (1 + step) / (20 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                ema[name].lerp_(value, 1 - decay)
        running += (float(loss.detach()) - running) * max(0.01, 1 / (step + 1))
        step += 1
        if step % 100 == 0:
            print(
                f"step {step}, {used_s / 60 + (time.monotonic() - started) / 60:.1f} min, loss {running:.4f}",
                flush=True,
            )
        if step % 500 == 0:
            evaluate_and_save()
    evaluate_and_save()
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
            {**training, "scores": json.dumps(best["scores"])}
        ),
        training=training,
        ema=True,
        overwrite=True,
    )


if __name__ == "__main__":
    main()
