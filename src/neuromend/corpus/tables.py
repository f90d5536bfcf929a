"""The tables that a data set may come with: its cases, its persons' splits."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from neuromend.corpus.cache import SPLITS
from neuromend.errors import InputError, MissingInputError

CASE_COLUMNS = ("id", "image")
OPTIONAL_CASE_COLUMNS = ("subject", "split", "lesion", "tissue", "healthy_mask", "mni", "kind")
PATHS = ("image", "lesion", "tissue", "mni")


def read_cases_table(table: Path) -> list[dict[str, Any]]:
    """Read a table of cases: the arguments of ``layouts.Source``, a line a case.

    Columns: id, image, and if wanted subject (without it every case is a person of its own), split, lesion,
    tissue, healthy_mask, mni and kind ("scan" or "labels"). Relative paths start at the table's folder.

    Raises:
        MissingInputError: IN-38, no such table.
        InputError: TR-06, a line is wrong.
    """
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for number, cells in _rows(table, CASE_COLUMNS, OPTIONAL_CASE_COLUMNS):
        name = cells["id"]
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise _bad(table, f"line {number} has the id '{name}', expected letters, digits, . _ -")
        if name.casefold() in seen:
            raise _bad(table, f"lines {seen[name.casefold()]} and {number} have the id '{name}'")
        seen[name.casefold()] = number
        split, kind = cells.get("split") or None, cells.get("kind") or "scan"
        if split is not None and split not in SPLITS:
            raise _bad(table, f"line {number} has the split '{split}', expected {', '.join(SPLITS)}")
        if kind not in ("scan", "labels"):
            raise _bad(table, f"line {number} has the kind '{kind}', expected scan or labels")
        row: dict[str, Any] = {
            "id": name,
            "subject": cells.get("subject") or name,
            "split": split,
            "kind": kind,
        }
        row |= {key: table.parent / cells[key] for key in PATHS if cells.get(key)}
        if cells.get("healthy_mask"):
            row["masks"] = (("healthy", table.parent / cells["healthy_mask"]),)
        rows.append(row)
    return rows


def read_subjects_table(table: Path) -> dict[str, str]:
    """Subject -> split, from a table with the columns subject and split (others are passed over).

    Raises:
        MissingInputError: IN-38, no such table.
        InputError: TR-06, a line is wrong; TR-10, a subject is in two splits.
    """
    splits: dict[str, str] = {}
    for number, cells in _rows(table, ("subject", "split"), None):
        subject, split = cells["subject"], cells["split"]
        if split not in SPLITS:
            raise _bad(table, f"line {number} has the split '{split}', expected {', '.join(SPLITS)}")
        if splits.setdefault(subject, split) != split:
            raise InputError(
                "TR-10",
                f"line {number}: subject '{subject}' is in '{split}', before in '{splits[subject]}'",
                why="scores on a person whom the network has seen in training mean nothing",
                fix="give every subject one split",
                path=table,
            )
    return splits


def participants_splits(dataset: Path) -> dict[str, str]:
    """Subject -> split, of a BIDS data set whose participants.tsv has a column split; empty without one.

    Raises:
        InputError: TR-06, a split is none of ours.
    """
    table = dataset / "participants.tsv"
    if not table.is_file():
        return {}
    head = table.read_text(encoding="utf-8-sig").splitlines()[:1]
    if not head or not {"participant_id", "split"} <= set(head[0].split("\t")):
        return {}
    splits = {}
    for number, cells in _rows(table, ("participant_id",), None):
        split = cells["split"]
        if split in ("", "n/a"):
            continue
        if split not in SPLITS:
            raise _bad(table, f"line {number} has the split '{split}', expected {', '.join(SPLITS)}")
        splits[cells["participant_id"]] = split
    return splits


def _rows(
    table: Path, needed: tuple[str, ...], optional: tuple[str, ...] | None
) -> list[tuple[int, dict[str, str]]]:
    """Number and cells of every line; ``optional`` None allows any other column."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(table, f"it is no text in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise MissingInputError(
            "IN-38",
            f"the table cannot be read ({error.strerror})",
            why="it lists what to prepare",
            fix=f"check the path: ls -l '{table}'",
            path=table,
        ) from error
    lines = list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    head = [name.strip() for name in lines[0]] if lines else []
    for name in needed:
        if name not in head:
            raise _bad(table, f"the heading has no column '{name}'")
    unknown = [name for name in head if optional is not None and name not in (*needed, *optional)]
    if unknown or len(set(head)) < len(head):
        raise _bad(table, f"the heading has a column '{unknown[0]}'" if unknown else "a column stands twice")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        if len(cells) != len(head):
            raise _bad(table, f"line {number} has {len(cells)} cells, the heading {len(head)}")
        row = dict(zip(head, cells, strict=True))
        empty = [name for name in needed if not row[name]]
        if empty:
            raise _bad(table, f"line {number} has no {empty[0]}")
        rows.append((number, row))
    return rows


def _bad(table: Path, what: str) -> InputError:
    return InputError(
        "TR-06",
        what,
        why="a case or a split that is not understood could put a person on two sides",
        fix="correct the table (tabs between the columns); docs/how-to/prepare.md shows one",
        path=table,
    )
