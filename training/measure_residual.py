"""Measure ``residual_scale``: ``python training/measure_residual.py --data ../shared/data --cases 40``.

The default method learns x0 = (healthy - harmonic fill) / residual_scale inside the mask, and its schedule of noise
takes x0 to have variance 1. This prints the standard deviation that the scale has to undo, over the first training
cases: with each case counting the same (as in the loss), and with each voxel counting the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from cases import Cases, load_brains, load_shapes

from neuromend.methods.fastwavelet3d import FastWavelet3DConfig


def residual_std(cases: Iterable[dict[str, torch.Tensor]]) -> tuple[float, float]:
    """Root mean square of (healthy - base) in the masks: mean over cases, mean over all voxels."""
    means: list[float] = []
    total, voxels = 0.0, 0
    for case in cases:
        residual = (case["healthy"] - case["base"])[case["mask"] > 0].double()
        means.append(float(residual.square().mean()))
        total += float(residual.square().sum())
        voxels += residual.numel()
    return (sum(means) / len(means)) ** 0.5, (total / voxels) ** 0.5


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder as train_default.py takes it")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    shapes = load_shapes(args.data)
    cases = Cases(load_brains(args.data), shapes, seed=args.seed, length=args.cases)
    by_case, by_voxel = residual_std(cases[i] for i in range(args.cases))
    print(f"lesion shapes: {', '.join(f'{len(v)} {k}' for k, v in shapes.items())}")
    print(f"{args.cases} cases of seed {args.seed}: {by_case:.4f} a case, {by_voxel:.4f} a voxel")
    print(f"residual_scale is {FastWavelet3DConfig().residual_scale}")


if __name__ == "__main__":
    main()
