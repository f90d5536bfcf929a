"""Does a scan resemble what the model was trained on? Asked of its model card, before the model is loaded."""

from __future__ import annotations

from neuromend.data.volume import Volume
from neuromend.findings import Finding
from neuromend.manifest import TrainedRange

# A scan of 0.94 mm is one of 1 mm in every other respect.
SPACING_TOLERANCE = 1.1


def check_trained_range(scan: Volume, trained: TrainedRange, *, skull_stripped: bool) -> list[Finding]:
    """Compare voxel size (IN-30) and coverage (IN-40) with the model's; the contrast is compared elsewhere.

    Args:
        scan: the scan.
        trained: from the manifest of the model.
        skull_stripped: whether the scan shows the brain only.

    Returns:
        A warning where the voxels are larger or the coverage is another, a note where the voxels are finer:
        such a scan is filled at the resolution of the model.
    """
    findings = []
    low, high = trained.spacing_mm
    sizes = " x ".join(f"{length:.3g}" for length in scan.spacing_mm)
    range_text = f"the model was trained on {low:g} to {high:g} mm"
    if max(scan.spacing_mm) > high * SPACING_TOLERANCE:
        message = f"Voxels of {sizes} mm: {range_text}; look at the result."
        findings.append(Finding("IN-30", "warning", message))
    elif min(scan.spacing_mm) < low / SPACING_TOLERANCE:
        message = f"Voxels of {sizes} mm: {range_text}, so the fill has no finer detail than {low:g} mm."
        findings.append(Finding("IN-30", "note", message))
    kind = "skull-stripped" if skull_stripped else "whole-head"
    if kind not in trained.coverage:
        message = (
            f"This scan is {kind}; the model was trained on {trained.coverage[0]} scans: look at the result."
        )
        findings.append(Finding("IN-40", "warning", message))
    return findings
