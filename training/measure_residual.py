"""Measure ``residual_scale``: ``python training/measure_residual.py --data runs/prepared --shapes FOLDER:0.8:4``.

The default method learns x0 = (healthy - harmonic fill) / residual_scale inside the mask, and its schedule of noise
takes x0 to have variance 1. This prints the standard deviation that the scale has to undo, over the first training
cases: with each case counting the same (as in the loss), and with each voxel counting the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from neuromend.corpus.cache import CaseCache
from neuromend.methods.fastwavelet3d import FastWavelet3DConfig
from neuromend.trainer.beginning import training_cases
from neuromend.trainer.config import make_config
from neuromend.trainer.tasks import make_task


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
    parser.add_argument("--data", type=Path, required=True, help="what `neuromend prepare` wrote")
    parser.add_argument("--shapes", action="append", default=[], help="as for `neuromend train`")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    config = make_config(
        "fastwavelet3d", preset="default", shapes=args.shapes, overrides=[f"training.seed={args.seed}"]
    )
    cases = training_cases(config, CaseCache.open(args.data), make_task(config))
    by_case, by_voxel = residual_std(cases[i] for i in range(args.cases))
    print(f"{args.cases} cases of seed {args.seed}: {by_case:.4f} a case, {by_voxel:.4f} a voxel")
    print(f"residual_scale is {FastWavelet3DConfig().residual_scale}")


if __name__ == "__main__":
    main()
