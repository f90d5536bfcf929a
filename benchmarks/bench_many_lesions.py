"""Does a scan with 200 lesions cost what one with 5 does? `python benchmarks/bench_many_lesions.py --help`.

The same load is simulated in a healthy dev scan of ../shared/data as 5 and as 200 lesions, and filled through
`neuromend.fill`, all lesions in one pass. CPU seconds of the process are told (on a busy machine wall time means
little), after one fill that is not counted, so that imports and first calls are not. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import neuromend
from neuromend.leaderboard_text import hardware
from neuromend.lesions import Anatomy, load_statistics, simulate
from neuromend.models import DEFAULT_MODEL
from neuromend.provenance import version_string
from neuromend.score_files import table

SHARED = Path(__file__).resolve().parents[2] / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", default="healthy/ixi-2mm/IXI092-HH-1436", help="in shared/data, no suffix")
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 200])
    parser.add_argument("--load-ml", type=float, default=10.0)
    parser.add_argument("--models", nargs="+", default=[DEFAULT_MODEL, "white-matter", "harmonic", "patch"])
    parser.add_argument("--shared", type=Path, default=SHARED)
    options = parser.parse_args()
    stem = options.shared / "data" / options.scan
    image: Any = nib.load(f"{stem}_T1w.nii.gz")
    tissue: Any = nib.load(f"{stem}_tissue.nii.gz")
    anatomy = Anatomy.of_map(np.asarray(tissue.dataobj), nib.affines.voxel_sizes(image.affine))
    masks = {
        count: simulate(anatomy, load_statistics(), seed=1, count=count, load_ml=options.load_ml)
        for count in options.counts
    }
    lines = []
    for model in options.models:
        seconds = {count: cost(image, lesions.mask, model) for count, lesions in masks.items()}
        lines.append([model, *(f"{seconds[count]:.1f}" for count in options.counts)])
        print(lines[-1], flush=True)
    heads = [f"{len(one.placed)} lesions, {one.volume_ml:.1f} ml" for one in masks.values()]
    print(table(["CPU seconds of a fill", *heads], lines))
    print(f"{options.scan}; one thread; neuromend {version_string()}; {hardware()}")


def cost(image: Any, mask: Any, model: str) -> float:
    """CPU seconds of the second of two fills."""
    hole = nib.Nifti1Image(mask.astype(np.uint8), image.affine)
    for _ in range(2):
        started = time.process_time()
        neuromend.fill(image, hole, model=model, threads=1)
        seconds = time.process_time() - started
    return seconds


if __name__ == "__main__":
    main()
