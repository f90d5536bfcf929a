"""Which cases there are: read from a table, or found in a folder by their names. No image is opened."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neuromend.cohort.cases import Case
from neuromend.errors import InputError, MissingInputError
from neuromend.findings import Finding
from neuromend.pairing import find_case_file, listed, need_folder
from neuromend.planning import split_suffix

COLUMNS = ("id", "image", "mask")

SCAN_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")

#: Endings of a mask's name after the name of its scan: T1.nii.gz and T1_lesion_mask.nii.gz.
MASK_ENDINGS = re.compile(
    r"[-_.](label-lesion[-_])?(lesion|tumou?r|roi|mask)([-_](mask|roi|seg))?", re.IGNORECASE
)

#: In a folder of two images, the one whose name has such a word is the mask.
MASK_WORDS = re.compile(r"(?<![a-z])(lesions?|tumou?rs?|roi|mask|seg)(?![a-z])", re.IGNORECASE)

#: What no file system, or no shell, takes well in a folder's name.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]|^[.\s-]|[.\s]$")


@dataclass(frozen=True)
class CaseList:
    """Cases of a table, read again from the disk each time they are iterated, so that no list of them is kept.

    Args:
        table: the file; it was checked.
        count: number of its cases.
        out: folder of the outputs.
    """

    table: Path
    count: int
    out: Path

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Case]:
        for _, name, image, mask in _lines(self.table):
            yield case_of(name, image, mask, self.out)


@dataclass(frozen=True)
class FoundCases:
    """The cases of a folder, by id.

    Attributes:
        cases: what was found.
        label_maps: whether masks are label maps (BraTS ``seg``), of which every label is lesion.
        findings: what was passed over.
    """

    cases: tuple[Case, ...]
    label_maps: bool
    findings: tuple[Finding, ...]


def read_list(table: Path, out: Path) -> CaseList:
    """Check a table with tabs: a heading with the columns id, image and mask (others are ignored), a line a case.

    Relative paths start at the table's folder. Whether the files are there is found out case by case.

    Raises:
        MissingInputError: IN-38, no such table.
        InputError: CO-01, it cannot be read, or a line is wrong; the message names the line.
    """
    table = table.absolute()
    seen: dict[str, int] = {}
    for number, name, _, _ in _lines(table):
        key = unicodedata.normalize("NFC", name).casefold()  # on some disks these are one folder
        if key in seen:
            raise _bad(table, f"line {number} has the id '{name}', as line {seen[key]} has")
        seen[key] = number
    if not seen:
        raise _bad(table, "it lists no case")
    return CaseList(table, len(seen), out.absolute())


def find_cases(folder: Path, out: Path) -> FoundCases:
    """Find scans and masks by their names; docs/how-to/batch.md lists the rules.

    Raises:
        MissingInputError: IN-38, no such folder; CO-02, no case in it.
    """
    need_folder(folder)
    folder, out = folder.absolute(), out.absolute()
    if (folder / "dataset_description.json").is_file():
        raise MissingInputError(
            "CO-02",
            "this is a BIDS dataset",
            why="its scans and masks have sessions, runs and derivatives, which batch does not know",
            fix=f"neuromend bids '{folder}' '{out}' participant",
            path=folder,
        )
    pairs = _beside(folder)
    used = {path for pair in pairs.values() for path in pair}
    passed = [path.name for path in _images(folder).values() if path not in used]
    label_maps = False
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith(".") or entry.resolve() == out.resolve():
            continue
        brats = _brats(entry)
        if brats is not None:
            pairs[entry.name] = brats
            label_maps |= split_suffix(brats[1].name)[0].endswith("-seg")
            continue
        inside = _beside(entry) or _only_two(entry)
        if len(inside) == 1:
            pairs[entry.name] = next(iter(inside.values()))
        pairs |= {f"{entry.name}_{stem}": pair for stem, pair in inside.items()} if len(inside) > 1 else {}
        if not inside:
            passed.append(entry.name)
    if not pairs:
        raise MissingInputError(
            "CO-02",
            "no scan with a mask was found by its name",
            why="the mask of NAME.nii.gz is NAME_mask.nii.gz or NAME_lesion.nii.gz; BraTS folders are known too",
            fix="write a table with the columns id, image and mask: neuromend batch LIST.tsv -o OUT",
            path=folder,
        )
    cases = tuple(case_of(name, *pairs[name], out) for name in sorted(pairs))
    what = f"passed over, because no scan and mask was recognised: {listed(passed)} ({len(passed)} in all)"
    return FoundCases(cases, label_maps, (Finding("CO-02", "warning", what),) if passed else ())


def case_of(name: str, image: Path, mask: Path, out: Path) -> Case:
    """A case with its outputs in a folder of its own: ``OUT/ID/ID_inpainted`` with the ending of the scan."""
    suffix = split_suffix(image.name)[1] or ".nii.gz"
    return Case(name, image, mask, out / name / f"{name}_inpainted{suffix}")


def _lines(table: Path) -> Iterator[tuple[int, str, Path, Path]]:
    """Number, id, image and mask of every line but the heading and empty ones."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            head = [name.strip() for name in next(rows, [])]
            places = _places(table, head)
            for number, row in enumerate(rows, start=2):
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if len(cells) != len(head):
                    raise _bad(table, f"line {number} has {len(cells)} cells, the heading {len(head)}")
                name, image, mask = (cells[place] for place in places)
                _require(table, number, name, image, mask)
                yield number, name, table.parent / image, table.parent / mask
    except OSError as error:
        raise MissingInputError(
            "IN-38",
            f"the list cannot be read ({error.strerror})",
            why="it names the cases",
            fix=f"check the path: ls -l '{table}'",
            path=table,
        ) from error
    except UnicodeDecodeError as error:
        raise _bad(table, f"it is no text in UTF-8 ({error.reason})") from error
    except csv.Error as error:
        raise _bad(table, f"it is no table ({error})") from error


