"""The page in a real browser: look, draw, fill, compare, save, reload, every shortcut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from .review_browser import (
    TURNED,
    VOXEL_ML,
    Served,
    Watched,
    needs_browser,
    save_turned,
    tab,
)
from .review_cases import ball, head

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_browser


def test_looking_at_a_scan(page: Watched) -> None:
    """Letters, millimetres, wheel, window, planes: what a viewer has, on a scan whose file runs otherwise."""
    letters = [mark.inner_text() for mark in page.page.query_selector_all(".letter")]
    assert letters == ["L", "R", "A", "P", "L", "R", "S", "I", "P", "A", "S", "I"]
    assert page.text("#volume") == f"{ball().sum() * VOXEL_ML:.2f} ml"
    assert page.text("#at-mask") == "in the mask"

    page.page.mouse.click(*page.at(0, 0.25, 0.5))  # the half on which L is written
    page.until(lambda: page.mm()[0] < -10)
    page.press("l")
    page.until(lambda: page.text(".letter") == "R")  # a click means what is seen
    page.page.mouse.click(*page.at(0, 0.25, 0.5))
    page.until(lambda: page.mm()[0] > 10)
    page.press("l")

    before = page.mm()
    page.page.mouse.move(*page.at(0, 0.5, 0.5))
    page.page.mouse.wheel(0, -100)
    page.until(lambda: page.mm() == [before[0], before[1], before[2] + 2.5])
    page.press("PageDown", "ArrowUp", "Shift+ArrowRight")
    page.until(lambda: page.mm() == [before[0] + 12.5, before[1] + 2.5, before[2]])

    # The intensity under the crosshair is the file's, at the place the millimetres and the voxel name.
    i, j, k = (int(number) for number in page.text("#at-voxel").removeprefix("voxel ").split(","))
    np.testing.assert_allclose((TURNED @ [i, j, k, 1])[:3], page.mm(), atol=0.06)
    scan = nib.load(page.served.desk.session.folder.parent / "scan.nii.gz")
    assert float(page.text("#at-value").split()[1]) == scan.get_fdata()[i, j, k]

    automatic = page.page.input_value("#window-high")
    page.page.fill("#window-high", "700")
    page.press("Enter")
    page.drag(page.at(1, 0.5, 0.5), page.at(1, 0.8, 0.5), button="right")
    assert float(page.page.input_value("#window-high")) > 700
    page.press("Escape")
    page.page.click("#window-auto")
    assert page.page.input_value("#window-high") == automatic

    page.page.mouse.dblclick(*page.at(2, 0.5, 0.5))
    page.until(lambda: page.page.locator("[data-view=sagittal][aria-pressed=true]").count())
    page.press("1")


def test_drawing(page: Watched) -> None:
    """Every tool, undone and done again; the file that is kept lies where it was drawn."""
    page.page.select_option("#mask", "new")
    page.until(lambda: page.ml() == 0)
    page.press("b", "]", "]")
    page.drag(page.at(0, 0.4, 0.4), page.at(0, 0.6, 0.4), page.at(0, 0.6, 0.6))
    drawn = page.ml()
    assert drawn > 0.5
    page.press("Control+z")
    assert page.ml() == 0
    page.press("Control+y")
    assert page.ml() == drawn
    page.press("e")
    page.drag(page.at(0, 0.55, 0.6), page.at(0, 0.65, 0.6))
    erased = page.ml()
    assert 0 < erased < drawn
    page.press("g")
    page.until(lambda: page.ml() == erased)  # 2 mm reach no neighbour of a voxel of 2.5 mm
    page.page.fill("#step-mm", "2.5")
    page.page.click("#grow")
    grown = page.ml()
    assert grown > erased
    page.page.click("#shrink")
    assert erased <= page.ml() < grown
    page.press("Escape", "Shift+Delete")
    assert page.ml() == 0

    # A closed outline, filled in on its slice; an open one is refused.
    page.press("b", "[", "[", "[", "[", "[", "[")
    corners = [(0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6), (0.4, 0.4)]
    page.drag(*(page.at(1, *corner) for corner in corners))
    outline = page.ml()
    page.press("i")
    page.page.mouse.click(*page.at(1, 0.5, 0.5))
    assert page.ml() > 1.5 * outline
    page.page.mouse.click(*page.at(1, 0.1, 0.5))
    page.until(lambda: "no closed outline" in page.text("#notices"))

    # A region like the point clicked, and back.
    page.press("Shift+Delete", "r")
    page.page.mouse.click(*page.at(0, 0.5, 0.5))
    assert page.ml() > 1
    page.press("Shift+Delete", "b")
    page.page.check("#brush-ball")
    page.press("v")
    page.page.mouse.click(*page.at(0, 0.35, 0.42))
    page.press("b", "]", "]", "]", "]", "]", "Enter", "k")
    page.until(lambda: page.page.is_disabled("#mask-keep"))
    kept = nib.load([*(page.served.desk.session.folder / "masks").iterdir()][-1])
    np.testing.assert_allclose(kept.affine, TURNED)
    voxels = np.argwhere(kept.get_fdata())
    assert len(voxels) * VOXEL_ML == pytest.approx(page.ml(), abs=0.01)
    np.testing.assert_allclose((TURNED @ [*voxels.mean(axis=0), 1])[:3], page.mm(), atol=0.06)


def test_filling_comparing_saving_and_reloading(page: Watched) -> None:
    """From Fill to files on the disk; the session is there again after a reload."""
    page.until(lambda: "takes about" in page.text("#estimate"))
    page.press("Control+Enter")
    page.wait("#results li.chosen")
    assert page.text("#results li.chosen").startswith("A\nB\nharmonic")
    page.until(lambda: page.page.get_attribute("#stage", "data-shown") == "after")
    assert page.text("#at-after") != ""

    page.press("w", ">", ">")
    assert page.page.input_value("#wipe") == "60"
    assert page.page.evaluate("document.getElementById('after').style.clipPath").startswith("path(")
    handle = page.page.locator(".wipe-handle").first.bounding_box()
    assert handle is not None
    left, _, width, _ = page.tile(0)
    y = handle["y"] + handle["height"] / 2
    page.drag((handle["x"] + handle["width"] / 2, y), (left + 0.25 * width, y))
    assert page.page.input_value("#wipe") == "25"
    page.press("f")
    page.until(lambda: page.page.evaluate("document.getElementById('after').className") == "away")
    page.press("Shift+B")
    assert page.page.is_hidden("#after")
    page.press("Space", "d")
    assert page.page.is_visible("#after")
    page.until(lambda: page.page.is_checked("#show-difference"))
    page.press("d")

    page.page.select_option("#model", "ring-mean")
    page.press("Escape", "Control+Enter")
    page.wait("#results li.chosen:has-text('ring-mean')")
    page.page.click("#results li:has-text('harmonic') .side-button >> nth=0")
    page.wait("#results li:has-text('harmonic') .side-button[aria-pressed=true]")
    page.press(",")
    page.wait("#results li.chosen:has-text('harmonic')")

    page.press("Control+s")
    page.until(lambda: "Saved:" in page.text("#notices"))
    out = page.served.desk.out
    assert (out / "scan_inpainted.nii.gz").is_file()
    assert json.loads((out / "scan_inpainted.json").read_text())["model"]["name"] == "harmonic"

    page.page.reload()
    page.wait("body[data-ready]")
    page.wait("#results li.chosen")
    assert page.page.locator("#results .side-button").count() == 5
    assert page.page.url == f"{page.served.address}/"  # the token is not left in the address

    # The same name once more: nothing is written over without a word.
    page.page.click("#results li:has-text('ring-mean') button[aria-label^=Save]")
    page.expected = ("Failed to load resource: the server responded with a status of 409",)
    page.page.click("#dialog button:has-text('Leave')")
    page.press("Delete")
    page.page.click("#dialog button:has-text('Delete')")
    page.until(lambda: "ring-mean" not in page.text("#results"))


def test_the_default_model_fills_with_samples_and_uncertainty(page: Watched) -> None:
    page.page.select_option("#model", "fastwavelet3d-default")
    page.page.fill("#samples", "2")
    page.page.fill("#steps", "1")
    page.page.click("#fill")
    page.wait("#results li.chosen:has-text('fastwavelet3d')")
    page.page.select_option("#results .sample", "sample-02")
    page.until(lambda: page.page.input_value("#results .sample") == "sample-02")
    page.page.check("#show-uncertainty")
    page.until(
        lambda: (
            page.page.evaluate("import('/page/viewer.js').then(({viewer}) => viewer.overlays.length)") == 1
        )
    )


def test_leaving_with_a_drawing_that_is_not_kept_is_asked_about(page: Watched) -> None:
    page.press("b", "Enter", "g")
    page.page.fill("#step-mm", "5")
    page.page.click("#grow")
    changed = page.ml()
    page.press("Control+z")
    assert page.page.is_disabled("#mask-keep")  # as the server has it
    page.press("Control+y")
    assert page.page.is_enabled("#mask-keep")
    page.page.select_option("#mask", "new")
    page.page.click("#dialog button:has-text('Stay')")
    assert page.ml() == changed
    asked: list[str] = []
    page.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.page.close(run_before_unload=True)
    page.until(lambda: asked)
    assert asked == ["beforeunload"]


def test_every_shortcut_of_the_help_works(page: Watched) -> None:
    """Each key of the table does what it says, or nothing, and never harm; the help lists them all."""
    page.press("?")
    shown = page.text("#help")
    page.press("?")
    assert page.page.is_hidden("#help")
    table = page.page.evaluate(
        "import('/page/keys.js').then(({actions}) => Object.values(actions).flat().map(a => a.slice(0, 3)))"
    )
    assert len({key for _, key, _ in table}) == len(table) > 50
    for _, _, text in table:
        assert text in shown
    for name, key, _ in table:
        if name in ("open", "save", "fill"):
            continue  # a chooser of files; the others are tested with their results
        page.press("+" if key == "+" else key.replace("Ctrl", "Control"))
        if page.page.is_visible("#help"):
            page.press("Escape")
    page.press("1", "v", "Shift+N")
    assert page.page.locator("[data-view=all][aria-pressed=true]").count() == 1
    with page.page.expect_file_chooser():
        page.page.evaluate("0")  # answered when the browser knows that a chooser is waited for
        page.press("o")


def test_the_page_is_accessible_by_name_and_by_contrast(page: Watched) -> None:
    nameless = page.page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea')].filter(e => !(e.getAttribute('aria-label')
        || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"""
    )
    assert nameless == []
    poor = page.page.evaluate(CONTRAST)
    assert poor == []
    page.press("Tab")
    assert page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 1280


