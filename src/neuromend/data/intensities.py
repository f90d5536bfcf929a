"""Is this the kind of image that can be filled? Asked of the intensities and of what the file is called.

Voxels inside the mask are never looked at, so the answers do not depend on what the lesion looked like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.data.head import find_head
from neuromend.data.volume import Volume
from neuromend.errors import InputError
from neuromend.findings import Finding

# More of the brain than this must not be unknown.
MAX_NOT_FINITE = 0.01
# Air in Hounsfield units, and how much of a volume it fills at least.
CT_AIR = -900.0
CT_BONE = 500.0
CT_AIR_SHARE = 0.05
# A stripped scan is exactly zero at its border, but for interpolation noise, and in much of the volume.
BORDER_ZEROS = 0.98
VOLUME_ZEROS = 0.3

# Words that stand for a contrast in file names and sidecars -> its BIDS suffix.
_CONTRASTS = {
    **dict.fromkeys(("t1w", "t1", "t1n", "mprage", "mp2rage", "spgr"), "T1w"),
    **dict.fromkeys(("t2w", "t2"), "T2w"),
    **dict.fromkeys(("t2star", "t2starw"), "T2starw"),
    **dict.fromkeys(("flair", "t2f"), "FLAIR"),
    **dict.fromkeys(("pdw", "pd"), "PDw"),
    **{word: word for word in ("dwi", "adc", "swi", "bold", "ct")},
}
_ENHANCED = {"t1c", "t1ce", "t1gd", "t1wgd", "t1post", "gd", "ce", "gad"}


def check_intensities(
    volume: Volume,
    mask: NDArray[np.bool_] | None = None,
    *,
    modality: str | None = None,
    trained: Sequence[str] = ("T1w",),
) -> tuple[Finding, ...]:
    """Check the intensities outside the mask, and what name and JSON sidecar say about the contrast.

    Args:
        volume: the scan.
        mask: (x, y, z), True where nothing is looked at; None for nowhere.
        modality: the contrast that the user states, for example ``"T1w"``.
        trained: the contrasts that the model was made for.

    Returns:
        Findings IN-15 (not finite), IN-17 (CT?), IN-39 (contrast), IN-40 (skull-stripped or not), IN-41
        (already inpainted).

    Raises:
        InputError: IN-15 (more than 1 % of the brain is not finite), IN-16 (nothing in the image).
    """
    hidden = np.zeros(volume.shape, dtype=np.bool_) if mask is None else mask
    visible = volume.values[~hidden]
    finite = np.isfinite(visible)
    findings = []
    if not finite.all():
        findings.append(_not_finite(volume, hidden, int(np.count_nonzero(finite))))
        visible = visible[finite]
    _refuse_constant(volume, visible)
    if visible.min() <= CT_AIR and visible.max() >= CT_BONE and np.mean(visible <= CT_AIR) >= CT_AIR_SHARE:
        low, high = float(visible.min()), float(visible.max())
        findings.append(
            Finding(
                "IN-17", "warning", f"Intensities from {low:.0f} to {high:.0f} look like CT, not like MRI."
            )
        )
    findings.append(_border(volume, hidden))
    return (*findings, *_contrast(volume, modality, trained), *_already_inpainted(volume))


def looks_skull_stripped(volume: Volume, mask: NDArray[np.bool_] | None = None) -> bool:
    """Whether all six faces of the volume, and much of the rest, are exactly zero outside the mask."""
    hidden = np.zeros(volume.shape, dtype=np.bool_) if mask is None else mask
    everywhere = _share_of_zeros(volume.values, hidden)
    return everywhere >= VOLUME_ZEROS and _border_zeros(volume, hidden) >= BORDER_ZEROS


def _share_of_zeros(values: NDArray[np.floating[Any]], hidden: NDArray[np.bool_]) -> float:
    zeros, seen = int(np.count_nonzero((values == 0) & ~hidden)), int(np.count_nonzero(~hidden))
    return zeros / seen if seen else 1.0


def _border_zeros(volume: Volume, hidden: NDArray[np.bool_]) -> float:
    """The share of exact zeros on the face that has the fewest."""
    shares = []
    for axis in range(3):
        values, unseen = np.moveaxis(volume.values, axis, 0), np.moveaxis(hidden, axis, 0)
        shares += [_share_of_zeros(values[end], unseen[end]) for end in (0, -1)]
    return min(shares)


def _border(volume: Volume, hidden: NDArray[np.bool_]) -> Finding:
    kind = "skull-stripped" if looks_skull_stripped(volume, hidden) else "like a whole head"
    share = _border_zeros(volume, hidden)
    return Finding("IN-40", "note", f"The scan looks {kind} ({share:.0%} exact zeros at the border).")


def _not_finite(volume: Volume, hidden: NDArray[np.bool_], finite: int) -> Finding:
    if finite == 0:
        raise _empty(volume.path, "no voxel outside the mask is a finite number")
    places = np.argwhere(~np.isfinite(volume.values) & ~hidden)
    kinds = f"{np.isnan(volume.values[tuple(places.T)]).sum()} NaN"
    where = ", ".join(map(str, places[0]))
    what = f"{len(places)} voxels outside the mask are not finite ({kinds}), the first at [{where}]"
    head = find_head(volume, hidden)
    inside = 0 if head is None else round(head.share_of_known(places.astype(np.float64)) * len(places))
    if inside == 0 or head is None:
        return Finding("IN-15", "warning", f"{what}; all in the background. They are kept and taken as 0.")
    share = inside * float(np.prod(volume.spacing_mm)) / 1000 / head.volume_ml
    if share > MAX_NOT_FINITE:
        raise InputError(
            "IN-15",
            f"{what}; that is {share:.1%} of the brain, expected at most {MAX_NOT_FINITE:.0%}",
            why="The fill would be continued from values that nobody knows.",
            fix="Save the scan again without the step that made them, or add these voxels to the mask.",
            path=volume.path,
        )
    return Finding(
        "IN-15",
        "warning",
        f"{what}; {inside} of them in the brain. They are kept and taken as 0: look at the result.",
    )


def _refuse_constant(volume: Volume, visible: NDArray[np.floating[Any]]) -> None:
    if visible.size == 0:
        raise _empty(volume.path, "no voxel lies outside the mask")
    low, high = float(visible.min()), float(visible.max())
    if low == high:
        raise _empty(volume.path, f"every voxel outside the mask has the value {low:g}")


def _empty(path: Path | None, what: str) -> InputError:
    return InputError(
        "IN-16",
        f"{what}; expected an image",
        why="There is no tissue to continue into the mask.",
        fix="Check that this is the scan (not a mask) and that it was saved completely.",
        path=path,
    )


def _contrast(volume: Volume, modality: str | None, trained: Sequence[str]) -> list[Finding]:
    accepted = {word for word, contrast in _CONTRASTS.items() if contrast in trained}
    accepted |= {contrast.lower() for contrast in trained}
    wanted = f"{' or '.join(trained)} without contrast agent"
    if modality is not None:
        if modality.lower() in accepted:
            return []
        message = f"The scan is stated to be {modality}; the model was made for {wanted}."
        return [Finding("IN-39", "warning", message)]
    reason = _other_contrast(volume.path, accepted) if volume.path is not None else None
    if reason is None:
        return []
    message = f"This may not be {wanted}: {reason}. If it is, say so: --modality {trained[0]}"
    return [Finding("IN-39", "warning", message)]


def _other_contrast(path: Path, accepted: set[str]) -> str | None:
    """Why a scan seems to have none of the accepted contrasts; None where nothing says so."""
    sidecar = _sidecar(path)
    words = re.split(r"[^a-z0-9]+", _stem(path).lower())
    # The last word is the contrast in BIDS (space-T2_T1w is T1w); elsewhere it may stand anywhere.
    others = (set(_CONTRASTS) - accepted) & ({words[-1]} if accepted & set(words) else set(words))
    suffix = str(sidecar.get("suffix", "")).lower()
    if suffix and suffix not in accepted:
        return f"its JSON sidecar says suffix {suffix!r}"
    if others:
        return f"its name says {min(others)!r}"
    if enhanced := _ENHANCED & set(words):
        return f"its name says {min(enhanced)!r} (contrast agent)"
    if agent := sidecar.get("ContrastBolusIngredient") or sidecar.get("ContrastBolusAgent"):
        return f"its JSON sidecar names a contrast agent ({agent})"
    return None


def _already_inpainted(volume: Volume) -> list[Finding]:
    if volume.path is None:
        return []
    by_us = "neuromend" in json.dumps(_sidecar(volume.path).get("GeneratedBy", "")).lower()
    if not by_us and "inpainted" not in _stem(volume.path).lower():
        return []
    how = "its JSON sidecar" if by_us else "its name"
    message = f"This scan was already inpainted, by {how}; the fill would continue synthetic tissue."
    return [Finding("IN-41", "warning", message)]


def _stem(path: Path) -> str:
    return re.sub(r"(\.nii|\.mgh|\.mgz|\.img|\.hdr)?(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _sidecar(path: Path) -> dict[str, Any]:
    """The JSON file beside a scan; empty where there is none or it cannot be understood."""
    try:
        content = json.loads(path.with_name(_stem(path) + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
