"""The coloured overlays say what their colours mean, and long names of files can be read and told apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from .review_browser import Served, Watched, needs_browser, save_turned, tab
from .review_cases import ball, head

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_browser

# What is between the paired rows is the same, so that it is the end that tells them apart.
LONG = "sub-0001_ses-followup02_acq-mprage_space-T1w_label-lesion_desc-rater{}_mask.nii.gz"


def values_of(page: Watched, name: str) -> Any:
    return nib.load(page.served.desk.out / name).get_fdata()


def short(value: float, digits: int = 3) -> str:
    return f"{float(f'{value:.{digits}g}'):g}"


def marks(page: Watched, name: str) -> list[str]:
    return page.page.locator(f"#scale-{name} .marks-below span").all_inner_texts()


def colours(page: Watched, name: str) -> Any:
    """(256, 4) pixels of a colour bar."""
    pixels = page.page.evaluate(
        f"[...document.querySelector('#scale-{name} canvas').getContext('2d').getImageData(0, 0, 256, 1).data]"
    )
    return np.array(pixels).reshape(256, 4)


def test_each_overlay_has_a_bar_with_numbers_in_units_of_the_scan(page: Watched) -> None:
    assert page.page.is_hidden("#scale-uncertainty")
    assert page.page.is_hidden("#scale-difference")
    page.page.fill("#samples", "2")
    page.page.fill("#steps", "1")
    page.page.select_option("#model", "fastwavelet3d-default")
    page.page.click("#fill")
    page.wait("#results li.chosen")
    page.press("Escape", "Control+s")
    page.until(lambda: "Saved:" in page.text("#notices"))
    low, high = (float(page.page.input_value(f"#window-{end}")) for end in ("low", "high"))
    at = tuple(int(number) for number in page.text("#at-voxel").removeprefix("voxel ").split(","))

    page.press("u")
    page.wait("#scale-uncertainty")
    spread = values_of(page, "scan_inpainted_uncertainty.nii.gz")
    limit = np.percentile(spread[spread > 0], 99, method="inverted_cdf")
    assert marks(page, "uncertainty") == ["0", short(limit / 2), f"{short(limit)} or more"]
    assert page.text("#scale-uncertainty figcaption") == (
        f"Standard deviation of the samples, in the scan's intensities; {short(limit)} is "
        f"{short(100 * limit / (high - low), 2)} % of the grey window. At the crosshair: {short(spread[at])}."
    )
    painted = colours(page, "uncertainty")
    assert (painted[:, 3] == 255).all()
    assert painted[:128].sum() < painted[128:].sum()  # brighter where it is larger

    # The other scale takes its place: two of them over each other could not be read.
    page.press("d")
    page.wait("#scale-difference")
    page.until(lambda: page.page.is_hidden("#scale-uncertainty"))
    assert not page.page.is_checked("#show-uncertainty")
    change = values_of(page, "scan_inpainted.nii.gz") - values_of(page, "../scan.nii.gz")
    limit = np.percentile(np.abs(change[change != 0]), 99, method="inverted_cdf")
    assert marks(page, "difference") == [f"−{short(limit)} or less", "0", f"{short(limit)} or more"]
    here = short(change[at]).replace("-", "−")
    assert f"At the crosshair: {here}." in page.text("#scale-difference figcaption")
    painted = colours(page, "difference")
    assert painted[127, 3] == painted[128, 3] == 0  # what has hardly changed stays grey
    assert painted[0, 2] > painted[0, 0]  # darker: cold
    assert painted[255, 2] < painted[255, 0]  # brighter: warm

    # The share follows the grey window.
    page.page.fill("#window-high", str(low + 2 * (high - low)))
    page.press("Enter")
    half = short(50 * limit / (high - low), 2)
    page.until(lambda: f"is {half} % of the grey window" in page.text("#scale-difference figcaption"))
    page.press("Escape", "d")
    page.until(lambda: page.page.is_hidden("#scale-difference"))


def test_overlays_asked_for_in_haste_end_with_the_last_one(page: Watched) -> None:
    page.page.select_option("#model", "harmonic")
    page.page.fill("#samples", "2")
    page.page.click("#fill")
    page.wait("#results li.chosen")
    page.press("Escape", "u")  # samples that are all the same
    page.wait("#scale-uncertainty")
    assert page.text("#scale-uncertainty figcaption") == "Standard deviation of the samples: zero everywhere."
    assert marks(page, "uncertainty") == ["", "", ""]
    page.press("u", "d", "d", "u", "d", "d")
    page.page.wait_for_timeout(500)
    assert page.page.evaluate("import('/page/viewer.js').then(({viewer}) => viewer.overlays.length)") == 0
    assert page.page.is_hidden("#scale-difference")


def test_long_names_are_shortened_where_files_do_not_differ(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    scan = served.desk.session.add_scan(save_turned(tmp_path, "other.nii.gz", head()))
    names = [LONG.format(rater) for rater in (1, 2)]
    for name in names:
        served.desk.session.add_mask(scan, save_turned(tmp_path, name, ball()), name)
    with tab(browser, served) as page:
        page.page.select_option("#scan", label=page.page.locator("#scan option").nth(1).inner_text())
        page.until(lambda: page.page.locator("#mask option").count() == 3)
        options = page.page.locator("#mask option")
        shown = options.all_inner_texts()[:2]
        assert all("…" in text and text.startswith("sub-000") and "ml)" in text for text in shown)
        assert shown[0] != shown[1]
        assert all(name in (options.nth(k).get_attribute("title") or "") for k, name in enumerate(names))
        assert names[0] in (page.page.get_attribute("#mask", "title") or "")
        # The whole of it can be seen in the closed list.
        wide = "(() => {{ const c = document.createElement('canvas').getContext('2d');"
        wide += "c.font = getComputedStyle(mask).font; return c.measureText('{}').width + 40 <= mask.offsetWidth; }})()"
        assert page.page.evaluate(wide.format(shown[0]))
