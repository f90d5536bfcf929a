"""Memory of a training step at growing sizes, and at 256^3 without computing it: `make bench-memory`.

Is one step of the autoencoder of latent3d, of its latent U-Net (both preset ``full``, 1 mm) and of pseudo3d
(``paper``) possible in 40 GB? Each size runs in a process of its own: two steps as `neuromend train` makes them
(weights, average, gradients, optimiser, activations). Two figures are taken:

measured: the largest resident set of the process, less what it was before the network was built.
counted: the largest sum of all tensors that live at the same time, whatever the kernels need besides.

A line through each tells the bytes a voxel. At the last size, that of a real training, the step is made of tensors
without data (FakeTensorMode), which takes no memory, so the count is exact there and no extrapolation. The rows are
kept in runs/bench-memory.tsv; a second run measures only those that are missing. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from live_tensors import LiveTensors, peak_resident
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from neuromend.device import freed_memory_kept
from neuromend.diffusion.schedule import Schedule
from neuromend.methods import axial
from neuromend.methods.contract import Sides
from neuromend.networks import unet
from neuromend.networks.codebook import Codebook
from neuromend.networks.unet import STACK
from neuromend.trainer.config import RunConfig, make_config
from neuromend.trainer.devices import make_fabric, scaler_of
from neuromend.trainer.state import RunState, average_of, make_optimiser
from neuromend.trainer.tasks import make_task

GOAL_GB = 40
SLICES = 160
"""Of a case of pseudo3d, one stack of which goes through the network."""

FIELDS = ("work", "precision", "sides", "voxels", "measured_gb", "counted_gb")


@dataclass(frozen=True)
class Work:
    """A training step.

    Attributes:
        sizes: sides of the cases that are measured and counted.
        real: those of a real training, only counted.
        precision: the preset's; bf16 stands for fp16, which CPUs lack and which takes the same room.
        judged: the discriminators of the autoencoder take part.
    """

    method: str
    preset: str
    sizes: tuple[Sides, ...]
    real: tuple[Sides, ...]
    precision: str = "fp32"
    stage: str = "method"
    judged: bool = False


def cubes(*sides: int) -> tuple[Sides, ...]:
    """Cubes of these sides."""
    return tuple((side, side, side) for side in sides)


def slabs(*sides: tuple[int, int]) -> tuple[Sides, ...]:
    """Whole heads of slices of these sides."""
    return tuple((x, y, SLICES) for x, y in sides)


CUBE = (256, 256, 256)
WORK = {
    "autoencoder": Work(
        "latent3d", "full", cubes(48, 64, 80), ((240, 240, 156), CUBE), "bf16", "autoencoder"
    ),
    "autoencoder and judges": Work(
        "latent3d", "full", cubes(48, 64, 80), ((240, 240, 156), CUBE), "bf16", "autoencoder", judged=True
    ),
    "latent U-Net": Work("latent3d", "full", cubes(64, 96, 128), ((256, 256, 160), CUBE)),
    "pseudo3d": Work("pseudo3d", "paper", slabs((32, 32), (32, 64), (64, 64)), slabs((224, 224), (256, 256))),
}
"""Real sides: a scan of the BraTS challenge (240 x 240 x 155) as the network takes it, and the published 256^3."""


def settings(work: Work, precision: str) -> RunConfig:
    """The preset's, on the CPU."""
    words = [f"precision={precision}", "device=cpu"]
    if work.stage == "autoencoder":
        words.append(f"adversaries_from_step={0 if work.judged else 1000}")
    return make_config(work.method, preset=work.preset, stage=work.stage, overrides=words)  # type: ignore[arg-type]


def peak(work: Work, precision: str, sides: Sides, *, real: bool) -> tuple[float, float]:
    """(GB measured, GB counted) of two steps; the first figure means nothing for tensors without data."""
    config = settings(work, precision)
    fabric = make_fabric(config)
    before = peak_resident()
    with ExitStack() as stack:
        if real:
            # The same blocks are computed twice as at the published size.
            large = unet.LARGE * sides[0] * sides[1] // 224**2
            stack.enter_context(patch.object(unet, "LARGE", large))
        else:
            # What depends on values cannot be followed without data; none of it takes memory that counts.
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(patch.object(Codebook, "initialise"))
            stack.enter_context(patch.object(Schedule, "__post_init__", lambda schedule: None))
            stack.enter_context(patch.object(Tensor, "unique", lambda x: x))
            stack.enter_context(patch.object(nn.init, "dirac_"))  # a slow loop, for nothing
        stack.enter_context(freed_memory_kept())
        live = stack.enter_context(LiveTensors())
        task = make_task(config)
        average = average_of(task.averaged)
        model = fabric.setup_module(task) if real else task
        optimisers = [make_optimiser(network, config.training) for network in task.networks]
        state = RunState(task, average, optimisers, scaler_of(fabric))
        case, moments = a_case(sides), list[Tensor]()
        for step in range(2):
            generator = torch.Generator().manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                if real or work.method != "pseudo3d":
                    value = model(case, step, generator)
                else:
                    value = stack_loss(task, case, generator)
            fabric.backward(value)
            if real:
                norm = max(state.clip(config.training))
                state.step(1e-4, config.training, loss=float(value.detach()), norm=norm)
            else:
                # Adam's two moments of each weight, which the first step makes and the second one meets.
                moments = moments or [torch.zeros_like(p) for p in 2 * list(task.parameters())]
                task.zero_grad(set_to_none=True)
    after = peak_resident()
    return (after - before) / 1e9, live.peak / 1e9


