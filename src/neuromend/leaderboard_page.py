"""The leaderboard to look at: one HTML file that needs nothing else, and a figure with all methods side by side."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from neuromend.benchmark import ORACLE
from neuromend.benchmark_cases import Case, LoadedCase, load
from neuromend.benchmark_runs import Row, filled_image
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
from neuromend.leaderboard_text import Facts
from neuromend.report.case import ReportCase
from neuromend.report.drawing import grey_uri, outline
from neuromend.report.planes import CONVENTION, PLANES, Display
from neuromend.report.text import BANNER, escape
from neuromend.score_files import COLUMNS, shown, table

PICTURE_PIXELS = 192
"""Pixels along a side of a picture: 10 methods take about 2 MB."""

FIGURE_ML = 20.0
"""A hole of about this size shows best what a method can do."""

PLACES = ("best", "median", "worst")


def page(board: Board, facts: Facts, cases: Sequence[Case], out: Path, figure: bytes | None) -> str:
    """The HTML page.

    Args:
        board: the runs; facts: what ran where.
        cases: their files; out: the folder with the filled voxels.
        figure: the PNG of ``figure_png``.
    """
    style, script = _asset("page.css") + _asset("leaderboard.css"), _asset("leaderboard.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(_sections(board, facts, _pictures(board, cases, out), figure))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>neuromend leaderboard</title>
<style>{style}</style></head><body><p class="banner" role="note"><strong>{BANNER}</strong></p>
<header><p class="brand">neuromend <span>benchmark</span></p><h1>Leaderboard</h1>
<p>{escape(facts.cases)}. Click on a heading to sort.</p></header><main>{body}</main>
<footer><p>neuromend {escape(facts.version)}; {escape(facts.hardware)}</p><pre>{escape(facts.command)}</pre></footer>
<script>{script}</script></body></html>
"""


def figure_png(board: Board, cases: Sequence[Case], out: Path) -> bytes | None:
    """All methods on the same case: rows are the three planes through the largest piece of the hole.

    The case is the one whose largest piece is nearest to ``FIGURE_ML``, whatever its scores are; None where there
    is no case.
    """
    rivals = [name for name in board.methods if name != ORACLE]
    if not rivals:
        return None
    pieces = [row["largest_piece_ml"] for row in board.compared(rivals[0])]
    chosen = board.ids[int(np.argmin(np.abs(np.log(pieces) - np.log(FIGURE_ML))))]
    loaded = load(next(case for case in cases if case.id == chosen))
    rows = {name: next(row for row in board.compared(name) if row["id"] == chosen) for name in rivals}
    fills = {name: filled_image(out, row, loaded) for name, row in rows.items()}
    images = {"given": np.where(loaded.mask, 0, loaded.healthy), "healthy": loaded.healthy, **fills}
    sheet = Figure(figsize=(1.7 * len(images), 1.7 * len(PLANES) + 0.7), dpi=120, facecolor="white")
    axes = sheet.subplots(len(PLANES), len(images), squeeze=False)
    display = _display(loaded, loaded.healthy)
    for column, (name, image) in enumerate(images.items()):
        for row_number, plane in enumerate(PLANES):
            axis = axes[row_number, column]
            view = display.lesion_view(plane, display.case.lesions[0], times=2, at_least=0.4)
            axis.imshow(display.grey(image, view), cmap="gray", vmin=0, vmax=255)
            if name == "healthy":
                axis.contour(display.cut_mask(loaded.mask, view), [0.5], colors="#ffc43d", linewidths=0.8)
            axis.set_axis_off()
        score = f"\n{shown(float(rows[name][RANKED_BY]), RANKED_BY)} dB" if name in rows else "\n"
        axes[0, column].set_title(name.replace(", ", "\n") + score, fontsize=7)
    volume = f"{loaded.volume_ml:.1f} ml{', ' + loaded.site if loaded.site else ''}"
    sheet.suptitle(f"{chosen} ({volume}); {COLUMNS[RANKED_BY][0]}", fontsize=8, y=0.02)
    sheet.subplots_adjust(left=0.005, right=0.995, bottom=0.04, top=0.88, wspace=0.03, hspace=0.03)
    stream = BytesIO()
    sheet.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _sections(
    board: Board, facts: Facts, pictures: Mapping[str, Sequence[str]], figure: bytes | None
) -> Iterator[str]:
    if not board.methods:
        yield "<section><h2>No case was finished by all methods</h2></section>"
    else:
        yield _section("Scores", main_table(board), LEGEND)
        if figure is not None:
            address = "data:image/png;base64," + base64.b64encode(figure).decode("ascii")
            picture = f'<img class="same" src="{address}" alt="All methods on the same case">'
            yield f"<section><h2>All methods on the same case</h2>{picture}</section>"
        yield _section(f"{COLUMNS[RANKED_BY][0]} in detail", details_table(board))
        for column in BY_GROUP:
            yield _section(f"{COLUMNS[column][0]} by size and site", group_table(board, column))
        if samples := sample_table(board):
            yield _section("Spread of the samples", samples)
        yield _section("Time and memory", cost_table(board))
    if facts.budgets:
        budgets = table(["model", "what it is", "training", "licence"], facts.budgets)
        yield _section("Training budgets", budgets)
    if board.failures:
        listed = "".join(f"<li>{escape(line)}</li>" for line in board.failures)
        yield f"<section><h2>Runs that failed ({board.left_out} cases left out)</h2><ul>{listed}</ul></section>"
    for method, shown_cases in pictures.items():
        note = f'<p class="muted">The truth with the outline of the hole, and the fill. {CONVENTION}</p>'
        cases = f'<div class="cases">{"".join(shown_cases)}</div>'
        yield f"<section><h2>{escape(method)}: best, median and worst case</h2>{cases}{note}</section>"


