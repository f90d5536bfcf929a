"""How long does a training case take, and how many workers does a step need?

    python benchmarks/bench_cases.py --data prepared --shapes FOLDER:WEIGHT:EVERY --cases 60

draws the first cases that ``neuromend train`` would draw with the same words, in this process on one thread, and
prints CPU seconds a case. A worker makes one case at a time, so a run whose step takes s seconds needs (cases a step) x
(seconds a case) / s workers, each on a core of its own. ``--profile`` says what takes the time; ``--recipes`` measures
other recipes beside each other.

The default recipe on the project's data, 60 cases of seed 0 (two shared cores at a load average of 9):

| cases of | CPU s a case |
|---|---|
| training/cases.py of commit 6d73252, which neuromend train grew out of, measured alike | 0.351 |
| neuromend train | 0.184 |
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from neuromend.corpus.cache import CaseCache
from neuromend.corpus.drawing import TrainingCases
from neuromend.corpus.recipe import RECIPES
from neuromend.trainer.beginning import training_cases
from neuromend.trainer.config import make_config
from neuromend.trainer.tasks import make_task

WARM_UP = 3
"""Cases drawn first and not counted: they map files and import modules."""


def measure(cases: TrainingCases, count: int) -> list[float]:
    """CPU seconds of each case."""
    for index in range(WARM_UP):
        cases[index]
    seconds = []
    for index in range(WARM_UP, WARM_UP + count):
        start = time.process_time()
        cases[index]
        seconds.append(time.process_time() - start)
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and print a line a recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what `neuromend prepare` wrote")
    parser.add_argument("--shapes", action="append", default=[], help="as for `neuromend train`")
    parser.add_argument("--method", default="fastwavelet3d", help="it decides the sides and the conditions")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--recipes", nargs="*", default=["default"], choices=sorted(RECIPES))
    parser.add_argument("--cases", type=int, default=60, help="how many to measure")
    parser.add_argument("--profile", action="store_true", help="say what takes the time")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cache = CaseCache.open(args.data)
    for name in args.recipes:
        config = make_config(
            args.method, preset=args.preset, shapes=args.shapes, overrides=[f"cases.base={name}"]
        )
        cases = training_cases(config, cache, make_task(config))
        profile = cProfile.Profile(time.process_time)
        draw = profile.runcall if args.profile else lambda function, *rest: function(*rest)
        seconds = draw(measure, cases, args.cases)
        mean = statistics.mean(seconds)
        spread = f"median {statistics.median(seconds):.3f}, longest {max(seconds):.3f}"
        print(f"{name}: {mean:.3f} s of CPU a case ({spread}); a worker makes {1 / mean:.1f} a second")
        if args.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(15)


if __name__ == "__main__":
    main()
