"""Which files belong to which training case: found by names, in four layouts. No image is opened here.

brats: a folder a case, with ``ID-t1n``, ``ID-mask-healthy``, ``ID-mask-unhealthy`` (or ``ID-seg``).
bids: ``sub-*/[ses-*/]anat/*_T1w``, lesion masks beside them or in ``derivatives/``.
table: a TSV with the columns id and image, and if wanted more (corpus/tables).
folder: images side by side; ``NAME_lesion`` and ``NAME_tissue`` belong to ``NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuromend.corpus.cache import Kind
from neuromend.corpus.tables import participants_splits, read_cases_table
from neuromend.errors import InputError, MissingInputError, NeuromendError
from neuromend.pairing import case_folders, find_case_file

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
TABLES = (".tsv", ".txt")
LESION_WORD = re.compile(r"lesion|tumou?r|label-L(?![a-zA-Z0-9])", re.IGNORECASE)
MASK_ENDS = ("_mask", "_roi", "_dseg", "_lesion")
COMPANIONS = ("_lesion", "_tissue")


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one case.

    Attributes:
        id: unique, safe in a file name.
        subject: the person.
        image: the scan (for kind "labels": the map of tissue classes).
        split: the split that a table gives it; None: drawn by subject.
        lesion: mask or label map of diseased tissue, every value but 0.
        tissue: map of tissue classes.
        masks: holes in healthy tissue, with their names.
        mni: text file with the 4x4 matrix MNI152 mm -> the scan's mm (RAS).
        kind: "scan" or "labels".
        refusal: why the names alone rule the case out.
    """

    id: str
    subject: str
    image: Path
    split: str | None = None
    lesion: Path | None = None
    tissue: Path | None = None
    masks: tuple[tuple[str, Path], ...] = ()
    mni: Path | None = None
    kind: Kind = "scan"
    refusal: NeuromendError | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the prepared case depends on."""
        several = (self.image, self.lesion, self.tissue, self.mni, *(path for _, path in self.masks))
        return tuple(path for path in several if path is not None)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a data set holds.

    Attributes:
        name: "brats", "bids", "table" or "folder".
        sources: its cases, by id.
        without_image: ids of cases that lack the scan with the true tissue and so cannot train.
    """

    name: str
    sources: tuple[Source, ...]
    without_image: tuple[str, ...] = ()


def find_cases(dataset: Path) -> Layout:
    """Tell the layout of a data set and list its cases.

    Raises:
        MissingInputError: IN-38, no such file or folder; TR-06, it holds no case.
        InputError: TR-06, a table is wrong.
    """
    if dataset.is_file() and dataset.suffix.lower() in TABLES:
        found = Layout("table", tuple(Source(**row) for row in read_cases_table(dataset)))
    elif not dataset.is_dir():
        raise MissingInputError(
            "IN-38",
            "no such folder or table",
            why="the training cases are looked for in it",
            fix=f"check the path: ls '{dataset.parent}'",
            path=dataset,
        )
    elif any(dataset.glob("sub-*/")):
        found = _bids(dataset)
    elif any(entry.is_dir() and any(entry.glob(f"{entry.name}-*.nii*")) for entry in dataset.iterdir()):
        found = _brats(dataset)
    else:
        found = _folder(dataset)
    if not found.sources:
        lacking = f" ({len(found.without_image)} cases have no t1n)" if found.without_image else ""
        raise MissingInputError(
            "TR-06",
            f"no scan to train on here{lacking}",
            why="a case needs an image with its true tissue: ID-t1n (BraTS), sub-*_T1w (BIDS), or any image in a"
            " folder or a table",
            fix="docs/how-to/prepare.md shows the layouts",
            path=dataset,
        )
    return found


def _brats(dataset: Path) -> Layout:
    sources, lacking = [], []
    for name, folder in case_folders(dataset).items():
        image = find_case_file(folder, name, "t1n")
        if image is None:
            lacking.append(name)
            continue
        healthy = find_case_file(folder, name, "mask-healthy")
        # The union mask of a case for validation covers the tumour too, so that it counts as diseased in full.
        kinds = ("mask-unhealthy", "seg") if healthy else ("mask-unhealthy", "seg", "mask")
        lesion = next((path for kind in kinds if (path := find_case_file(folder, name, kind))), None)
        sources.append(
            Source(
                name,
                brats_subject(name),
                image,
                lesion=lesion,
                tissue=find_case_file(folder, name, "tissue"),
                masks=(("healthy", healthy),) if healthy else (),
            )
        )
    return Layout("brats", tuple(sources), tuple(lacking))