CONTRAST = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const f = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = e => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0.9) return c; } return [0, 0, 0]; };
  return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.disabled &&
    !e.closest('.off') && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
      const [a, b] = [light(numbers(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 80)]; }).filter(([ratio]) => ratio < 4.5);
})()"""


def test_switching_scans_lets_go_of_the_textures_of_the_one_before(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    served.desk.session.add_scan(save_turned(tmp_path, "other.nii.gz", head()))
    with tab(browser, served) as page:
        page.page.evaluate(COUNTING)
        ids = page.page.evaluate("[...document.getElementById('scan').options].map(option => option.value)")
        shown = "import('/page/bus.js').then(({state}) => state.scan.id)"
        living = []
        for switch in range(6):
            chosen = ids[(switch + 1) % 2]
            page.page.select_option("#scan", chosen)
            page.until(lambda: page.page.is_hidden("#loading"))
            page.until(lambda chosen=chosen: page.page.evaluate(shown) == chosen)
            living.append(page.page.evaluate("window.livingTextures"))
        assert living[5] == living[3] == living[1]


COUNTING = """import('/page/viewer.js').then(({viewer}) => {
  window.livingTextures = 0;
  const {gl} = viewer.before;
  const [make, drop] = [gl.createTexture.bind(gl), gl.deleteTexture.bind(gl)];
  gl.createTexture = () => { window.livingTextures += 1; return make(); };
  gl.deleteTexture = texture => { window.livingTextures -= gl.isTexture(texture) ? 1 : 0; drop(texture); };
})"""
