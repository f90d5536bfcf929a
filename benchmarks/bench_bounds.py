"""How fast could a network evaluation be? ``python benchmarks/bench_bounds.py [METHOD ...]``.

Measures what one core does in a second of its own: bfloat16 and float32 multiplications in a large matrix product,
and bytes read and written in a copy. Then counts, without computing them, the multiplications of one evaluation as
bench_methods.py does it, and the bytes that its operators read and write. "Arithmetic" and "memory" are the CPU seconds
that these take at the measured rates; no evaluation made of these operators is faster than the larger of the two,
and where nothing overlaps it takes their sum.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from bench_methods import WORK, arguments, build, call
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2048
"""Of the matrices that are multiplied."""

COPIED = 256 << 20
"""Bytes that are copied."""

FREE = ("aten._unsafe_view", "aten.empty", "aten.detach")
"""Operators that touch no memory although torch does not call them views."""


class Traffic(TorchDispatchMode):
    """Counts the bytes of what operators are given and return."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operator; views are free."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view and not str(func).startswith(FREE):
            self.bytes += sum(t.nbytes for t in tree_leaves((args, out)) if isinstance(t, Tensor))
        return out


def rate(work: Callable[[], object], amount: float, repeats: int = 5) -> float:
    """Amount a CPU second, the best of some."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return amount / min(spent)


def product_rate(dtype: torch.dtype) -> float:
    """Floating-point operations a CPU second."""
    a = torch.randn(SIDE, SIDE).to(dtype)
    return rate(lambda: a @ a, 2 * SIDE**3)


def copy_rate() -> float:
    """Bytes read and written a CPU second."""
    source = torch.zeros(COPIED, dtype=torch.uint8)
    target = torch.ones_like(source)
    return rate(lambda: target.copy_(source), 2 * COPIED)


def demands(name: str) -> tuple[int, int]:
    """Floating-point operations and bytes of one evaluation in bfloat16."""
    work = WORK[name]
    network = build(name, work, torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = arguments(name, work, work.sides, torch.device("cpu"))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            call(name, network, given)  # the weights become bfloat16 once a sample
            with Traffic() as traffic, FlopCounterMode(display=False) as counter:
                call(name, network, given)
    return counter.get_total_flops(), traffic.bytes


def main() -> None:
    """Print the rates and a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=list(WORK))
    args = parser.parse_args()
    torch.set_num_threads(1)
    half, full, copied = product_rate(torch.bfloat16), product_rate(torch.float32), copy_rate()
    print(
        f"One core: {half / 1e9:.0f} GFLOP/s in bfloat16, {full / 1e9:.0f} in float32 "
        f"({half / full:.1f} times); copies {copied / 1e9:.0f} GB/s.\n"
    )
    print("| method | GFLOP | GB | arithmetic, s | memory, s | sum, s |\n|---|---:|---:|---:|---:|---:|")
    for name in args.methods:
        flops, touched = demands(name)
        a, m = flops / half, touched / copied
        print(
            f"| {name} | {flops / 1e9:.0f} | {touched / 1e9:.1f} | {a:.2f} | {m:.2f} | {a + m:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