def a_case(sides: Sides) -> dict[str, Tensor]:
    """Noise, with a hole that ``STACK`` axial slices have a part of."""
    healthy = torch.rand(1, 1, *sides)
    mask = torch.zeros_like(healthy)
    mask[:, :, sides[0] // 3 : sides[0] // 2, sides[1] // 3 : sides[1] // 2, :STACK] = 1
    return {"healthy": healthy, "voided": healthy * (1 - mask), "mask": mask}


def stack_loss(task: Any, case: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """The loss of pseudo3d for one stack, without the search for slices with a hole."""
    known, hole, truth = (
        case[name][0, ..., :STACK].permute(3, 0, 1, 2) for name in ("voided", "mask", "healthy")
    )
    levels = axial.random_levels(1, generator).expand(STACK)

    def predict(xt: Tensor) -> Tensor:
        found: Tensor = task.method.network(torch.cat([known, hole, xt], dim=1), levels - 1)
        return found

    return axial.noise_loss(predict, truth, levels, generator)


def rows_of(name: str, precision: str, done: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """All rows of one work, each new one from a process of its own."""
    work = WORK[name]
    wanted = [(sides, True) for sides in work.sizes] + [(sides, False) for sides in work.real]
    for sides, real in wanted:
        text = "x".join(map(str, sides))
        key = (name, precision, text)
        row = next((r for r in done if (r["work"], r["precision"], r["sides"]) == key), None)
        if row is None:
            command = [sys.executable, __file__, name, "--precision", precision, "--one", text]
            command += [] if real else ["--count-only"]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured, counted = found.splitlines()[-1].split()
            voxels = prod((*sides[:2], STACK)) if work.method == "pseudo3d" else prod(sides)
            values = (name, precision, text, str(voxels), measured if real else "", counted)
            row = dict(zip(FIELDS, values, strict=True))
        yield row


def line(rows: Sequence[dict[str, str]], field: str) -> tuple[float, float, float]:
    """(GB at no voxels, bytes a voxel, largest residual in GB) of the least-squares line through the measured sizes."""
    x = np.array([float(row["voxels"]) for row in rows])
    y = np.array([float(row[field]) for row in rows])
    slope, start = np.polyfit(x, y, 1)
    return float(start), float(slope * 1e9), float(np.abs(y - start - slope * x).max())


def summary(name: str, precision: str, rows: Sequence[dict[str, str]]) -> list[str]:
    """Rows of the Markdown table: one for each size of a real training."""
    small = [row for row in rows if row["measured_gb"]]
    start, slope, residual = line(small, "measured_gb")
    _, counted_slope, _ = line(small, "counted_gb")
    text = []
    for row in rows:
        if row["measured_gb"]:
            continue
        foreseen = start + slope * int(row["voxels"]) / 1e9
        verdict = "yes" if max(foreseen, float(row["counted_gb"])) < GOAL_GB else "NO"
        text.append(
            f"| {name} | {precision} | {row['sides'].replace('x', ' x ')} | {slope:.0f} | {residual:.2f} "
            f"| {foreseen:.1f} | {counted_slope:.0f} | {row['counted_gb']} | {verdict} |"
        )
    return text


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", default=list(WORK), help=f"some of: {', '.join(WORK)}")
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="instead of that of the preset")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-memory.tsv"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--count-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is not in the table yet, then draw the lines."""
    args = options(argv)
    if args.one:
        x, y, z = map(int, args.one.split("x"))
        found = peak(WORK[args.works[0]], args.precision, (x, y, z), real=not args.count_only)
        print(*(f"{value:.2f}" for value in found))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = list(csv.DictReader(args.out.open(), delimiter="\t")) if args.out.exists() else []
    print("\t".join(FIELDS), flush=True)
    table = []
    for name in args.works:
        precision = args.precision or WORK[name].precision
        rows = []
        for row in rows_of(name, precision, done):
            print("\t".join(row[field] for field in FIELDS), flush=True)
            rows.append(row)
            done += [row] if row not in done else []
            with args.out.open("w") as file:
                writer = csv.DictWriter(file, FIELDS, delimiter="\t")
                writer.writeheader()
                writer.writerows(done)
        table += summary(name, precision, rows)
    print(
        "\n| training step | arithmetic | sides | bytes a voxel, measured | residual, GB | foreseen, GB "
        f"| bytes a voxel, counted | counted, GB | below {GOAL_GB} GB |\n|---|---|---|---:|---:|---:|---:|---:|---|"
    )
    print("\n".join(table))


if __name__ == "__main__":
    main()
