"""How long does a training case take? ``python benchmarks/bench_cases.py CACHE [--shapes DIR ...]``

CPU seconds of one process a case, after a warm-up, for each recipe; what takes the time with ``--profile``. Sides are
those of the default model.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from pathlib import Path

import torch

from neuromend.corpus.cache import CaseCache
from neuromend.corpus.drawing import TrainingCases
from neuromend.corpus.recipe import RECIPES
from neuromend.corpus.shapes import ShapeSource, load_shapes

WARM_UP = 3


def measure(cases: TrainingCases, count: int) -> float:
    """CPU seconds a case."""
    for index in range(WARM_UP):
        cases[index]
    start = time.process_time()
    for index in range(WARM_UP, WARM_UP + count):
        cases[index]
    return (time.process_time() - start) / count


def main() -> None:
    """Parse the command line and print a line a recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path, help="folder that neuromend prepare wrote")
    parser.add_argument(
        "--shapes", type=Path, nargs="*", default=[], help="folders of lesion masks in MNI space"
    )
    parser.add_argument("--recipes", nargs="*", default=["default"], choices=sorted(RECIPES))
    parser.add_argument("--count", type=int, default=40, help="cases to measure")
    parser.add_argument("--profile", action="store_true", help="say what takes the time")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cache = CaseCache.open(args.cache)
    shapes = load_shapes(*(ShapeSource(folder) for folder in args.shapes))
    for name in args.recipes:
        cases = TrainingCases(
            cache,
            "train",
            seed=0,
            epoch_length=10**6,
            recipe=RECIPES[name],
            multiple=16,
            condition=True,
            shapes=shapes,
        )
        profile = cProfile.Profile(time.process_time)
        seconds = profile.runcall(measure, cases, args.count) if args.profile else measure(cases, args.count)
        print(f"{name}: {seconds:.3f} s of CPU a case")
        if args.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(15)


if __name__ == "__main__":
    main()
