"""Every method at preset ``small``, on the same data, for the same time: ``make small-round``, docs/small.md.

Each method is trained by ``neuromend train`` for the same minutes, one after another, exported, scored on the same dev
cases, and fills the scan of ``make demo``. What is done already is not done again: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neuromend.corpus.cache import CaseCache
from neuromend.leaderboard_text import END_OF_WORDS, WORDS, hardware, kept_words
from neuromend.methods import METHODS
from neuromend.metrics import challenge_scores
from neuromend.models import DEFAULT_MODEL, load_method, resolve_model
from neuromend.score_files import table
from neuromend.trainer.beginning import dev_cases
from neuromend.trainer.config import make_config
from neuromend.trainer.scores import SHOWN, fill_dev_case, mean_scores
from neuromend.trainer.tasks import make_task

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "training" / "logs" / "small"
ORDER = (
    "unet3d", "fastwavelet3d", "fastwdm3d", "wavelet3d", "latent3d", "slice2d", "sequential2d", "pseudo3d", "full3d",
)  # fmt: skip
CROP, DEV_CASES, SAMPLE_STEPS = 96, 12, 10
SETTINGS = (
    f"cases.crop=[{CROP},{CROP},{CROP}]", "training.warm_up_steps=30", f"running.dev_cases={DEV_CASES}",
    "running.score_every=1000000", "running.save_every=1000000", "running.log_every=25", "running.workers=1",
)  # fmt: skip
SHAPES = ("stroke/masks-mni:0.8:4", "ms/masks-mni:0.2:2")
MARGIN = 25
"""Voxels of 1 mm around the lesion that the figure shows."""

HEADINGS = {"psnr_01": "PSNR 0-1 dB", "ssim": "SSIM", "mse": "MSE", "mae": "MAE"}


def main() -> None:
    """Train what is not trained yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=ROOT / "runs" / "prepared", help="of `neuromend prepare`"
    )
    parser.add_argument(
        "--shapes", type=Path, default=ROOT.parent / "shared" / "data", help="with stroke/, ms/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "small")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training time for each method")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "small.md")
    parser.add_argument("--methods", nargs="*", default=list(ORDER), choices=ORDER, metavar="METHOD")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for method in args.methods:
        if not (args.out / method / "model").exists():
            train(method, args)
    write_page(args)


def train(method: str, args: argparse.Namespace) -> None:
    """Train one method; both stages of latent3d share its minutes."""
    folder = args.out / method
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if method == "latent3d":
        stages = [
            ("autoencoder", folder / "autoencoder", []),
            ("method", folder / "run", [folder / "autoencoder"]),
        ]
    else:
        stages = [("method", folder / "run", [])]
    for stage, run, source in stages:
        words = ["train", "--method", method, "--preset", "small", "--stage", stage, "--data", args.data]
        words += [word for name in SHAPES for word in ("--shapes", args.shapes / name)]
        words += ["--out", run, *(("--init-from", *source) if source else ())]
        words += [word for setting in SETTINGS for word in ("--set", setting)]
        neuromend(*words, "--set", f"training.minutes={args.minutes / len(stages)}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
    (folder / "cpu-minutes.txt").write_text(f"{used:.1f}\n")
    neuromend("export", folder / "run", "--out", folder / "model", "--name", f"{method}-small")
    LOGS.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "model" / "MODEL_CARD.md", LOGS / f"{method}.md")
    for stage, run, _ in stages:
        name = method if stage == "method" else f"{method}-{stage}"
        shutil.copy(run / "log.jsonl", LOGS / f"{name}.jsonl")


def neuromend(*words: Any) -> None:
    """Run a command of neuromend, as a user would."""
    subprocess.run([sys.executable, "-m", "neuromend", *map(str, words)], check=True)


def write_page(args: argparse.Namespace) -> None:
    """The table and the figure, of the methods that are trained."""
    done = [method for method in ORDER if (args.out / method / "model").exists()]
    scores = score_all(done, args)
    scan, lesion, healthy = make_scan(args.out / "demo")
    fills = {}
    for method in done:
        fills[method] = args.out / "demo" / f"{method}.nii.gz"
        if not fills[method].exists():
            steps = (
                () if METHODS[method].expected_steps or method == "fastwdm3d" else ("--steps", SAMPLE_STEPS)
            )
            model = args.out / method / "model"
            neuromend("fill", "-i", scan, "-m", lesion, "-o", fills[method], "--model", model, *steps)
    lines = []
    for method in done:
        summary = json.loads((args.out / method / "model" / "manifest.json").read_text())["training"]
        config = METHODS[method].PRESETS["small"]
        network: Any = METHODS[method](config)
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        stages = "2 stages, " if method == "latent3d" else ""
        used = (args.out / method / "cpu-minutes.txt").read_text().strip()
        cells = [f"{parameters:.1f}", f"{stages}{summary['steps']}", used]
        lines.append((method, *cells, *(f"{scores[method][name]:.4g}" for name in SHOWN)))
    lines.sort(key=lambda line: -float(line[4]))
    for name in ("harmonic fill", "fastwavelet3d-default"):
        lines.append((name, "", "", "", *(f"{scores[name][score]:.4g}" for score in SHOWN)))
    head = ["method", "parameters, M", "steps", "CPU minutes", *(HEADINGS[name] for name in SHOWN)]
    page = PAGE.format(
        minutes=f"{args.minutes:g}", cases=DEV_CASES, crop=CROP, steps=SAMPLE_STEPS, hardware=hardware(),
        words=kept_words(args.page), begin=WORDS, end=END_OF_WORDS, table=table(head, lines),
    )  # fmt: skip
    args.page.write_text(page)
    draw(scan, lesion, healthy, fills, args.page.with_suffix(".png"))


