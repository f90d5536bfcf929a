"""Finding scans and their lesion masks in a BIDS dataset: one subject at a time, by names alone.

Every T1-weighted scan gets the one mask whose name says that it was drawn on it. No mask, or more than one, is told
for that scan, with the names that came near; nothing is guessed. No image is opened here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from neuromend.cohort.bids_names import (
    IMAGES,
    BidsName,
    fits,
    is_mask_like,
    is_scan,
    parse_name,
    same_space,
    says_lesion,
)
from neuromend.cohort.bids_tables import dataset_facts, lesion_labels, says_lesion_type
from neuromend.errors import InputError, MissingInputError, NeuromendError
from neuromend.pairing import listed, need_folder


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user chose.

    Attributes:
        participants, sessions: labels without ``sub-`` and ``ses-``; empty means all.
        scan, mask: entities that a scan or a mask must have, by key; None means "must not be there".
        any_dseg: label maps are lesion masks even where no table names the lesion, because the labels are given.
        derivatives: datasets with masks besides those in ``derivatives/``.
    """

    participants: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    scan: Mapping[str, str | None] = field(default_factory=dict)
    mask: Mapping[str, str | None] = field(default_factory=dict)
    any_dseg: bool = False
    derivatives: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A scan or a mask: the file, its name in parts, and the dataset that holds it."""

    path: Path
    name: BidsName
    dataset: Path


@dataclass(frozen=True, slots=True)
class Match:
    """A scan with its mask, or why it has none.

    Attributes:
        scan: the T1-weighted scan.
        mask: its lesion mask; None with a ``problem``.
        labels: the labels of a label map that are lesion, from its table; None for a mask.
        problem: why there is no one mask.
    """

    scan: Found
    mask: Found | None
    labels: tuple[int, ...] | None = None
    problem: NeuromendError | None = None

    @property
    def id(self) -> str:
        """``sub-01_ses-2_run-1``."""
        return self.scan.name.stem

    @property
    def folder(self) -> Path:
        """Where the scan lies in its dataset, and its fill in the derivatives: ``sub-01/ses-2/anat``."""
        return self.scan.path.parent.relative_to(self.scan.dataset)


def mask_datasets(root: Path, out: Path, more: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The datasets that may hold masks: the raw one, those in ``derivatives`` and those given.

    What neuromend made is left out: it writes masks of its own.

    Raises:
        MissingInputError: IN-38, a folder that was given is not there.
    """
    for folder in more:
        need_folder(folder)
    derived = root / "derivatives"
    inside = sorted(path for path in derived.iterdir() if path.is_dir()) if derived.is_dir() else []
    datasets = [path for path in inside if not path.name.startswith("sub-")]
    flat = [derived] if len(datasets) < len(inside) else []  # subjects without a dataset around them
    candidates = [root, *flat, *datasets, *more]
    kept: dict[Path, Path] = {}
    for path in candidates:
        if (
            path.is_dir()
            and path.resolve() != out.resolve()
            and "neuromend" not in dataset_facts(path).makers
        ):
            kept.setdefault(path.resolve(), path)
    return tuple(kept.values())


def subjects(root: Path, selection: Selection) -> tuple[str, ...]:
    """The folders ``sub-*`` to be looked into, sorted.

    Raises:
        MissingInputError: IN-38, no such dataset; BD-01, no subject in it; BD-02, a label that is not there.
    """
    need_folder(root)
    there = sorted(path.name for path in root.iterdir() if path.name.startswith("sub-") and path.is_dir())
    if not there:
        raise MissingInputError(
            "BD-01",
            "no subject in this folder: expected sub-01, sub-02 ...",
            why="a BIDS dataset has a folder a subject",
            fix="give the top folder of the dataset; for other layouts: neuromend batch",
            path=root,
        )
    wanted = {f"sub-{label}" for label in selection.participants}
    _refuse_unknown(wanted - set(there), there, "--participant-label", root)
    return tuple(name for name in there if not wanted or name in wanted)


def find_matches(root: Path, out: Path, selection: Selection) -> Iterator[Match]:
    """Every T1-weighted scan of the chosen subjects and sessions, with its mask or the reason why it has none.

    Args:
        root: the BIDS dataset.
        out: the folder of the derivatives, in which no mask is looked for.
        selection: the user's choice.

    Raises:
        MissingInputError: as ``subjects`` and ``mask_datasets``; BD-01, the dataset has no T1-weighted scan; BD-02,
            a session that no chosen subject has.
    """
    names = subjects(root, selection)
    datasets = mask_datasets(root, out, selection.derivatives)
    count = 0
    unseen = {f"ses-{label}" for label in selection.sessions}
    for subject in names:
        for folder in _places(root / subject, selection.sessions):
            unseen.discard(folder.name)
            scans = [found for found in _images(root, folder / "anat", selection.scan) if is_scan(found.name)]
            count += len(scans)
            if scans:
                yield from _match(scans, datasets, selection)
    _refuse_unknown(unseen, [], "--session-label", root)
    if not count:
        raise MissingInputError(
            "BD-01",
            f"no T1-weighted scan, expected such as {names[0]}/anat/{names[0]}_T1w.nii.gz",
            why="only T1-weighted scans are filled",
            fix="check the names with the BIDS validator; for other layouts: neuromend batch",
            path=root,
        )


