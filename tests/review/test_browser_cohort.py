"""A cohort in a real browser: flags, thumbnails, verdicts with notes, filters, the table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from neuromend.filling import fill
from neuromend.review.cohort import Cohort

from .review_browser import Served, Watched, needs_browser, tab
from .review_cases import make_desk, save_mask, save_scan

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_browser

CASES = ("case-1", "case-2", "case-3")


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Watched]:
    """A fill of a small scan and two copies of it, each beside its scan, as a cohort."""
    first = tmp_path / "cohort" / CASES[0]
    first.mkdir(parents=True)
    fill(save_scan(first), save_mask(tmp_path), first / f"{CASES[0]}_inpainted.nii.gz", model="harmonic")
    for name in CASES[1:]:
        copy = tmp_path / "cohort" / name
        shutil.copytree(first, copy)
        (copy / f"{CASES[0]}_inpainted.json").rename(copy / f"{name}_inpainted.json")
    desk = make_desk(tmp_path, model="harmonic")
    desk.cohort = Cohort(tmp_path / "cohort", desk.session)
    served = Served(desk)
    try:
        with tab(browser, served) as opened:
            yield opened
    finally:
        served.stop()
        desk.close()


def current(page: Watched) -> str:
    return page.text(".case[aria-current=true] .case-name")


def test_judging_a_cohort(page: Watched, tmp_path: Path) -> None:
    page.wait(".case[aria-current=true]")
    names = page.page.locator(".case-name").all_inner_texts()
    assert len(names) == 3
    assert current(page) == names[0]
    page.wait("#results li.chosen")  # the fill of the case is shown at once
    page.until(
        lambda: page.page.evaluate(
            "[...document.images].every(i => i.src.startsWith('blob:') && i.naturalWidth)"
        )
    )

    page.press("7")
    page.until(lambda: page.page.locator(".verdict-mark.accept").count() == 1)
    page.press("n")
    page.until(lambda: current(page) == names[1])
    page.press("9", "Shift+N")
    page.page.keyboard.type("seam <b>visible</b>")
    page.until(lambda: page.text("#verdict-saved") == "saved")
    page.press("Escape", "n")
    page.until(lambda: current(page) == names[2])
    page.page.click("[data-verdict=needs-edit]")
    page.until(lambda: "3 of 3" in page.text("#case-count"))
    page.press("n")
    page.until(lambda: current(page) == names[0])
    page.press("p", "p")
    page.until(lambda: current(page) == names[1])
    assert page.page.input_value("#note") == "seam <b>visible</b>"

    stored = [
        json.loads(path.read_text()) for path in sorted((tmp_path / "cohort" / "review").glob("*.json"))
    ]
    assert [one["verdict"] for one in stored] == ["accept", "reject", "needs-edit"]
    assert stored[1]["note"] == "seam <b>visible</b>"

    page.page.select_option("#case-show", "reject")
    assert page.page.locator(".case").count() == 1
    page.page.select_option("#case-show", "all")
    page.press("Escape", "/")
    page.page.keyboard.type(names[2][-1])
    page.until(lambda: page.page.locator(".case").count() == 1)
    page.page.fill("#case-filter", "")

    with page.page.expect_download() as download:
        page.page.click("#export")
    table = Path(download.value.path()).read_text().splitlines()
    assert table[0] == "case\tverdict\tnote\ttime"
    assert [row.split("\t")[1] for row in table[1:]] == ["accept", "reject", "needs-edit"]

    page.page.reload()
    page.wait("body[data-ready]")
    page.until(lambda: current(page) == names[1])
    assert page.page.locator("[data-verdict=reject][aria-pressed=true]").count() == 1
    page.press("9")  # the same verdict again takes it back
    page.until(lambda: page.page.locator(".verdict-mark.reject").count() == 0)
