"""``neuromend benchmark``: methods x cases -> one leaderboard."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuromend import cli_options as opt
from neuromend.terminal import Talk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromend.benchmark import Method
    from neuromend.benchmark_cases import Case
    from neuromend.leaderboard import Board

_INPUT, _OUTPUT = "Input", "Output"

Cases = Annotated[
    str,
    opt._option(
        _INPUT,
        "--cases",
        "SPEC",
        "Healthy scans with holes: a table with the columns id, image, mask and, if wanted, tissue and site; or "
        "planted:FOLDER, optionally with settings: 'planted:FOLDER?per_scan=4&seed=0&ml=0.1-100'.",
    ),
]
Models = Annotated[
    list[str] | None,
    opt._option(
        _INPUT,
        "--models",
        "NAME",
        "What to compare: names that `neuromend models list` shows, model folders, fsl, niftyseg, neurolit (where they "
        "are installed), oracle. Several after each other: --models A B C.",
        default="all that can be used here",
    ),
]
MoreModels = Annotated[list[str] | None, typer.Argument(hidden=True)]
Samples = Annotated[
    int,
    opt._option(
        _INPUT,
        "--samples",
        "N",
        "Of every network, also score one random sample, and the mean and spread of N.",
    ),
]
Out = Annotated[
    Path,
    opt._path_option(
        _OUTPUT,
        "--out -o",
        "DIR",
        "Where runs, fills and leaderboard go; a second benchmark there repeats no finished run.",
    ),
]
Results = Annotated[
    Path | None,
    opt._path_option(
        _OUTPUT,
        "--results",
        "FILE.md",
        "Also write the page here, its figure beside it; words between its two marks are kept.",
        default="none",
    ),
]


def benchmark(
    context: typer.Context,
    cases: Cases,
    out: Out,
    more_models: MoreModels = None,
    models: Models = None,
    samples: Samples = 0,
    steps: opt.Steps = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    results: Results = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Run methods on holes in healthy scans and compare their fills with the truth that they never see.

    Writes leaderboard.html, leaderboard.md, figure.png and scores.csv.
    """
    arguments: list[str] = context.obj
    with Talk(arguments, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.benchmark import Settings, default_names, methods_of, run_benchmark
        from neuromend.benchmark_cases import read_cases
        from neuromend.data.outputs import check_output
        from neuromend.leaderboard import Board

        names = [*(models or []), *(more_models or [])] or default_names()
        methods = methods_of(names, samples)
        created = list(check_output(out / "leaderboard.html", [], overwrite=True, needed_bytes=0))
        if results is not None:
            created += check_output(results, [], overwrite=True, needed_bytes=0)
        talk.step("reading the cases", 0, 1)
        found = read_cases(cases, out / "masks")

        def on_run(done: int, of: int, row: dict[str, Any], kept: bool) -> None:
            talk.step("running", done, of)
            talk.say(
                f"[{done}/{of}] {row['method']} on {row['id']}: {_outcome(row)}{' (kept)' if kept else ''}"
            )

        rows = run_benchmark(
            found, methods, out, Settings(seed, steps, device, threads), on_run=on_run
        )  # fmt: skip
        talk.step("drawing the leaderboard", 0, 1)
        board = Board(rows)
        command = shlex.join(["neuromend", *arguments])
        outputs = _write(board, found, methods, out, results, command)
        talk.end_progress()
        talk.show_findings(created)
        for role, path in outputs.items():
            talk.result(f"{role}: {path}")
        talk.result_json(
            {
                "outputs": {role: str(path) for role, path in outputs.items()},
                "cases": len(board.ids),
                "methods": list(board.methods),
                "failures": list(board.failures),
            }
        )


def _outcome(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"FAILED {row['failed']}"
    return f"PSNR {row['psnr_01']:.2f} dB, 3-D SSIM {row['ssim_3d']:.4f}, {row['seconds']:.1f} s"


def _write(
    board: Board,
    cases: Sequence[Case],
    methods: Sequence[Method],
    out: Path,
    results: Path | None,
    command: str,
) -> dict[str, Path]:
    """The pages, by role."""
    from neuromend.data.atomic import OutputSet
    from neuromend.leaderboard import csv_text
    from neuromend.leaderboard_page import figure_png, page
    from neuromend.leaderboard_text import facts_of, kept_words, markdown

    facts = facts_of(board, methods, command)
    figure = figure_png(board, cases, out)
    files: dict[str, tuple[Path, bytes]] = {
        "scores": (out / "scores.csv", csv_text(board).encode()),
        "page": (out / "leaderboard.html", page(board, facts, cases, out, figure).encode()),
    }
    places = {"leaderboard": (out / "leaderboard.md", out / "figure.png")}
    if results is not None:
        places["results"] = (results, results.with_suffix(".png"))
    for role, (target, picture) in places.items():
        if figure is not None:
            files[f"{role}-figure"] = (picture, figure)
        address = None if figure is None else Path(os.path.relpath(picture, target.parent)).as_posix()
        text = markdown(board, facts, figure=address, words=kept_words(target))
        files[role] = (target, text.encode())
    with OutputSet() as outputs:
        for target, payload in files.values():
            outputs.add(target, payload)
        outputs.publish()
    return {role: target for role, (target, _) in files.items()}
