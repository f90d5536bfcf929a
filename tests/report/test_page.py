"""The page: self-contained, safe against foreign text, small, complete."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from neuromend.findings import Finding
from neuromend.report import ReportCase, render_page
from neuromend.report.planes import Display
from neuromend.report.text import BANNER, clean, number

from .report_cases import EVIL_NAME, FINDINGS, affine_for, case, record, with_samples


class Page(HTMLParser):
    """Every tag with its attributes, and the text of the page, of its style and of its script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("style", "script", "h1", "title", "pre"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else "text"
        self.texts[where] = self.texts.get(where, "") + data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_asks_for_nothing_outside_itself() -> None:
    page = render_page(with_samples(case(), 2))
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    parsed = Page(page)
    for tag, attributes in parsed.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "audio", "video", "use"}
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or tag != "img"
        assert "srcset" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert len(parsed.attributes("img")) > 20


def test_the_policy_allows_this_style_and_this_script_and_nothing_else() -> None:
    parsed = Page(render_page(case()))
    (policy,) = (
        attributes["content"]
        for attributes in parsed.attributes("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("style", "script"):
        digest = hashlib.sha256(parsed.texts[kind].encode()).digest()
        assert rules[f"{kind}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_no_style_or_handler_stands_in_an_attribute() -> None:
    for _, attributes in Page(render_page(with_samples(case(), 2))).tags:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)


def test_foreign_text_is_shown_and_never_obeyed() -> None:
    evil = (
        record()
        | {
            "command": ["neuromend", "fill", "-i", EVIL_NAME],
            "model": {"name": EVIL_NAME, "version": EVIL_NAME, "sha256": EVIL_NAME, "licence": EVIL_NAME},
            "outside_mask": {"identical": True, "sha256": EVIL_NAME},
            "errors": [EVIL_NAME],
            EVIL_NAME: "</script><script>alert(1)</script>",
        }
        | dict.fromkeys(("version", "date", "method", "seed", "steps", "device"), EVIL_NAME)
    )
    findings = [Finding(EVIL_NAME, "note", EVIL_NAME)]
    page = render_page(case(title=EVIL_NAME, findings=findings, record=evil))
    parsed = Page(page)
    assert all((image["src"] or "").startswith("data:") for image in parsed.attributes("img"))
    assert len(parsed.attributes("script")) == 1
    assert parsed.texts["h1"] == EVIL_NAME
    assert "<img src=x" not in page
    assert html.escape(EVIL_NAME) in page


@pytest.mark.parametrize(
    "title", ["x" * 20_000, "bad \udcff name", "right\u202eto left", "nul\0", "$policy ${style}", ""]
)
def test_any_title_gives_a_page_that_can_be_written(title: str) -> None:
    page = render_page(case(title=title))
    page.encode("utf-8")
    assert Page(page).texts.get("h1", "") == clean(title)
    assert "\u202e" not in page
    assert "\0" not in page


def test_the_page_has_every_section_even_when_there_is_nothing_to_say() -> None:
    page = render_page(case(findings=(), record={}))
    for title in ("Before and after", "Checks", "Methods", "About", "Errors", "Provenance"):
        assert re.search(rf"<h2 [^>]*>{title}</h2>", page)
    assert "No errors were recorded." in page
    assert "No checks were recorded." in page
    assert page.count(BANNER) == 2


def test_checks_are_listed_with_the_worst_first() -> None:
    page = render_page(case())
    levels = re.findall(r'<tr><td><span class="level \w+">(\w+)</span>', page)
    assert levels == ["WARN", "NOTE", "PASS"]
    assert all(finding.message in page for finding in FINDINGS)


def test_identical_voxels_are_counted_and_a_change_is_shouted() -> None:
    made = case()
    outside = made.mask.size - int(made.mask.sum())
    page = render_page(made)
    assert f"Voxels outside the mask: identical ({outside:,})" in page
    assert "c0" * 32 in page
    after = made.after.copy()
    after[0, 0, 0] += 5
    changed = render_page(case(after=after))
    assert f"CHANGED (1 of {outside:,} differ)" in changed
    assert "identical (" not in changed


def test_a_file_that_was_found_changed_is_shouted_too() -> None:
    page = render_page(case(record=record() | {"outside_mask": {"identical": False}}))
    assert "CHANGED (the file differs)" in page


def test_the_methods_paragraph_is_the_one_that_was_given_as_text() -> None:
    page = render_page(case(methods="Filled with <b>neuromend</b> 1.2.3."))
    assert "Filled with &lt;b&gt;neuromend&lt;/b&gt; 1.2.3." in page
    assert "not recorded" in Page(render_page(case())).texts["text"]


def test_the_settings_of_the_run_are_listed() -> None:
    text = Page(render_page(case())).texts["text"]
    for words in ("neuromend 0.1.0", "neuromend-t1, version 1", "9f" * 32, "fastwavelet3d", "1234", "cpu"):
        assert words in text


def test_the_command_can_be_typed_again_and_the_record_is_whole() -> None:
    parsed = Page(render_page(case()))
    assert "neuromend fill -i 'my scan.nii.gz'" in parsed.texts["text"]
    assert json.loads(parsed.texts["pre"]) == record()


def test_every_lesion_has_three_planes_twice_with_both_sides() -> None:
    page = render_page(case())
    assert page.count('<figure class="head">') == page.count('<figure class="close">') == 3
    assert page.count('class="before" width') == page.count('class="after" width') == 6
    assert page.count('class="outline"') == 6
    for letter in "LRAPSI":
        assert f">{letter}</span>" in page


def test_uncertainty_and_samples_appear_only_where_they_exist() -> None:
    plain, sampled = render_page(case()), render_page(with_samples(case(), 2))
    assert "toggle-uncertainty" not in plain.split("<script>")[0]
    assert 'id="toggle-uncertainty"' in sampled
    assert sampled.count('class="overlay uncertainty"') == 6
    assert sampled.count('class="sample"') == 2
    assert "in the scan's units" in sampled
    assert "<dd>2; after is their mean</dd>" in sampled
    assert "<dt>Samples</dt>" not in plain


def test_each_scale_says_what_its_end_is_of_the_grey_window() -> None:
    """The units of a scan mean nothing by themselves."""
    made = with_samples(case(), 2)
    made = dataclasses.replace(made, uncertainty=np.where(made.mask, 5.0, 0.0))
    display = Display(made)
    low, high = display.window
    page = render_page(made)
    assert (
        f"<b>0</b><b>2.50</b><b>5.00 or more</b></span><figcaption>5.00 is {500 / (high - low):.2g} %" in page
    )
    limit = display.difference_limit
    assert f"{number(limit)} is {float(f'{100 * limit / (high - low):.2g}'):g} % of the grey window." in page


def test_forty_lesions_are_counted_and_six_are_drawn() -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[2:22:5, 2:29:6, 12:14] = True
    mask[2:22:5, 2:29:6, 18:20] = True
    made = case(mask=mask)
    assert made.lesion_count == 40
    page = render_page(made)
    assert page.count('<section class="lesion"') == 6
    assert "34 smaller lesions are filled too" in page
    assert "in 40 lesions" in page


@pytest.mark.parametrize("corner", [(0, 0, 0), (23, 29, 25)])
def test_one_voxel_at_the_border_gives_a_page(corner: tuple[int, int, int]) -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[corner] = True
    assert "1 voxel, centre" in render_page(case(mask=mask))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (5, 1, 4)])