def brats_subject(name: str) -> str:
    """``BraTS-GLI-00001`` of ``BraTS-GLI-00001-000``: the last number counts the visits of a person."""
    found = re.fullmatch(r"(BraTS-[A-Za-z]+-\d+)-\d{3}", name)
    return found.group(1) if found else name


def _bids(dataset: Path) -> Layout:
    splits = participants_splits(dataset)
    sources = []
    for folder in sorted(path for path in dataset.glob("sub-*") if path.is_dir()):
        masks = _lesion_masks(dataset, folder.name)
        for image in sorted(folder.rglob("anat/*_T1w.nii*")):
            if "_ce-" in image.name or not image.name.endswith(SUFFIXES):
                continue
            name = stem(image).removesuffix("_T1w")
            fitting = [path for path in masks if _same_session(path, image)]
            refusal = None
            if len(fitting) > 1:
                refusal = InputError(
                    "TR-06",
                    f"{len(fitting)} lesion masks fit this scan, expected one: "
                    + ", ".join(path.name for path in fitting[:4]),
                    why="tissue that one of them calls diseased must not become a target",
                    fix="list the cases in a table (docs/how-to/prepare.md)",
                    path=image,
                )
            lesion = fitting[0] if len(fitting) == 1 else None
            sources.append(Source(name, folder.name, image, splits.get(folder.name), lesion, refusal=refusal))
    return Layout("bids", tuple(sources))


def _lesion_masks(dataset: Path, subject: str) -> list[Path]:
    """The lesion masks of a subject in its own space, beside its scans and in derivatives."""
    places = [dataset / subject, *sorted(dataset.glob(f"derivatives/*/{subject}"))]
    places.append(dataset / "derivatives" / subject)
    found = []
    for place in places:
        for path in sorted(place.rglob("*.nii*")):
            name = stem(path)
            elsewhere = re.search(r"_space-(?!T1w|orig|individual)", name)
            if name.endswith(MASK_ENDS) and LESION_WORD.search(name) and not elsewhere:
                found.append(path)
    return found


def _same_session(mask: Path, image: Path) -> bool:
    """Whether no entity that both names give says that they belong to different images."""
    ours, theirs = (dict(re.findall(r"(?:^|_)(ses|run|acq)-([A-Za-z0-9]+)", p.name)) for p in (image, mask))
    return all(theirs.get(key, label) == label for key, label in ours.items())


def _folder(dataset: Path) -> Layout:
    images = {
        stem(path): path
        for path in sorted(dataset.iterdir())
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    }
    sources = []
    for name, path in images.items():
        if name.endswith((*COMPANIONS, "_mask")):
            continue
        base = name.removesuffix("_T1w")
        near = {end: images.get(name + end) or images.get(base + end) for end in COMPANIONS}
        person = re.match(r"sub-[A-Za-z0-9]+", base)
        subject = person.group() if person else brats_subject(base.removesuffix("-t1n"))
        sources.append(Source(safe(base), subject, path, lesion=near["_lesion"], tissue=near["_tissue"]))
    return Layout("folder", tuple(_distinct(sources)))


def _distinct(sources: Sequence[Source]) -> list[Source]:
    """Refuse two images whose ids would be one (their names differ only in letters that no id can have)."""
    seen: dict[str, Source] = {}
    for source in sources:
        if source.id in seen:
            raise InputError(
                "TR-06",
                f"{source.image.name} and {seen[source.id].image.name} would both be case '{source.id}'",
                why="a case is kept under its id",
                fix="rename one of them, or list the cases in a table (docs/how-to/prepare.md)",
                path=source.image,
            )
        seen[source.id] = source
    return list(seen.values())


def safe(name: str) -> str:
    """A name as an id: letters, digits, dot, underscore and dash."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".") or "case"


def stem(path: Path) -> str:
    """A file's name without the ending of its format."""
    return next((path.name.removesuffix(end) for end in SUFFIXES if path.name.endswith(end)), path.stem)
