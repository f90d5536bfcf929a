"""The picture: a PNG for every case, legible text, the right cuts in the right places."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuromend.report import ReportCase, write_picture
from neuromend.report.drawing import OUTLINE, colour_table, outline
from neuromend.report.picture import BETWEEN_PLANES, CELL, FOOT, GAP, HEAD, LABELS, MARGIN

from .report_cases import EVIL_NAME, affine_for, ball, case, with_samples


def picture_of(made: ReportCase) -> Image.Image:
    stream = BytesIO()
    write_picture(made, stream)
    return Image.open(stream)


def cell(image: Image.Image, column: int, row: int = 0) -> np.ndarray:
    """Pixels of one cut; column counts all cuts of a row, two for each plane."""
    left = MARGIN + LABELS + column * (CELL + GAP) + column // 2 * (BETWEEN_PLANES - GAP)
    top = HEAD + row * (CELL + GAP)
    return np.asarray(image.crop((left, top, left + CELL, top + CELL)).convert("RGB"))


def test_the_picture_is_a_png_of_the_expected_size(tmp_path: Path) -> None:
    write_picture(case(), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.format == "PNG"
        width = 2 * MARGIN + LABELS + 6 * CELL + 3 * GAP + 2 * BETWEEN_PLANES
        assert image.size == (width, HEAD + CELL + GAP + FOOT)


def test_the_outline_is_drawn_before_and_not_after() -> None:
    image = picture_of(case())
    amber = [np.all(cell(image, column) == OUTLINE, axis=-1).sum() for column in range(6)]
    assert min(amber[0::2]) > 20
    assert max(amber[1::2]) == 0


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR"])
def test_a_blob_at_the_patients_left_front_top_is_drawn_there(codes: str) -> None:
    shape = (40, 44, 36)
    affine = affine_for(codes, shape, (2.0, 2.0, 2.0), 10.0)
    head, brain = ball(shape, affine, (0, 0, 0), 34.0), ball(shape, affine, (0, 0, 0), 31.0)
    before = np.where(brain, 60.0, 200.0 * head)  # the bright rim makes the window
    after = np.where(ball(shape, affine, (-18, 14, 10), 6.0), 200.0, before)
    lesion = ball(shape, affine, (-12, 8, 5), 18.0)
    image = picture_of(ReportCase("blob", before, after, lesion, affine))
    inner = slice(CELL // 5, CELL - CELL // 5)  # without letters and rim
    middle = CELL * 3 / 10
    for column, (low_columns, low_rows) in {1: (True, True), 3: (True, True), 5: (False, True)}.items():
        bright = cell(image, column)[inner, inner].min(axis=-1) > 200
        rows, columns = np.nonzero(bright)
        assert (columns.mean() < middle) == low_columns
        assert (rows.mean() < middle) == low_rows


def test_uncertainty_adds_a_column_to_each_plane() -> None:
    plain, certain = picture_of(case()), picture_of(with_samples(case(), 2))
    assert certain.width == plain.width + 3 * (CELL + GAP)


def test_at_most_three_lesions_are_drawn() -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[::6, ::6, ::6] = True
    assert picture_of(case(mask=mask)).height == HEAD + 3 * (CELL + GAP) + FOOT


def test_an_empty_mask_gives_a_picture_of_the_middle() -> None:
    made = case(mask=np.zeros((24, 30, 26), dtype=bool))
    image = picture_of(ReportCase("empty", made.after, made.after, made.mask, made.affine))
    assert cell(image, 0).max() > 200


@pytest.mark.parametrize("title", [EVIL_NAME, "x" * 20_000, "名前", "bad \udcff name", "a\nb\tc\0d", ""])
def test_any_title_can_be_drawn(title: str) -> None:
    assert picture_of(case(title=title)).height == HEAD + CELL + GAP + FOOT


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (5, 1, 4)])
def test_tiny_volumes_are_drawn(shape: tuple[int, int, int]) -> None:
    scan = np.ones(shape, dtype=np.int16)
    mask = np.zeros(shape, dtype=bool)
    mask[0, 0, 0] = True
    picture_of(ReportCase("tiny", scan, scan, mask, affine_for("RAS", shape, (1.0, 2.0, 3.0))))


def test_the_outline_follows_the_edges_of_the_pixels() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 2:5] = True
    assert sorted(outline(mask)) == sorted([(2, 1, 5, 1), (2, 3, 5, 3), (2, 1, 2, 3), (5, 1, 5, 3)])
    assert outline(np.zeros((3, 4), dtype=bool)) == []


def test_the_uncertainty_scale_grows_in_lightness() -> None:
    lightness = colour_table("uncertainty") @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.5).all()
    assert lightness[-1] > lightness[0] + 150
