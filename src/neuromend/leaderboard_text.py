"""The leaderboard in words: what ran where, the tables, and how to make them again (Markdown)."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neuromend.benchmark import Method
from neuromend.device import memory_bytes, usable_cpus
from neuromend.errors import NeuromendError
from neuromend.evaluate import LEVEL
from neuromend.leaderboard import (
    BY_GROUP,
    LEGEND,
    RANKED_BY,
    Board,
    cost_table,
    details_table,
    group_table,
    main_table,
    sample_table,
)
from neuromend.models import resolve_model
from neuromend.provenance import version_string
from neuromend.score_files import COLUMNS, table

WORDS, END_OF_WORDS = "<!-- words: kept when this file is written again -->", "<!-- end of words -->"
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Facts:
    """What a reader must know to make the tables again.

    Attributes:
        command: the command line.
        cases: the cases in words.
        version: of neuromend, with the commit in a checkout.
        hardware: of this machine.
        budgets: a line a trained model: name, what it is, its training, its licence.
    """

    command: str
    cases: str
    version: str
    hardware: str
    budgets: tuple[tuple[str, str, str, str], ...]


def facts_of(board: Board, methods: Sequence[Method], command: str) -> Facts:
    """The facts of a benchmark that was just run on this machine."""
    rows = board.compared(board.methods[0]) if board.methods else []
    volumes = sorted(row["volume_ml"] for row in rows)
    spacings = sorted({row["spacing_mm"] for row in rows})
    span = f" of {volumes[0]:.2g} to {volumes[-1]:.3g} ml" if volumes else ""
    words = f"{len(rows)} holes{span}, voxels of {', '.join(f'{mm:g}' for mm in spacings)} mm"
    return Facts(command, words, version_string(), hardware(), _budgets(methods))


def hardware() -> str:
    """Processor, cores, memory and GPU of this machine."""
    lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines() if CPU_INFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    parts = [f"{next(names, platform.machine())}, {usable_cpus()} cores"]
    memory = memory_bytes(torch.device("cpu"))
    if memory is not None:
        parts.append(f"{memory[1] / 2**30:.0f} GiB of memory")
    parts.append(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    return ", ".join(parts)


def markdown(board: Board, facts: Facts, *, figure: str | None, words: str = "") -> str:
    """The whole page.

    Args:
        board: the runs.
        facts: what ran where.
        figure: address of the picture, relative to the page.
        words: what a person wrote about an earlier version of this page; kept between two marks.
    """
    if not board.methods:
        return f"# Leaderboard\n\nNo case was finished by all methods.\n\n{_failures(board)}"
    parts = [
        "# Leaderboard\n",
        f"{facts.cases}. Every method was handed the scan with noise in the hole; on one case each of ours had to prove"
        " that it does not look there. The oracle returns the truth. A network without an expected fill is scored by"
        " one random sample.\n",
        f"{WORDS}\n{words.strip()}\n{END_OF_WORDS}\n",
        f"![All methods on the same case]({figure})\n" if figure else "",
        "## Scores\n",
        f"{LEGEND}\n",
        main_table(board),
        f"## {COLUMNS[RANKED_BY][0]} with its {LEVEL:.0%} bootstrap interval\n",
        details_table(board),
    ]
    for column in BY_GROUP:
        parts += [f"## {COLUMNS[column][0]} by size and site\n", group_table(board, column)]
    samples = sample_table(board)
    if samples:
        parts += ["## Spread of the samples\n", samples]
    parts += ["## Time and memory\n", "Of a whole fill; memory of the whole process.\n", cost_table(board)]
    if facts.budgets:
        budgets = table(["model", "what it is", "training", "licence"], facts.budgets)
        parts += ["## Training budgets\n", budgets]
    parts += [
        "## Made by\n",
        f"```\n{facts.command}\n```\n",
        f"neuromend {facts.version}; {facts.hardware}.\n",
    ]
    return "\n".join([part for part in parts if part] + ([_failures(board)] if board.failures else []))


def kept_words(path: Path) -> str:
    """What stands between the two marks of an earlier page; empty without one."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    _, found, rest = text.partition(WORDS)
    return rest.partition(END_OF_WORDS)[0].strip() if found else ""


def _failures(board: Board) -> str:
    listed = "\n".join(f"- {line}" for line in board.failures)
    return f"## Runs that failed\n\n{board.left_out} cases are left out of all tables.\n\n{listed}\n"


def _budgets(methods: Sequence[Method]) -> tuple[tuple[str, str, str, str], ...]:
    """The trained models among the methods, each once."""
    lines = {}
    for method in methods:
        try:
            manifest = resolve_model(method.model).manifest
        except NeuromendError:  # an external tool or the oracle
            continue
        if manifest is not None:
            size = f"{manifest.weights_bytes / 1e6:.1f} MB"
            lines[manifest.name] = (
                manifest.name,
                f"{manifest.method}, {size}",
                _training(manifest.training),
                manifest.licence,
            )
    return tuple(lines.values())


def _training(training: Mapping[str, Any]) -> str:
    """``steps 500, minutes 6.0, hardware ...``; what is nested stays in the manifest."""
    plain = {name: value for name, value in training.items() if isinstance(value, str | int | float)}
    return (
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in plain.items()).replace("|", "/")
        or "not told"
    )