def score_all(done: Sequence[str], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The last dev scores of each run; those of the harmonic fill and of the packaged weights on the same cases."""
    found: dict[str, dict[str, float]] = {}
    for method in done:
        rows = [
            json.loads(line) for line in (args.out / method / "run" / "log.jsonl").read_text().splitlines()
        ]
        last = next(row for row in reversed(rows) if "dev/psnr_01" in row)
        found[method] = {name: last[f"dev/{name}"] for name in SHOWN}
        found["harmonic fill"] = {name: last[f"dev_harmonic/{name}"] for name in SHOWN}
    shapes = [str(args.shapes / name) for name in SHAPES]
    config = make_config("fastwavelet3d", preset="default", overrides=SETTINGS, shapes=shapes)
    cases = dev_cases(config, CaseCache.open(args.data), make_task(config))
    network = load_method(resolve_model(DEFAULT_MODEL), torch.device("cpu"))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        fills = [fill_dev_case(network, case, number, 0, 1) for number, case in enumerate(cases)]
    found["fastwavelet3d-default"] = mean_scores([fill.scores for fill in fills])
    return found


def make_scan(folder: Path) -> tuple[Path, Path, Path]:
    """The demo's scan with a lesion, its mask, and the truth."""
    if not folder.exists():
        neuromend("demo", "--out", folder)
    return tuple(folder / f"demo_{name}.nii.gz" for name in ("T1w", "lesion", "healthy_T1w"))  # type: ignore[return-value]


def voxels_of(path: Path) -> NDArray[np.float32]:
    """The voxels of an image."""
    image: Any = nib.load(path)
    return np.asarray(image.dataobj, np.float32)


def draw(scan: Path, lesion: Path, healthy: Path, fills: dict[str, Path], out: Path) -> None:
    """The axial plane through the middle of the lesion, and 25 mm around it: as given, as filled, and the truth."""
    images = {"given": scan, **fills, "hidden truth": healthy}
    volumes = {name: voxels_of(path) for name, path in images.items()}
    mask = voxels_of(lesion) > 0
    places = np.argwhere(mask)
    level = int(places.mean(0).round()[2])
    low, high = np.maximum(places.min(0) - MARGIN, 0), places.max(0) + MARGIN
    shown = (slice(low[0], high[0]), slice(low[1], high[1]), level)
    top = float(np.percentile(volumes["hidden truth"][~mask], 99.8))
    columns = -(-len(volumes) // 2)
    sheet = Figure(figsize=(1.9 * columns, 5.2), dpi=110, facecolor="white")
    for number, (name, volume) in enumerate(volumes.items(), 1):
        axis = sheet.add_subplot(2, columns, number)
        axis.imshow(volume[shown].T, cmap="gray", vmin=0, vmax=top, origin="lower")
        if name == "hidden truth":
            axis.contour(mask[shown].T, [0.5], colors="#ffc43d", linewidths=0.8)
        axis.set_axis_off()
        title = name
        if name in fills:
            truth, given = volumes["hidden truth"] / top, np.where(mask, 0, volumes["given"] / top)
            title += f"\n{challenge_scores(volume / top, truth, given, mask)['psnr_01']:.1f} dB"
        axis.set_title(title, fontsize=8)
    sheet.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.92, wspace=0.03, hspace=0.16)
    sheet.savefig(out, metadata={"Software": None})


PAGE = """# Every method at `small`

```bash
make small-round      # prepares the data (training/README.md), trains what is not trained yet, writes this page
```

{begin}
{words}
{end}

Each method had {minutes} minutes of training time, one method after another, on the same train persons with the same
crops of {crop} voxels a side, holes and augmentation (bfloat16, one case a step, seed 0; latent3d: half of it for its
autoencoder). Scores: mean over the same {cases} crops of dev scans, as the challenge defines them, by the trainer
(the expected fill where a method has one, else one random sample in a quarter of its usual steps). CPU minutes: of all
cores, with the making of cases, start and scoring. Machine: {hardware}.

{table}

![Every method on the same case](small.png)

The scan of `make demo` (the MNI152 template, an easy case) with its lesion, filled by `neuromend fill` with these
weights, diffusion methods in {steps} steps; PSNR 0-1 inside the hole. Logs and cards: training/logs/small.

## One case by heart

![Every method after a few minutes on one case](overfitted.png)

`make overfit-one`: each method at `small`, trained for two minutes on this one box of the same scan, which it then
fills (slice2d, sequential2d, pseudo3d, full3d: four and a half minutes, `--minutes 4.5 --methods ...`). No measure of a
method: it shows that each one trains, samples and fills.
"""


if __name__ == "__main__":
    main()
