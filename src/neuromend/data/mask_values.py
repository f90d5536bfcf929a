"""From the numbers in a mask file to "lesion or not", without guessing.

A mask can hold {0, 1}, {0, 255}, a label map, a probability map or the soft edges that an interpolation
leaves behind. Only the first two have one reading; for the others the user states it, with labels or a
threshold.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from neuromend.errors import InputError
from neuromend.findings import Finding

if TYPE_CHECKING:
    from neuromend.data.volume import Volume

Labels = tuple[int, ...] | Literal["all"] | None

# A stored 1 that went through slope and intercept in float32 comes back as 0.9999999: still a whole number.
WHOLE_NUMBER_TOLERANCE = 1e-5
LISTED_LABELS = 12


def voxel_ml(affine: NDArray[np.float64]) -> float:
    """Volume of one voxel in millilitres, for a (4, 4) affine in mm."""
    return float(abs(np.linalg.det(affine[:3, :3]))) / 1000.0


def binarise(
    mask: Volume, *, labels: Labels, threshold: float | None, invert: bool
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """Decide for each voxel of the mask's own grid whether it is lesion.

    Args:
        mask: the mask as read, (x, y, z), scaled values.
        labels: labels that count as lesion, or ``"all"``; ``None`` where the file has one value only.
        threshold: values at or above it are lesion; ``None`` where the values are whole numbers.
        invert: swap lesion and background at the end.

    Returns:
        The selection (x, y, z) and what was noticed. The selection may be empty.

    Raises:
        InputError: MA-04 (probabilities), MA-05 (soft edges), MA-06 (label map), MA-07 (NaN or negative).
    """
    values = mask.values
    _refuse_impossible_values(mask)
    selected: NDArray[np.bool_] = values != 0
    present = values[selected]
    findings: list[Finding] = []
    if present.size:
        whole = np.rint(present)
        if threshold is not None:
            selected = values >= threshold
            findings.append(_threshold_note(present, threshold))
        elif np.any(np.abs(present - whole) > WHOLE_NUMBER_TOLERANCE * whole) and np.ptp(present) > 0:
            raise _soft_values(mask, present)
        elif labels is None:
            findings.append(_single_value(mask, present, whole))
        elif labels != "all":
            selected = np.isin(np.rint(values), labels)
            findings += _label_notes(whole, labels)
        else:
            kept = len(_label_counts(whole))
            findings.append(Finding("MA-06", "note", f"all {kept} labels of the mask count as lesion"))
    if invert:
        selected = ~selected
        findings.append(Finding("MA-03", "note", "the mask was inverted, as asked"))
    return selected, findings


def empty_mask(mask: Volume, *, labels: Labels, threshold: float | None, invert: bool) -> InputError:
    """The MA-01 error for a mask of which no voxel is left, saying why none is."""
    largest = float(mask.values.max())
    if invert:
        what = "the mask is empty once inverted: every voxel of the file is lesion"
    elif largest == 0:
        what = f"the mask is empty: all {mask.values.size:,} voxels are 0; expected one or more of them set"
    elif threshold is not None:
        what = f"the mask is empty: no voxel reaches threshold {threshold:g}, the largest is {largest:g}"
    else:
        found = _label_list(mask, np.rint(mask.values[mask.values != 0]))
        what = f"the mask is empty: it has none of the labels {_join(labels)}; found {found}"
    return InputError(
        "MA-01",
        what,
        why="without a lesion there is nothing to fill",
        fix="give the lesion mask of this scan, or --allow-empty to copy the scan unchanged",
        path=mask.path,
    )


def _refuse_impossible_values(mask: Volume) -> None:
    # The smallest and largest value are NaN if any value is, so the usual mask costs two passes.
    smallest, largest = float(mask.values.min()), float(mask.values.max())
    if math.isfinite(smallest) and math.isfinite(largest) and smallest >= 0:
        return
    odd = int(np.count_nonzero(~np.isfinite(mask.values)))
    below = int(np.count_nonzero(mask.values < 0))
    found = " and ".join(
        f"{count:,} {kind} value{'s' * (count != 1)}"
        for count, kind in ((odd, "NaN or infinite"), (below, "negative"))
        if count
    )
    lowest = f" (the lowest is {smallest:g})" if below and not odd else ""
    raise InputError(
        "MA-07",
        f"the mask has {found}{lowest}; expected 0 for background and positive values for lesion",
        why="nobody can tell whether such a voxel is lesion or background",
        fix="write a mask of 0 and 1, for example with `fslmaths MASK -nan -thr 0.5 -bin MASK_BIN`",
        path=mask.path,
    )


def _soft_values(mask: Volume, present: NDArray[np.floating]) -> InputError:
    """MA-04 or MA-05: values between 0 and the top, whose reading depends on a threshold."""
    top = 1.0 if present.max() <= 1 + WHOLE_NUMBER_TOLERANCE else float(present.max())
    between = int(np.count_nonzero(present < top * (1 - WHOLE_NUMBER_TOLERANCE)))
    share = between / present.size
    volumes = ", ".join(
        f"at {level * top:g}: {np.count_nonzero(present >= level * top):,} voxels"
        for level in (0.05, 0.5, 0.95)
    )
    any_size = f"above 0: {present.size:,} voxels, {volumes}"
    soft_edges = share < 0.5
    kind = (
        "soft edges, as interpolation leaves them" if soft_edges else "probabilities or other graded values"
    )
    return InputError(
        "MA-05" if soft_edges else "MA-04",
        f"the mask has {kind}: {between:,} of {present.size:,} non-zero voxels ({share:.0%}) lie between 0"
        f" and {top:g} and hang on the threshold ({any_size}); expected 0 and 1",
        why="the size of the lesion would depend on a threshold that nobody chose",
        fix=f"choose one: --threshold {0.5 * top:g}",
        path=mask.path,
    )


def _threshold_note(present: NDArray[np.floating], threshold: float) -> Finding:
    kept = int(np.count_nonzero(present >= threshold))
    return Finding(
        "MA-04",
        "note",
        f"threshold {threshold:g} keeps {kept:,} of {present.size:,} non-zero voxels of the mask",
    )


def _single_value(mask: Volume, present: NDArray[np.floating], whole: NDArray[np.floating]) -> Finding:
    """Accept a mask of 0 and one other value; refuse a label map (MA-06)."""
    value = float(present[0])
    if np.ptp(whole) == 0:
        if abs(value - 1) <= WHOLE_NUMBER_TOLERANCE:
            return Finding("MA-08", "pass", "the mask holds 0 and 1 only")
        return Finding("MA-07", "note", f"the mask holds 0 and {value:g} only; {value:g} was taken as lesion")
    raise InputError(
        "MA-06",
        f"the mask is a label map with the labels {_label_list(mask, whole)}; expected one value for lesion",
        why="which labels are lesion is not written in the file",
        fix=_label_hint(_label_counts(whole)),
        path=mask.path,
    )


def _label_hint(counts: dict[int, int]) -> str:
    """The option to give, with what is commonly meant by such labels."""
    labels = sorted(counts)
    if set(labels) <= {1, 2, 3, 4}:
        tumour = ",".join(map(str, labels))
        return (
            f"--labels {tumour} for the whole tumour of a BraTS segmentation (1 necrotic core, 2 oedema,"
            " 3 or 4 enhancing tumour), another choice such as --labels 1, or --labels all"
        )
    if 7 in labels:
        return "--labels 7 if this is a BIDS segmentation (7 = lesion), another choice, or --labels all"
    if len(labels) > LISTED_LABELS:
        return (
            "name the lesion labels, for example --labels 25,57; if these are percentages or grey values,"
            f" --threshold {max(labels) / 2:g}"
        )
    return f"name the lesion labels, for example --labels {labels[-1]}, or --labels all"


def _label_notes(whole: NDArray[np.floating], labels: tuple[int, ...]) -> list[Finding]:
    counts = _label_counts(whole)
    kept = [label for label in labels if label in counts]
    absent = [label for label in labels if label not in counts]
    ignored = [label for label in counts if label not in labels]
    findings = []
    if kept:
        rest = f"; {_join(tuple(ignored[:LISTED_LABELS]))} left out" if ignored else ""
        findings.append(Finding("MA-06", "note", f"labels {_join(tuple(kept))} count as lesion{rest}"))
    if absent:
        findings.append(Finding("MA-06", "note", f"labels {_join(tuple(absent))} do not occur in the mask"))
    return findings


def _label_counts(whole: NDArray[np.floating]) -> dict[int, int]:
    """Label -> number of voxels, for an array of whole non-zero numbers."""
    # Counting is fifty times faster than sorting, but needs an array as long as the largest label.
    if whole.max() < 2**16:
        counts = np.bincount(whole.astype(np.intp))
        return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    found, sizes = np.unique(whole, return_counts=True)
    return {int(label): int(size) for label, size in zip(found, sizes, strict=True)}


def _label_list(mask: Volume, whole: NDArray[np.floating]) -> str:
    counts = _label_counts(whole)
    largest_first = sorted(counts, key=lambda label: -counts[label])
    unit = voxel_ml(mask.affine)
    listed = ", ".join(
        f"{label} ({counts[label] * unit:.3g} ml)" for label in sorted(largest_first[:LISTED_LABELS])
    )
    more = len(counts) - LISTED_LABELS
    return f"{listed} and {more} smaller ones" if more > 0 else listed


def _join(labels: Labels) -> str:
    return labels if isinstance(labels, str) else ", ".join(map(str, labels or ()))