def _section(title: str, text: str, note: str = "") -> str:
    """A Markdown table of ours as HTML."""
    head, _, *lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.strip().splitlines()
    ]
    heading = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    rows = "".join(f"<tr>{''.join(f'<td>{_bolded(cell)}</td>' for cell in line)}</tr>" for line in lines)
    made = f"<table class='board'><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"
    words = f'<p class="muted">{escape(note)}</p>' if note else ""
    return f'<section><h2>{escape(title)}</h2><div class="wide">{made}</div>{words}</section>'


def _bolded(cell: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(cell))


def _pictures(board: Board, cases: Sequence[Case], out: Path) -> dict[str, list[str]]:
    """Method -> the figures of its best, median and worst case; every case is read once."""
    wanted: dict[str, list[tuple[str, int, Row]]] = {}
    for method in board.methods:
        ranked = sorted(board.compared(method), key=lambda row: -row[RANKED_BY])
        if method != ORACLE and ranked:
            for place, row in enumerate((ranked[0], ranked[len(ranked) // 2], ranked[-1])):
                wanted.setdefault(row["id"], []).append((method, place, row))
    found: dict[str, list[str]] = {name: [""] * 3 for name in board.methods if name != ORACLE}
    for case in cases:
        if case.id in wanted:
            loaded = load(case)
            for method, place, row in wanted[case.id]:
                found[method][place] = _pair(loaded, row, out, PLACES[place])
    return found


def _pair(loaded: LoadedCase, row: Row, out: Path, place: str) -> str:
    display = _display(loaded, filled_image(out, row, loaded))
    view = display.lesion_view(PLANES[0], display.case.lesions[0], times=2.4, at_least=0.5)
    border = "".join(f"M{a} {b}L{c} {d}" for a, b, c, d in outline(display.cut_mask(loaded.mask, view)))
    drawn = f'<svg viewBox="0 0 {view.pixels} {view.pixels}"><path class="line" d="{border}"/></svg>'
    truth, fill = (grey_uri(display.grey(image, view)) for image in (display.case.before, display.case.after))
    size = f'width="{view.pixels}" height="{view.pixels}"'
    score = f"{shown(row[RANKED_BY], RANKED_BY)} dB, {row['volume_ml']:.1f} ml"
    words = f"{place}: {escape(row['id'])}, {score}" + (f", {escape(row['site'])}" if row["site"] else "")
    return (
        f'<figure><div class="pair"><div class="cut"><img {size} alt="truth" src="{truth}">{drawn}</div>'
        f'<div class="cut"><img {size} alt="fill" src="{fill}"></div></div><figcaption>{words}</figcaption></figure>'
    )


def _display(loaded: LoadedCase, filled: np.ndarray) -> Display:
    case = ReportCase("", before=loaded.healthy, after=filled, mask=loaded.mask, affine=loaded.affine)
    return Display(case, PICTURE_PIXELS)


def _asset(name: str) -> str:
    return files("neuromend.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
