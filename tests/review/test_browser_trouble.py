"""What goes wrong, in a real browser: refusals in plain words, a server that is gone, names that are markup."""

from __future__ import annotations

import json
from pathlib import Path

from .review_browser import Watched, needs_browser, save_turned
from .review_cases import MARKUP, ball, head

pytestmark = needs_browser

REFUSED = "Failed to load resource: the server responded with a status of 4"
GONE = "Failed to load resource: net::ERR_"


def drop(page: Watched, path: Path, name: str) -> None:
    """A file dropped on the page under a name of its own."""
    page.page.set_input_files(
        "#file", {"name": name, "mimeType": "application/gzip", "buffer": path.read_bytes()}
    )


def test_an_error_of_the_server_is_told_in_plain_words_and_costs_no_drawing(page: Watched) -> None:
    page.expected = (REFUSED,)
    page.press("b", "Enter")
    drawn = page.ml()
    body = {"code": "WE-09", "what": "four fills are waiting", "why": "one at a time", "fix": "wait for one"}
    page.page.route("**/api/jobs", lambda route: route.fulfill(status=429, body=json.dumps(body)))
    page.press("Control+Enter")
    page.wait(".notice.error")
    told = page.text(".notice.error")
    for part in body.values():
        assert part in told
    assert page.ml() == drawn
    page.page.click(".notice.error button")
    assert page.page.locator(".notice.error").count() == 0


def test_a_fill_that_fails_and_a_fill_without_a_mask_say_so(page: Watched) -> None:
    page.press("Shift+Delete")
    page.press("Control+Enter")
    page.until(lambda: "The mask is empty" in page.text("#notices"))
    page.press("Control+z")
    for path in (page.served.desk.session.folder / "masks").glob("*"):
        path.unlink()
    next(iter(page.served.desk.session.scans.values())).path.write_bytes(b"no scan any more")
    page.expected = (REFUSED,)
    page.press("Control+Enter")
    page.wait(".notice.error .fix")


def test_a_server_that_is_gone_is_told_and_comes_back(page: Watched) -> None:
    page.expected = (GONE,)
    page.served.stop()
    page.wait("#banner")
    assert page.text("#connection") == "not connected"
    assert "drawing is kept" in page.text("#banner")
    page.press("b", "]", "]", "]")
    before = page.ml()
    page.drag(page.at(0, 0.4, 0.4), page.at(0, 0.6, 0.4))
    drawn = page.ml()
    assert drawn > before
    page.page.click("#mask-keep")
    page.wait(".notice.error:has-text('does not answer')")
    page.served.start()
    page.until(lambda: page.page.is_hidden("#banner"))
    page.page.click("#mask-keep")
    page.until(lambda: page.page.is_disabled("#mask-keep"))
    assert page.ml() == drawn


def test_a_page_without_the_key_says_where_to_find_it(page: Watched) -> None:
    page.expected = (REFUSED,)
    page.page.evaluate("sessionStorage.clear()")
    page.page.goto(f"{page.served.address}/#token=wrong")
    page.wait(".notice.error")
    assert "neuromend review" in page.text(".notice.error .fix")


def test_names_that_are_markup_are_shown_as_text(page: Watched, tmp_path: Path) -> None:
    dialogs: list[str] = []
    page.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    drop(page, save_turned(tmp_path, "dropped.nii.gz", head()), MARKUP)
    assert MARKUP in page.text("#dialog")
    page.page.click("#dialog button:has-text('Another scan')")
    page.until(lambda: page.page.locator("#scan option").count() == 2)
    page.until(lambda: page.page.is_hidden("#loading"))
    drop(page, save_turned(tmp_path, "dropped-mask.nii.gz", ball()), f"lesion{MARKUP}")
    page.page.click("#dialog button:has-text('A mask')")
    page.until(lambda: page.ml() > 0)
    page.press("Control+Enter")
    page.wait("#results li.chosen")
    assert page.page.locator("img").count() == 0
    assert dialogs == []


def test_a_mask_of_another_grid_and_a_file_that_is_none_are_refused(page: Watched, tmp_path: Path) -> None:
    page.expected = (REFUSED,)
    before = page.ml()
    drop(page, save_turned(tmp_path, "small.nii.gz", ball()[:-2]), "mask.nii.gz")
    page.page.click("#dialog button:has-text('A mask')")
    page.wait(".notice.error code")
    (tmp_path / "text.nii").write_text("this is no scan")
    page.page.click(".notice.error button")
    drop(page, tmp_path / "text.nii", "text.nii")
    page.page.click("#dialog button:has-text('Another scan')")
    page.wait(".notice.error code")
    drop(page, tmp_path / "text.nii", "notes.txt")
    page.until(lambda: "Drop a NIfTI or MGZ file" in page.text("#notices"))
    assert page.ml() == before
