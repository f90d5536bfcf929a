"""One network evaluation and one training step a method: the way we run it against plain float32.

`make bench-methods`, or `python benchmarks/bench_methods.py --help`. Every method gets its network at published size
(random weights) and does the same work twice, in turns: "plain" is float32 with contiguous tensors, the way the
published code runs; "ours" is what `neuromend` does on this device: bfloat16 autocast and channels-last memory. The
ratio is of medians of CPU seconds (on a GPU: of synchronised wall seconds), because wall time on a shared machine
tells how busy the others are. The error is the norm of the difference of both outputs over the norm of the plain one.

Each method runs in a process of its own. Rows are printed and kept in runs/bench-methods.tsv; a second run measures
only the rows that are missing. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from neuromend.device import freed_memory_kept
from neuromend.methods import METHODS
from neuromend.networks import plain_unet3d, unet3d, wavelet_unet

FIELDS = (
    "method", "work", "input", "plain_cpu_s", "ours_cpu_s", "ratio", "plain_wall_s", "ours_wall_s", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes:
        preset: of the method.
        network: the attribute that holds the network of one denoising step.
        channels: of its input.
        sides: of its input, in its own space, without batch and channels; the published size where memory allows.
        training: sides of the network's input in the training step (None: the same).
        slices: the batch axis of the slice-wise methods.
    """

    network: str
    channels: int
    sides: tuple[int, ...]
    training: tuple[int, ...] | None = None
    slices: int = 1
    preset: str = "paper"


WORK = {
    "slice2d": Work("network", 3, (224, 224)),
    "sequential2d": Work("network", 4, (224, 224)),
    "pseudo3d": Work("network", 3, (224, 224), (128, 128), slices=2),
    "full3d": Work("network", 3, (64, 64, 64)),
    "wavelet3d": Work("network", 24, (64, 64, 64), (32, 32, 32)),
    "latent3d": Work("denoise_fn", 24, (32, 32, 32), (16, 32, 32)),
    "fastwdm3d": Work("network", 24, (64, 64, 64), (32, 32, 32)),
    "unet3d": Work("network", 2, (96, 96, 96), (64, 64, 64)),
    "fastwavelet3d": Work("network", 256, (24, 24, 24), preset="default"),
}
"""The published inputs are 16 slices (slice2d and pseudo3d), 256^3 (full3d) and 128^3 (wavelet3d): long on CPUs."""


@contextmanager
def plain_layout() -> Iterator[None]:
    """Contiguous tensors all the way through, as the published code has them."""
    keep = [patch.object(m, "to_channels_last", lambda x: x) for m in (unet3d, plain_unet3d, wavelet_unet)]
    for patched in keep:
        patched.start()
    try:
        yield
    finally:
        for patched in keep:
            patched.stop()


def build(name: str, work: Work, device: torch.device) -> nn.Module:
    """The network at published size; what starts as zeros gets small random values, so that outputs say something."""
    torch.manual_seed(0)
    method = METHODS[name](METHODS[name].PRESETS[work.preset])
    network: nn.Module = getattr(method, work.network)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return network.to(device)


def arguments(name: str, work: Work, sides: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """Random inputs: the stack of channels, and whatever else the network takes."""
    torch.manual_seed(1)
    x = torch.randn(work.slices, work.channels, *sides, device=device)
    t = torch.full((work.slices,), 500, device=device)
    if name == "unet3d":
        return [x]
    if name == "fastwavelet3d":
        return [x, torch.zeros(work.slices, device=device)]
    return [x, t, torch.full((work.slices,), 70, device=device)] if name == "sequential2d" else [x, t]


def call(name: str, network: nn.Module, given: list[Tensor]) -> Tensor:
    """One evaluation, in float32 at the end."""
    if name == "sequential2d":
        found: Tensor = network(given[0], given[1], positions=given[2])
    else:
        found = network(*given)
    return found.float()


def timed(
    network: nn.Module, name: str, given: list[Tensor], *, train: bool, ours: bool
) -> tuple[float, float, Tensor]:
    """(CPU seconds, wall seconds, output) of one evaluation, or of one forward and backward pass."""
    device = given[0].device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=ours)
    if given[0].is_cuda:
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    with torch.inference_mode(not train), autocast:
        output = call(name, network, given)
        if train:
            output.square().mean().backward()
    if given[0].is_cuda:
        torch.cuda.synchronize()
    result = time.process_time() - cpu, time.perf_counter() - wall, output.detach().clone()
    network.zero_grad(set_to_none=True)
    return result


def measure(name: str, work: Work, *, train: bool, repeats: int, device: torch.device) -> dict[str, str]:
    """One row: both ways in turns, the first turn of each for warming up."""
    network = build(name, work, device)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    sides = (work.training or work.sides) if train else work.sides
    given = arguments(name, work, sides, device)
    spent: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    outputs: dict[bool, Tensor] = {}
    # A sample is one autocast region, in which weights become bfloat16 once; each training step is one of its own.
    with nullcontext() if train else torch.autocast(device.type, torch.bfloat16):
        for turn in range(repeats + 1):
            for ours in (False, True):
                if ours:
                    with freed_memory_kept():
                        timed(
                            network, name, given, train=train, ours=True
                        )  # takes the memory, as a first step does
                        cpu, wall, outputs[ours] = timed(network, name, given, train=train, ours=True)
                else:
                    with plain_layout():
                        cpu, wall, outputs[ours] = timed(plain, name, given, train=train, ours=False)
                if turn > 0:
                    spent[ours].append((cpu, wall))
    medians = {ours: [statistics.median(v) for v in zip(*rows, strict=True)] for ours, rows in spent.items()}
    which = 1 if device.type == "cuda" else 0
    error = float((outputs[True] - outputs[False]).norm() / outputs[False].norm())
    return {
        "method": name,
        "work": "training step" if train else "evaluation",
        "input": "x".join(map(str, (work.slices, work.channels, *sides))),
        "plain_cpu_s": f"{medians[False][0]:.2f}",
        "ours_cpu_s": f"{medians[True][0]:.2f}",
        "ratio": f"{medians[False][which] / medians[True][which]:.1f}",
        "plain_wall_s": f"{medians[False][1]:.2f}",
        "ours_wall_s": f"{medians[True][1]:.2f}",
        "error": f"{error:.1e}",
    }


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=list(WORK), help=f"some of: {' '.join(WORK)}")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-methods.tsv"))
    parser.add_argument("--one", choices=("evaluation", "training step"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is not in the table yet, each row in a process of its own."""
    args = options(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.one:
        (name,) = args.methods
        row = measure(name, WORK[name], train=args.one != "evaluation", repeats=args.repeats, device=device)
        print("\t".join(row[field] for field in FIELDS))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = list(csv.DictReader(args.out.open(), delimiter="\t")) if args.out.exists() else []
    print("\t".join(FIELDS), flush=True)
    for name in args.methods:
        for one in ("evaluation", "training step"):
            row = next((r for r in done if (r["method"], r["work"]) == (name, one)), None)
            if row is None:
                command = [sys.executable, __file__, name, "--one", one, "--repeats", str(args.repeats)]
                line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                row = dict(zip(FIELDS, line.split("\t"), strict=True))
                done.append(row)
                with args.out.open("w") as table:
                    writer = csv.DictWriter(table, FIELDS, delimiter="\t")
                    writer.writeheader()
                    writer.writerows(done)
            print("\t".join(row[field] for field in FIELDS), flush=True)
    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{os.cpu_count()} {platform.machine()} cores"
    )
    print(f"\n{where}, torch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
