"""Peak memory of one sample, method by method: `python benchmarks/bench_sample_memory.py [METHOD ...]`.

The source of ``memory_bytes`` of each method, from which `neuromend fill` foresees what it needs (RT-12). Each row is
a process of its own: random weights, one volume, two denoising steps, float32 (which needs most). "measured" is the
largest resident set less what it was before the sample, "counted" the largest sum of all tensors that live at the same
time, "foreseen" what the method says of itself; all in bytes a voxel. Of "measured", about 0.11 GB is what torch takes
at any size (420 bytes a voxel at 64^3; KERNEL_BYTES in neuromend/forecast.py); the rest must not be above "foreseen".
The slice-wise methods get one batch of slices.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from live_tensors import LiveTensors, peak_resident

from neuromend.device import freed_memory_kept
from neuromend.methods import METHODS
from neuromend.methods.axial import BATCH, WINDOW

PRESETS = ("paper", "full", "default", "small")


def peak(name: str, preset: str, side: int) -> tuple[str, int, int, int]:
    """(sides, bytes a voxel measured, counted and foreseen)."""
    kind: Any = METHODS[name]
    method = kind(kind.PRESETS[preset]).eval()
    depth = BATCH if method.window == WINDOW else side
    sides = tuple(-(-n // method.multiple) * method.multiple for n in (side, side, depth))
    voided = torch.rand(1, 1, *sides)
    mask = torch.zeros_like(voided)
    mask[:, :, side // 3 : side // 2, side // 3 : side // 2, :BATCH] = 1
    before = peak_resident()
    with freed_memory_kept(), LiveTensors() as live:
        method.sample(voided, mask, steps=2, generator=torch.Generator().manual_seed(0))
    after = peak_resident()
    voxels = prod(sides[:2]) * min(sides[2], depth)
    found = (after - before, live.peak, method.memory_bytes((*sides[:2], min(sides[2], depth))))
    measured, counted, foreseen = (value // voxels for value in found)
    return "x".join(map(str, sides)), measured, counted, foreseen


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=list(METHODS), help=f"some of: {' '.join(METHODS)}")
    parser.add_argument("--presets", nargs="+", default=PRESETS, help=f"default: {' '.join(PRESETS)}")
    parser.add_argument(
        "--side", type=int, default=96, help="of the volume, enlarged to what a network takes"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    args = options(argv)
    if args.one:
        print("|", " | ".join(map(str, peak(args.methods[0], args.presets[0], args.side))), "|")
        return
    print("| method | preset | sides | measured | counted | foreseen |\n|---|---|---|---:|---:|---:|")
    for name in args.methods:
        for preset in args.presets:
            if preset in METHODS[name].PRESETS:
                command = [
                    sys.executable,
                    __file__,
                    name,
                    "--presets",
                    preset,
                    "--side",
                    str(args.side),
                    "--one",
                ]
                row = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                print(f"| {name} | {preset} {row.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