def test_tiny_volumes_give_a_page(shape: tuple[int, int, int]) -> None:
    scan = np.ones(shape, dtype=np.int16)
    mask = np.zeros(shape, dtype=bool)
    mask[0, 0, 0] = True
    render_page(ReportCase("tiny", scan, scan, mask, affine_for("RAS", shape, (1.0, 2.0, 3.0))))


def test_an_empty_mask_gives_a_page_that_says_so() -> None:
    made = case(mask=np.zeros((24, 30, 26), dtype=bool))
    page = render_page(ReportCase("empty", made.after, made.after, made.mask, made.affine))
    assert "The mask is empty: nothing was filled." in page
    assert 'id="viewer"' not in page


def test_nan_and_infinity_outside_the_mask_do_not_reach_the_page() -> None:
    made = case()
    before, after = made.before.copy(), made.after.copy()
    for value, place in ((np.nan, 0), (np.inf, 1), (-np.inf, 2)):
        before[place, :5] = after[place, :5] = value
    page = render_page(case(before=before, after=after))
    assert "identical (" in page
    visible = page.split("<style>")[0] + page.split("</style>")[1].split("<script>")[0]
    words = re.sub(r'src="[^"]*"', "", visible)
    assert not re.search(r"\b(nan|inf)\b", words, re.IGNORECASE)


def test_an_oblique_grid_is_mentioned() -> None:
    affine = affine_for("RAS", (24, 30, 26), (2.0, 2.0, 2.0), 12.0)
    assert "tilted by 12°" in render_page(case(affine=affine))
    assert "tilted" not in render_page(case())


def test_the_worst_page_stays_under_five_megabytes() -> None:
    """Pure noise hardly compresses: six large lesions and six samples in it are more than any real scan."""
    shape = (340, 330, 12)
    rng = np.random.default_rng(9)
    noise = rng.integers(0, 4096, shape).astype(np.int16)
    mask = np.zeros(shape, dtype=bool)
    for column in range(6):
        mask[10 + 53 * column : 50 + 53 * column, 20:310, 2:10] = True
    affine = affine_for("RAS", shape, (0.5, 0.5, 5.0))
    page = render_page(ReportCase("noise", noise, noise, mask, affine, noise, (noise,) * 6))
    assert len(page.encode()) < 5_000_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (1234.5, "1,234"),
        (12.345, "12.3"),
        (0.00123, "0.00123"),
        (-7.0, "-7.00"),
        (4.2e-9, "4.20e-09"),
        (float("nan"), "n/a"),
    ],
)
def test_numbers_have_three_digits(value: float, words: str) -> None:
    assert number(value) == words
