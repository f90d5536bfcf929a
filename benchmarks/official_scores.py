"""How far our scores are from those of the challenge's own package, on every dev case.

`python benchmarks/official_scores.py [--limit N]`. The package (``inpainting``, AGPL-3.0) is a development
tool. The fill is the scan turned left to right: its errors are large and have structure. Prints the largest
difference of each score over the cases; nothing is written or asserted (tests/test_metrics.py does that).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from dev_cases import SHARED, dev_cases, load
from inpainting.challenge_metrics_2023 import generate_metrics

from neuromend.metrics import bounding_box, challenge_scores

WINDOW = (
    1,
    6,
    6,
)  # the package's windows reach 5 voxels in y and z and none in x; it is slow on whole volumes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, help="only the first N cases")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder that holds data/")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the package's own, about its use of numpy and torchmetrics
    largest: dict[str, float] = {}
    cases = dev_cases(options.shared)[: options.limit]
    for number, case in enumerate(cases, start=1):
        truth, mask, _ = load(case)
        fill, voided = truth[::-1], np.where(mask, 0, truth)
        ours = challenge_scores(fill, truth, voided, mask)
        box = bounding_box(mask, WINDOW)
        arrays = [np.ascontiguousarray(a, float) for a in (fill[box], truth[box], voided)]
        prediction, target, normalization = (torch.from_numpy(a)[None] for a in arrays)
        hole = torch.from_numpy(mask[box].copy())[None]
        official = generate_metrics(prediction, target, normalization, hole)
        apart = {name: abs(float(value) - ours[name]) for name, value in official.items()}
        largest = {name: max(value, largest.get(name, 0.0)) for name, value in apart.items()}
        print(f"[{number}/{len(cases)}] {case.id}  {max(apart.values()):.1e}", flush=True)
    print("\n".join(f"{name:12} {value:.1e}" for name, value in largest.items()))


if __name__ == "__main__":
    main()
