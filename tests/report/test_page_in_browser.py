"""The page in a real browser: keys, flicker, reduced motion, no network, no refused style or script."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from neuromend.report import render_page

from .report_browser import CHROMIUM, Browser
from .report_cases import EVIL_NAME, case, with_samples

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[6:10, 10:14, 10:14] = mask[15:17, 10:12, 10:12] = True
    page = render_page(with_samples(case(mask=mask, title=EVIL_NAME), 2))
    (folder / "report.html").write_text(page, encoding="utf-8")
    with Browser(folder / "profile") as opened:
        opened.page = folder / "report.html"
        yield opened


@pytest.fixture(autouse=True)
def fresh_page(browser: Browser) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[])
    browser.open(browser.page)


def pressed(browser: Browser, name: str) -> bool:
    return bool(browser.value(f"document.getElementById('{name}').getAttribute('aria-pressed') === 'true'"))


def test_nothing_is_fetched_and_nothing_is_refused(browser: Browser) -> None:
    requests = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert all(url.startswith(("data:image/png", "file:")) for url in requests)
    assert not [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert browser.value("[...document.images].every((image) => image.naturalWidth > 0)")
    assert browser.value("document.querySelector('h1').textContent") == EVIL_NAME


def test_keys_choose_the_side_and_move_the_divider(browser: Browser) -> None:
    browser.press("b")
    assert browser.value("viewer.dataset.side") == "before"
    assert pressed(browser, "before")
    browser.press("a")
    assert browser.value("viewer.dataset.side") == "after"
    browser.press("ArrowRight")
    assert browser.value("slider.value") == "5"
    assert browser.value("viewer.dataset.side") == "both"
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.value("slider.value") == "0"


def test_the_divider_really_covers_the_picture(browser: Browser) -> None:
    browser.press("ArrowRight")
    clip = "getComputedStyle(document.querySelector('.stage .after')).clipPath"
    assert browser.value(clip) == "inset(0px 0px 0px 55%)"


def test_keys_toggle_the_overlays_and_two_colour_scales_never_mix(browser: Browser) -> None:
    assert pressed(browser, "toggle-mask")
    browser.press("m")
    assert not pressed(browser, "toggle-mask")
    browser.press("u")
    assert pressed(browser, "toggle-uncertainty")
    browser.press("d")
    assert pressed(browser, "toggle-difference")
    assert not pressed(browser, "toggle-uncertainty")
    shown = "getComputedStyle(document.querySelector('.overlay.{}')).visibility"
    assert browser.value(shown.format("difference")) == "visible"
    assert browser.value(shown.format("uncertainty")) == "hidden"


def test_keys_go_through_the_lesions_and_around(browser: Browser) -> None:
    visible = "[...document.querySelectorAll('.lesion')].map((one) => one.offsetHeight > 0)"
    assert browser.value(visible) == [True, False]
    browser.press("n")
    assert browser.value(visible) == [False, True]
    browser.press("n")
    assert browser.value(visible) == [True, False]
    browser.press("p")
    assert browser.value(visible) == [False, True]


def test_flicker_shows_both_sides_in_turn_and_stops(browser: Browser) -> None:
    browser.press("f")
    assert pressed(browser, "flicker")
    first = browser.value("viewer.dataset.side")
    browser.wait_for(f"viewer.dataset.side !== '{first}'")
    browser.press("f")
    assert not pressed(browser, "flicker")
    assert browser.value("viewer.dataset.side") == "after"


def test_nothing_moves_by_itself_where_motion_is_unwanted(browser: Browser) -> None:
    browser.press("f")
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}]
    )
    browser.wait_for("flicker.getAttribute('aria-pressed') === 'false'")
    before = browser.value("viewer.dataset.side")
    browser.press("f")
    assert not pressed(browser, "flicker")
    assert browser.value("viewer.dataset.side") != before


def test_the_shortcuts_can_be_switched_off(browser: Browser) -> None:
    browser.value("shortcuts.click()")
    browser.press("b")
    assert browser.value("viewer.dataset.side") == "both"


def test_every_control_can_be_reached_with_the_tab_key(browser: Browser) -> None:
    reached = set()
    for _ in range(30):
        browser.press("Tab")
        reached.add(browser.value("document.activeElement.id || document.activeElement.textContent"))
    controls = {
        "before",
        "after",
        "flicker",
        "slider",
        "toggle-mask",
        "toggle-uncertainty",
        "copy",
        "shortcuts",
    }
    assert controls <= reached


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_every_width(browser: Browser, width: int) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=720, deviceScaleFactor=1, mobile=False
    )
    assert browser.value("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_aa_asks_for(browser: Browser, scheme: str) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    too_weak = browser.value(CONTRAST)
    assert too_weak == []


CONTRAST = """
(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backOf = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const back = parts(getComputedStyle(at).backgroundColor);
      if (back.length === 3 || back[3] === 1) return back;
    }
    return [255, 255, 255];
  };
  const weak = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.matches("script, .letter, .tag")) continue;
    const style = getComputedStyle(element);
    const ink = light(parts(element.closest("svg") ? style.fill : style.color));
    const back = light(backOf(element));
    const ratio = (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
    if (ratio < 4.5) weak.push(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
  }
  return weak;
})()
"""