def _refuse_unknown(missing: Collection[str], there: Sequence[str], option: str, root: Path) -> None:
    if missing:
        known = f"; there are {listed(there)}" if there else ""
        raise MissingInputError(
            "BD-02",
            f"no {listed(sorted(missing))} here{known}",
            why=f"{option} names what is to be filled",
            fix=f"correct {option}, or leave it out to fill all",
            path=root,
        )


def _places(subject: Path, sessions: Collection[str]) -> list[Path]:
    """The folders of a subject that hold ``anat``: its sessions, and itself for scans without one."""
    found = sorted(path for path in subject.glob("ses-*") if path.is_dir())
    if sessions:
        return [path for path in found if path.name.removeprefix("ses-") in sessions]
    return [subject, *found]


def _images(dataset: Path, folder: Path, wanted: Mapping[str, str | None]) -> list[Found]:
    """Images of a folder whose entities are as wanted; links whose content is not here are among them."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        name = parse_name(path.name)
        if (
            name is not None
            and name.extension in IMAGES
            and all(name.entities.get(key) == value for key, value in wanted.items())
        ):
            found.append(Found(path, name, dataset))
    return found


def _match(scans: Sequence[Found], datasets: Sequence[Path], selection: Selection) -> Iterator[Match]:
    """The masks of the scans of one folder."""
    place = scans[0].path.parent.relative_to(scans[0].dataset)
    masks = [
        found
        for dataset in datasets
        for found in _images(dataset, dataset / place, selection.mask)
        if is_mask_like(found.name) and "inpainted" not in found.name.entities.get("desc", "")
    ]
    lesions: list[tuple[Found, tuple[int, ...] | None]] = []
    broken: dict[Path, NeuromendError] = {}
    for mask in masks:
        try:
            chosen, labels = _is_lesion(mask, selection)
        except InputError as error:  # the fault of this mask's scans, not of the dataset
            chosen, labels, broken[mask.path] = True, None, error
        if chosen:
            lesions.append((mask, labels))
    for scan in scans:
        own = [
            (mask, labels)
            for mask, labels in lesions
            if fits(scan.name, mask.name) and same_space(scan.name, mask.name)
        ]
        problem = _problem(scan, [mask for mask, _ in own], masks, scans)
        if problem is None:
            problem = broken.get(own[0][0].path)
        if problem is not None:
            yield Match(scan, None, problem=problem)
        else:
            yield Match(scan, own[0][0], own[0][1])


def _is_lesion(mask: Found, selection: Selection) -> tuple[bool, tuple[int, ...] | None]:
    """Whether a mask shows a lesion, and the labels that do, if its table tells and the user does not.

    Raises:
        InputError: BD-05, its table of labels is wrong.
    """
    if mask.name.suffix != "dseg":
        known = bool(selection.mask) or says_lesion(mask.name)
        return known or says_lesion_type(mask.path, mask.dataset), None
    if selection.any_dseg:
        return True, None
    labels = lesion_labels(mask.path, mask.name, mask.dataset)
    return labels is not None, labels


def _problem(
    scan: Found, own: Sequence[Found], masks: Sequence[Found], scans: Sequence[Found]
) -> NeuromendError | None:
    """Why a scan has no one mask; None if it has."""
    if not own:
        near = f"; near it: {listed(mask.path.name for mask in masks)}" if masks else ""
        return MissingInputError(
            "BD-03",
            f"this scan has no lesion mask: expected such as {scan.name.stem}_label-lesion_mask.nii.gz beside it "
            f"or in derivatives{near}",
            why="what is to be filled is never guessed",
            fix="name the mask by the scan's entities, give its labels (--labels), or choose it with "
            "--bids-filter-file; docs/how-to/bids.md shows the names",
            path=scan.path,
        )
    if len(own) > 1:
        return InputError(
            "BD-04",
            f"{len(own)} lesion masks for this scan, expected one: {listed(_shown(mask) for mask in own)}",
            why="which of them is meant cannot be known",
            fix='choose by their entities: --bids-filter-file with {"lesion": {"desc": "..."}}',
            path=scan.path,
        )
    shared = [other for other in scans if other is not scan and fits(other.name, own[0].name)]
    if shared and not _whole(scan, own[0]):
        return InputError(
            "BD-04",
            f"{own[0].path.name} does not say which scan it was drawn on: it fits this one and "
            f"{listed(other.path.name for other in shared)}",
            why="a mask of another scan would fill the wrong place",
            fix=f"name it by its scan: {scan.name.stem}_label-lesion_mask.nii.gz; or choose one scan with "
            '--bids-filter-file {"t1w": {...}}',
            path=scan.path,
        )
    return None


def _whole(scan: Found, mask: Found) -> bool:
    """Whether the mask's name says everything that the scan's says."""
    return scan.name.entities.keys() <= mask.name.entities.keys() | {"space"}


def _shown(mask: Found) -> str:
    """A mask's place within its dataset, with the dataset's name: two datasets may hold masks of one name."""
    return f"{mask.dataset.name}: {mask.path.name}"
