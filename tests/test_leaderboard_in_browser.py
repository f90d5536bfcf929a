"""The page in a real browser: a click on a heading sorts its table; nothing is fetched, nothing refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from neuromend.leaderboard_page import page

from .report.report_browser import CHROMIUM, Browser
from .test_leaderboard import FACTS, board

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    (folder / "leaderboard.html").write_text(page(board(), FACTS, [], folder, None), encoding="utf-8")
    with Browser(folder / "profile") as opened:
        opened.open(folder / "leaderboard.html")
        yield opened


def order(browser: Browser, table: int) -> list[str]:
    rows = f"[...document.querySelectorAll('.board')[{table}].tBodies[0].rows]"
    return list(browser.value(f"{rows}.map(row => row.cells[0].textContent)"))


def click(browser: Browser, table: int, column: int) -> str:
    heading = f"document.querySelectorAll('.board')[{table}].tHead.rows[0].cells[{column}]"
    browser.value(f"{heading}.querySelector('button').click()")
    return str(browser.value(f"{heading}.getAttribute('aria-sort')"))


def test_a_click_on_a_heading_sorts_by_number_or_by_letter(browser: Browser) -> None:
    assert order(browser, 0) == ["good", "close", "poor", "oracle"]
    assert click(browser, 0, 1) == "ascending"
    assert order(browser, 0) == ["poor", "close", "good", "oracle"]  # what has no number stays last
    assert click(browser, 0, 1) == "descending"
    assert order(browser, 0) == ["good", "close", "poor", "oracle"]
    assert click(browser, 0, 0) == "ascending"
    assert order(browser, 0) == ["close", "good", "oracle", "poor"]
    assert order(browser, 1) == ["good", "close", "poor", "oracle"]  # the other tables stay


def test_nothing_is_fetched_and_nothing_is_refused(browser: Browser) -> None:
    asked = [
        e["params"]["request"]["url"]
        for e in browser.events
        if e.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    problems = [e for e in browser.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert problems == []