def _places(table: Path, head: list[str]) -> list[int]:
    for name in COLUMNS:
        if head.count(name) != 1:
            found = ", ".join(head) or "nothing"
            what = "no column" if name not in head else "two columns"
            raise _bad(table, f"the heading has {what} '{name}'; found: {found}")
    return [head.index(name) for name in COLUMNS]


def _require(table: Path, number: int, name: str, image: str, mask: str) -> None:
    for column, cell in zip(COLUMNS, (name, image, mask), strict=True):
        if not cell:
            raise _bad(table, f"line {number} has no {column}")
    if _UNSAFE.search(name) or len(name.encode("utf-8", "replace")) > 200:
        rule = 'no / \\ : * ? " < > |, no dot or dash at its start'
        what = f"line {number}: the id '{name}' cannot name a folder ({rule})"
        raise _bad(table, what)


def _beside(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Scans whose mask stands beside them under their name and an ending: stem -> scan and mask."""
    images = _images(folder)
    pairs: dict[str, tuple[Path, Path]] = {}
    for stem, scan in images.items():
        masks = [
            path
            for other, path in images.items()
            if other.startswith(stem) and MASK_ENDINGS.fullmatch(other[len(stem) :])
        ]
        if len(masks) == 1:
            pairs[stem] = (scan, masks[0])
    return pairs


def _only_two(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The pair of a folder with two images, one of them called a mask."""
    images = sorted(_images(folder).items(), key=lambda item: MASK_WORDS.search(item[0]) is not None)
    if [MASK_WORDS.search(stem) is not None for stem, _ in images] != [False, True]:
        return {}
    return {images[0][0]: (images[0][1], images[1][1])}


def _images(folder: Path) -> dict[str, Path]:
    """Stem -> path of the images of a folder, sorted; hidden ones and results of ours are left out."""
    return {
        split_suffix(path.name)[0]: path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(SCAN_SUFFIXES)
        and not path.name.startswith(".")
        and "_inpainted" not in path.name
        and path.is_file()
    }


def _brats(folder: Path) -> tuple[Path, Path] | None:
    """Scan and mask of a case folder of the BraTS challenges: voided scan and mask, or scan and segmentation."""
    for scan, mask in (("t1n-voided", "mask"), ("t1n", "seg")):
        paths = [find_case_file(folder, folder.name, kind) for kind in (scan, mask)]
        if paths[0] is not None and paths[1] is not None:
            return paths[0], paths[1]
    return None


def _bad(table: Path, what: str) -> InputError:
    return InputError(
        "CO-01",
        f"{what}; expected columns with tabs between: {', '.join(COLUMNS)}",
        why="a case that is filled twice or with the wrong mask would be worse than none",
        fix="correct the list; docs/how-to/batch.md shows one",
        path=table,
    )
