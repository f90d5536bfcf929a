"""The page about a cohort: doubtful cases first, foreign text harmless, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from neuromend.cohort.group import GroupRow, Spool, write_group, write_table
from neuromend.cohort.index_page import THUMBNAIL, thumbnail, write_page
from neuromend.errors import MissingInputError

CELLS = {"volume_ml": 12.34567, "seam": 1.2, "model": "harmonic", "seconds": 3.0}


def page_of(rows: Sequence[GroupRow], folder: Path) -> str:
    with tempfile.TemporaryFile() as file:
        spool = Spool(file)
        for row in rows:
            spool.add(row)
        write_page(spool, folder / "index.html")
        write_table(spool, folder / "group.tsv")
    return (folder / "index.html").read_text(encoding="utf-8")


def picture(path: Path) -> Path:
    """A picture as a report has it, the cell "before" red and the cell "after" blue."""
    image = Image.new("RGB", (1698, 452))
    image.paste((255, 0, 0), (178, 116, 418, 356))
    image.paste((0, 0, 255), (422, 116, 662, 356))
    image.save(path)
    return path


def test_doubtful_cases_come_first_and_all_numbers_stand_in_the_table(tmp_path: Path) -> None:
    flag = ["IN-18", "clipped"]
    rows = [
        GroupRow("good-2", "done", [], CELLS),
        GroupRow("good-1", "done", [], CELLS, {"GM": [1.0, 0.5, 1.5]}),
        GroupRow("one", "done", [flag], CELLS),
        GroupRow("two", "done", [flag, ["seam", "wide"]], CELLS),
        GroupRow("gone", "missing", [["", "not run"]]),
        GroupRow("bad", "failed", [["IN-02", "truncated"]]),
    ]
    page = page_of(rows, tmp_path)
    assert re.findall(r'data-id="([^"]+)"', page) == ["bad", "gone", "two", "one", "good-1", "good-2"]
    assert re.findall(r'data-state="([^"]+)" data-id', page) == [
        "failed",
        "missing",
        "flagged",
        "flagged",
        "passed",
        "passed",
    ]
    lines = [line.split("\t") for line in (tmp_path / "group.tsv").read_text().splitlines()]
    table = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    assert list(table) == sorted(row.id for row in rows)
    assert (table["two"]["flags"], table["two"]["volume_ml"]) == ("IN-18,seam", "12.3457")
    assert [table["good-1"][f"GM{end}"] for end in ("_ml", "_ml_low", "_ml_high")] == [
        "1.0000",
        "0.5000",
        "1.5000",
    ]
    assert table["bad"]["GM_ml"] == "n/a"


def test_foreign_text_is_shown_and_does_nothing(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    row = GroupRow(evil, "done", [["IN-99", evil]], {"model": evil}, report='a"b/<i>#?.html')
    page = page_of([row], tmp_path)
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert 'href="a%22b/%3Ci%3E%23%3F.html"' in page


def test_messages_name_files_without_their_folders(tmp_path: Path) -> None:
    flag = ["MA-09", "/home/jo/in/m.nii.gz: the image /data/s.nii has 3/4 of it; see a/b"]
    page = page_of([GroupRow("a", "failed", [flag])], tmp_path)
    assert "</b> m.nii.gz: the image s.nii has 3/4 of it; see a/b</li>" in page


def test_the_page_needs_nothing_else_and_its_policy_forbids_it(tmp_path: Path) -> None:
    shown = GroupRow("a", "done", [], CELLS, picture=str(picture(tmp_path / "a.png")), report="a/report.html")
    page = page_of([shown, GroupRow("b", "done", picture=str(tmp_path / "gone.png"))], tmp_path)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy.group(1).startswith("default-src 'none'; img-src data:;")
    for name in ("style", "script"):
        text = page.split(f"<{name}>")[1].split(f"</{name}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy.group(1)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert page.count('src="data:image/jpeg;base64,') == 1
    assert page.count("no picture") == 1
    assert 'href="a/report.html"' in page


def test_a_thumbnail_shows_before_and_after(tmp_path: Path) -> None:
    with Image.open(BytesIO(thumbnail(picture(tmp_path / "a.png")))) as made:
        assert made.size == THUMBNAIL
        before, after = made.getpixel((80, 80)), made.getpixel((240, 80))
    assert before[0] > 200 > 60 > before[2]  # type: ignore[index]
    assert after[2] > 200 > 60 > after[0]  # type: ignore[index]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as caught:
        write_group(tmp_path)
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("BD-09", 66, tmp_path)
    assert list(tmp_path.iterdir()) == []
