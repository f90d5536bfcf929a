"""Every code that the source uses is explained in docs/errors.md, with the way it really ends, and no other."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from neuromend import errors
from neuromend.interrupts import InterruptedRunError, TerminatedRunError

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"[A-Z]{2}-\d\d")
LEVELS = {"pass": "check", "note": "note", "warning": "warning"}


@cache
def documented() -> dict[str, set[str]]:
    """Code -> the ways it ends, from the table."""
    table = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split("## All codes")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    assert all(len(row) == 4 and all(row) for row in rows)
    codes = [row[0] for row in rows if CODE.fullmatch(row[0])]
    assert codes == sorted(set(codes)), "the table is not sorted, or has a code twice"
    return {row[0]: set(row[2].split(", ")) for row in rows if CODE.fullmatch(row[0])}


@cache
def used() -> dict[str, set[str]]:
    """Code -> the ways it ends, as far as the source tells without running it."""
    statuses = {
        name: str(kind.exit_status)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.NeuromendError)
    }
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "src" / "neuromend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                found[node.value] |= set()
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            first = node.args[0]
            if not (
                isinstance(first, ast.Constant)
                and isinstance(first.value, str)
                and CODE.fullmatch(first.value)
            ):
                continue
            if node.func.id in statuses:
                found[first.value].add(statuses[node.func.id])
            elif node.func.id == "Finding" and isinstance(node.args[1], ast.Constant):
                found[first.value].add(LEVELS[node.args[1].value])
    return found


def test_every_code_of_the_source_is_documented() -> None:
    assert sorted(set(used()) - set(documented())) == []


def test_every_documented_code_is_in_the_source() -> None:
    assert sorted(set(documented()) - set(used())) == []


@pytest.mark.parametrize("code", sorted(used()))
def test_the_table_tells_how_a_code_ends(code: str) -> None:
    assert used()[code] <= documented().get(code, set())


def test_the_table_of_exit_statuses_is_whole() -> None:
    table = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split("## All codes")[0]
    listed = {
        int(number)
        for line in table.splitlines()
        for number in re.findall(r"\d+", line.split("|")[1:2].__str__())
    }
    constants = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert listed == constants
    ends = {way for ways in documented().values() for way in ways}
    assert ends <= {str(value) for value in constants} | set(LEVELS.values()) | {
        "page"
    }  # of neuromend review


def test_stops_end_with_the_statuses_of_their_signals() -> None:
    assert (InterruptedRunError.exit_status, TerminatedRunError.exit_status) == (130, 143)
