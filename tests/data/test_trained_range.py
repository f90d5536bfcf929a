"""A scan unlike those of the model card is filled, but never in silence."""

from __future__ import annotations

from typing import Literal

import nibabel as nib
import numpy as np
import pytest

from neuromend.data.trained_range import check_trained_range
from neuromend.data.volume import Volume, volume_from_image
from neuromend.manifest import TrainedRange

Coverage = tuple[Literal["skull-stripped", "whole-head"], ...]


def scan(*spacing_mm: float) -> Volume:
    shape = tuple(max(16, round(60 / length) + axis) for axis, length in enumerate(spacing_mm))
    return volume_from_image(nib.Nifti1Image(np.ones(shape, np.uint8), np.diag([*spacing_mm, 1.0])))


def trained(coverage: Coverage = ("skull-stripped", "whole-head")) -> TrainedRange:
    return TrainedRange(modalities=("T1w",), spacing_mm=(1.0, 2.2), coverage=coverage)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.94, 0.94, 1.2), (2.0, 2.4, 2.3)])
def test_voxels_within_the_range_pass(spacing_mm: tuple[float, ...]) -> None:
    assert check_trained_range(scan(*spacing_mm), trained(), skull_stripped=True) == []


def test_larger_voxels_are_a_warning_with_the_range() -> None:
    """IN-30."""
    [finding] = check_trained_range(scan(1.0, 1.1, 3.0), trained(), skull_stripped=True)
    assert (finding.code, finding.level) == ("IN-30", "warning")
    assert (
        finding.message
        == "Voxels of 1 x 1.1 x 3 mm: the model was trained on 1 to 2.2 mm; look at the result."
    )


def test_finer_voxels_are_a_note() -> None:
    """IN-30."""
    [finding] = check_trained_range(scan(0.7, 0.7, 0.8), trained(), skull_stripped=False)
    assert (finding.code, finding.level) == ("IN-30", "note")
    assert "no finer detail than 1 mm" in finding.message


@pytest.mark.parametrize(
    ("stripped", "coverage", "says"),
    [
        (True, ("whole-head",), "This scan is skull-stripped; the model was trained on whole-head scans"),
        (
            False,
            ("skull-stripped",),
            "This scan is whole-head; the model was trained on skull-stripped scans",
        ),
    ],
)
def test_a_coverage_that_the_model_never_saw_is_a_warning(
    stripped: bool, coverage: Coverage, says: str
) -> None:
    """IN-40."""
    image = scan(1.0, 1.1, 1.2)
    assert check_trained_range(image, trained(coverage), skull_stripped=not stripped) == []
    [finding] = check_trained_range(image, trained(coverage), skull_stripped=stripped)
    assert (finding.code, finding.level) == ("IN-40", "warning")
    assert says in finding.message
