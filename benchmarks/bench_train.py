"""Training speed: ``python benchmarks/bench_train.py [--device cuda] [--preset small] [METHOD ...]``.

For each method, cases a second and peak memory of training steps on one crop, as ``neuromend train`` does them (mixed
precision, the memory layout that the method chose), against the plain loop (fp32, contiguous tensors). Each is measured
in a process of its own, because the peak of a process never falls. Data loading is not part of it.

On a CPU the clock counts the seconds that the process computed on all its cores, because wall time tells how busy a
shared machine is; "cases/s" is what as many idle cores as there are threads would do.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from bench_methods import plain_layout

from neuromend.device import freed_memory_kept
from neuromend.methods import METHODS
from neuromend.trainer.beginning import wrap
from neuromend.trainer.config import make_config
from neuromend.trainer.devices import make_fabric
from neuromend.trainer.tasks import make_task

WARM_UP = 1
"""Steps before the clock: the first one chooses algorithms and takes memory."""


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    parser.add_argument("--preset", default="small")
    parser.add_argument("--side", type=int, default=96, help="of the cubic crop, in voxels")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--as", dest="kind", choices=("ours", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kind:
        print(json.dumps(measure(args)))
        return
    print(
        "| method | ours, s a case | plain float32 | ratio | ours, cases/s | ours, GB | plain, GB |\n"
        "|---|---:|---:|---:|---:|---:|---:|",
        flush=True,
    )
    for method in args.methods:
        ours, plain = (in_process(method, kind) for kind in ("ours", "plain"))
        print(
            f"| {method} | {ours['seconds']:.2f} | {plain['seconds']:.2f} "
            f"| {plain['seconds'] / ours['seconds']:.1f} | {ours['rate']:.2f} "
            f"| {ours['gb']:.1f} | {plain['gb']:.1f} |",
            flush=True,
        )


def in_process(method: str, kind: str) -> dict[str, float]:
    """Run this file for one method."""
    options = [word for word in sys.argv[1:] if word not in METHODS]
    done = subprocess.run(
        [sys.executable, __file__, method, *options, "--as", kind], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Seconds a case, cases a second and the peak memory of one kind of loop."""
    precision = "fp32" if args.kind == "plain" else "bf16"
    config = make_config(
        args.methods[0],
        preset=args.preset,
        overrides=[f"precision={precision}", f"device={args.device}", "batch=1"],
    )
    if args.threads:
        torch.set_num_threads(args.threads)
    fabric = make_fabric(config)
    task = make_task(config)
    if args.kind == "plain":
        task.to(memory_format=torch.contiguous_format)
    state, model = wrap(task, config, fabric)
    side = -(-args.side // task.multiple) * task.multiple
    rng = torch.Generator().manual_seed(0)
    case = {
        name: torch.rand(1, 1, side, side, side, generator=rng) for name in ("healthy", *task.condition_names)
    }
    case["mask"] = torch.zeros_like(case["healthy"])
    case["mask"][..., side // 3 : side // 2, side // 3 : side // 2, side // 3 : side // 2] = 1
    case["voided"] = case["healthy"] * (1 - case["mask"])
    case = {name: value.to(fabric.device) for name, value in case.items()}
    start = 0.0
    with plain_layout() if args.kind == "plain" else freed_memory_kept():
        for step in range(WARM_UP + args.steps):
            if step == WARM_UP:
                start = clock(fabric.device)
            loss = model(case, step, torch.Generator(fabric.device).manual_seed(step))
            fabric.backward(loss)
            norm = max(state.clip(config.training))
            state.step(1e-4, config.training, loss=float(loss.detach()), norm=norm)
        seconds = (clock(fabric.device) - start) / args.steps
    peak = (
        torch.cuda.max_memory_allocated()
        if fabric.device.type == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    cores = torch.get_num_threads() if fabric.device.type == "cpu" else 1
    return {"seconds": seconds, "rate": cores / seconds, "gb": peak / 1e9}


def clock(device: torch.device) -> float:
    """Seconds: computed by this process, or on the wall once a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.monotonic()
    return time.process_time()


if __name__ == "__main__":
    main()
