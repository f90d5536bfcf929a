"""Every method learns one case by heart: ``make overfit-one``, docs/overfitted.png.

A box of the demo's scan around its lesion is prepared as the only training case, without augmentation. Each method is
trained on it at preset ``small`` for a few minutes by ``neuromend train`` and fills it by ``neuromend fill``. That is
no measure of a method: it shows that each one trains, samples and fills, and how its mistakes look.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from small_round import ORDER, ROOT, draw, make_scan, neuromend, voxels_of

from neuromend.methods import METHODS

SIDES, SAMPLE_STEPS = (80, 80, 64), 20
SETTINGS = (
    "cases.crop=whole", "cases.stored_masks=1", "cases.scattered=0", "cases.geometry=0", "cases.flip=0",
    "cases.gamma=0", "cases.gain=[1,1]", "cases.skull=0", "cases.bias=0", "cases.thick_slices=0", "cases.blur=0",
    "cases.noise=0", "cases.plane_jitter=false", "training.warm_up_steps=10", "running.dev_cases=0",
    "running.score_every=1000000", "running.save_every=1000000",
)  # fmt: skip
FASTER = ("training.peak_lr=1e-3", "training.ema_decay=0.99")
"""Of the methods, not of the autoencoder."""


def main() -> None:
    """Prepare, train what is not trained yet, fill, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "overfit")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training time for each method")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "overfitted.png")
    parser.add_argument("--methods", nargs="*", default=list(ORDER), choices=ORDER, metavar="METHOD")
    args = parser.parse_args()
    scan, lesion, healthy = boxes(args.out)
    fills = {}
    for method in args.methods:
        if not (args.out / method / "model").exists():
            train(method, args)
        fills[method] = args.out / f"{method}.nii.gz"
        if not fills[method].exists():
            few = METHODS[method].expected_steps or method == "fastwdm3d"
            steps = () if few else ("--steps", SAMPLE_STEPS)
            model = args.out / method / "model"
            neuromend("fill", "-i", scan, "-m", lesion, "-o", fills[method], "--model", model, *steps)
    draw(scan, lesion, healthy, fills, args.picture)


def boxes(out: Path) -> tuple[Path, Path, Path]:
    """The box of the demo's scan, its lesion and the truth, and the latter two prepared as training data."""
    out.mkdir(parents=True, exist_ok=True)
    sources = make_scan(out / "demo")
    middle = np.argwhere(voxels_of(sources[1]) > 0).mean(0).round().astype(int)
    names = ("scan", "lesion", "healthy")
    for name, source in zip(names, sources, strict=True):
        image: Any = nib.load(source)
        low = np.clip(middle - np.array(SIDES) // 2, 0, np.array(image.shape) - SIDES)
        box = tuple(slice(int(a), int(a) + n) for a, n in zip(low, SIDES, strict=True))
        nib.save(image.slicer[box], out / f"{name}.nii.gz")
    if not (out / "prepared").exists():
        table = out / "cases.tsv"
        table.write_text("id\tsplit\timage\thealthy_mask\nbox\ttrain\thealthy.nii.gz\tlesion.nii.gz\n")
        neuromend("prepare", table, "--out", out / "prepared")
    return tuple(out / f"{name}.nii.gz" for name in names)  # type: ignore[return-value]


def train(method: str, args: argparse.Namespace) -> None:
    """Train one method on the box; both stages of latent3d share its minutes."""
    folder = args.out / method
    stages = [("autoencoder", ()), ("method", ("--init-from", folder / "autoencoder"))]
    for stage, source in stages if method == "latent3d" else [("method", ())]:
        words: list[Any] = ["train", "--method", method, "--preset", "small", "--stage", stage, *source]
        words += ["--data", args.out / "prepared", "--out", folder / stage]
        settings = (*SETTINGS, *(FASTER if stage == "method" else ()))
        words += [word for setting in settings for word in ("--set", setting)]
        minutes = args.minutes / (2 if method == "latent3d" else 1)
        neuromend(*words, "--set", f"training.minutes={minutes}")
    neuromend("export", folder / "method", "--out", folder / "model", "--name", f"{method}-overfitted")


if __name__ == "__main__":
    main()
