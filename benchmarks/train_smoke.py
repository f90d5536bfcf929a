"""``make train-smoke``: train every method at ``tiny`` on a tiny synthetic dataset and check that the loss falls.

For each method, and for the autoencoder, the mean loss of the averaged weights over fixed draws of cases and noise is
compared before and after a few seconds of training.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "trainer"))
from tiny_data import write_tiny_data

from neuromend.corpus.cache import CaseCache
from neuromend.methods import METHODS
from neuromend.train import train
from neuromend.trainer.beginning import training_cases
from neuromend.trainer.checkpoints import read_checkpoint
from neuromend.trainer.config import RunConfig, make_config
from neuromend.trainer.feeding import Feed
from neuromend.trainer.tasks import make_task

DRAWS = 12
STEPS = {"latent3d": 60, "pseudo3d": 10, "slice2d": 10, "sequential2d": 10}


def main() -> None:
    """Train, compare, print a line each; exit status 1 if a loss did not fall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=[*METHODS, "autoencoder"])
    torch.set_num_threads(2)
    risen = []
    with tempfile.TemporaryDirectory() as folder:
        cache = write_tiny_data(Path(folder) / "data")
        for name in parser.parse_args().methods:
            config = tiny_config(name)
            start = time.monotonic()
            before = loss_of(config, cache, None)
            run = Path(folder) / name
            train(config, cache.folder, run, say=lambda line: None)
            after = loss_of(config, cache, run)
            if not after < before:
                risen.append(name)
            steps = config.training.steps
            print(
                f"{name:14} loss {before:.4f} -> {after:.4f} in {steps} steps, {time.monotonic() - start:.1f} s",
                flush=True,
            )
    if risen:
        sys.exit(f"the loss did not fall: {', '.join(risen)}")


def tiny_config(name: str) -> RunConfig:
    """Two 16^3 or 32^3 cases a second or more; no scores, no previews."""
    method = "latent3d" if name == "autoencoder" else name
    return make_config(
        method,
        preset="tiny",
        stage="autoencoder" if name == "autoencoder" else "method",
        overrides=[
            f"steps={STEPS.get(name, 25)}", "dev_cases=0", "workers=0", "trackers=[]", "cases.crop=[16, 16, 16]",
            "volume_ml=[0.3, 2.0]", "save_every=1000", "score_every=1000", "adversaries_from_step=1000",
        ],
    )  # fmt: skip


@torch.no_grad()
def loss_of(config: RunConfig, cache: CaseCache, run: Path | None) -> float:
    """The mean loss over the first cases, of random weights or of a run's average."""
    torch.manual_seed(config.training.seed)
    task = make_task(config)
    if run is not None:
        task.averaged.load_state_dict(read_checkpoint(run / "checkpoints" / "newest.pt")["ema"])
    cases = training_cases(config, cache, task)
    with Feed(cases, config.training, first_step=0, rank=0, world=1, workers=0) as feed:
        losses = [
            float(task(feed.batch()[0], 0, torch.Generator().manual_seed(number))) for number in range(DRAWS)
        ]
    return sum(losses) / len(losses)


if __name__ == "__main__":
    main()
