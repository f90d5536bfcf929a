"""Which prediction belongs to which truth: by the names of the BraTS challenge, or by a table.

Only names are looked at here; no image is opened.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuromend.errors import InputError, MissingInputError

PREDICTION = "-t1n-inference"
IMAGE_SUFFIXES = (".nii.gz", ".nii")
TABLE_COLUMNS = ("id", "prediction", "truth", "mask")
OPTIONAL_COLUMNS = ("voided", "tissue", "tumour", "samples")


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of one case.

    Attributes:
        id: unique name of the case.
        prediction: the filled scan.
        truth: the scan with healthy tissue in the hole.
        mask: the hole, not 0 where scores are taken.
        voided: what the model was given, 0 in the hole; None: ``truth`` with its hole set to 0.
        tissue: map of tissue classes (``neuromend.sites``), for the site of the hole.
        tumour: label map of the tumour, not 0 in tissue that is no truth.
        samples: random samples of the fill, none or two or more.
    """

    id: str
    prediction: Path
    truth: Path
    mask: Path
    voided: Path | None = None
    tissue: Path | None = None
    tumour: Path | None = None
    samples: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Pairing:
    """What can be scored, and what cannot.

    Attributes:
        pairs: the cases that have a prediction, by id (by line, from a table).
        missing: ids of the cases that have none.
        extra: image files among the predictions that belong to no case.
    """

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()


def pair_brats(predictions: Path, truths: Path) -> Pairing:
    """Match ``ID-t1n-inference.nii.gz`` with the case folders of the challenge.

    Args:
        predictions: folder of the predictions, all in one.
        truths: folder with a folder a case, holding ``ID-t1n``, ``ID-t1n-voided`` and ``ID-mask-healthy``, and
            if wanted ``ID-seg`` (tumour) and ``ID-tissue``.

    Raises:
        MissingInputError: IN-38, no such folder; EV-04, no case in it, or a case lacks a file.
        InputError: EV-05, two predictions for one case.
    """
    found = predictions_in(predictions)
    pairs, missing = [], []
    for name, folder in case_folders(truths).items():
        prediction = found.pop(name, None)
        if prediction is None:
            missing.append(name)
            continue
        pairs.append(
            Pair(
                name,
                prediction,
                truth=case_file(folder, name, "t1n"),
                mask=case_file(folder, name, "mask-healthy"),
                voided=case_file(folder, name, "t1n-voided"),
                tissue=find_case_file(folder, name, "tissue"),
                tumour=find_case_file(folder, name, "seg"),
            )
        )
    known = {pair.prediction for pair in pairs}
    extra = [path for path in images_in(predictions) if path not in known]
    return Pairing(tuple(pairs), tuple(missing), tuple(extra))


def pair_table(table: Path) -> Pairing:
    """Read the pairing from a table with tabs: a heading, then a line a case.

    Columns: id, prediction, truth, mask, and if wanted voided, tissue, tumour and samples (a pattern such as
    ``draws/sub-01_*.nii.gz``); their order is free, an empty cell of the last four means none. Relative paths
    start at the table's folder. A prediction that is not there makes the case a missing one.

    Raises:
        MissingInputError: IN-38, no such table.
        InputError: EV-03, the table cannot be read or a line is wrong.
    """
    lines = _read_table(table)
    pairs, missing = [], []
    seen: set[str] = set()
    for number, cells in lines:
        empty = [name for name in TABLE_COLUMNS if not cells[name]]
        if empty:
            raise _bad_table(table, f"line {number} has no {empty[0]}")
        if cells["id"] in seen:
            raise _bad_table(table, f"line {number} has the id '{cells['id']}' for the second time")
        seen.add(cells["id"])
        paths = {
            name: table.parent / cells[name]
            for name in (*TABLE_COLUMNS[1:], *OPTIONAL_COLUMNS[:3])
            if cells.get(name)
        }
        if not paths["prediction"].exists():
            missing.append(cells["id"])
            continue
        samples: Sequence[Path] = ()
        if pattern := cells.get("samples"):
            samples = _matching(table.parent, pattern)
            if len(samples) < 2:
                what = f"line {number}: {len(samples)} files match samples '{pattern}', expected 2 or more"
                raise _bad_table(table, what)
        pairs.append(Pair(cells["id"], **paths, samples=tuple(samples)))
    return Pairing(tuple(pairs), tuple(missing))


def predictions_in(folder: Path) -> dict[str, Path]:
    """Case id -> the prediction, of all files ``ID-t1n-inference.nii.gz`` (or ``.nii``) in a folder.

    Raises:
        MissingInputError: IN-38, no such folder.
        InputError: EV-05, a case has both.
    """
    found: dict[str, Path] = {}
    for path in images_in(folder):
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        if not stem.endswith(PREDICTION):
            continue
        name = stem.removesuffix(PREDICTION)
        if name in found:
            raise InputError(
                "EV-05",
                f"case {name} has two predictions here, expected one: {found[name].name} and {path.name}",
                why="which of them is meant cannot be known",
                fix="move one of them to another folder",
                path=folder,
            )
        found[name] = path
    return found


def case_folders(folder: Path) -> dict[str, Path]:
    """Case id -> its folder, for every folder that holds a file of a case of the same name.

    Raises:
        MissingInputError: IN-38, no such folder; EV-04, there is no case in it.
    """
    need_folder(folder)
    cases = {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    cases = {name: entry for name, entry in cases.items() if any(entry.glob(f"{name}-*.nii*"))}
    if not cases:
        raise MissingInputError(
            "EV-04",
            "no case in this folder: expected a folder a case, such as "
            "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz",
            why="cases are found by the names of the BraTS challenge",
            fix="give the folder that holds the case folders; for other names: neuromend evaluate --pairs",
            path=folder,
        )
    return cases


def case_file(folder: Path, name: str, kind: str) -> Path:
    """``ID-KIND.nii.gz`` (or ``.nii``) of a case.

    Raises:
        MissingInputError: EV-04, it is not there.
    """
    found = find_case_file(folder, name, kind)
    if found is None:
        raise MissingInputError(
            "EV-04",
            f"case {name} has no file {name}-{kind}.nii.gz",
            why="a case of the challenge needs it",
            fix="copy the case again; files of other names are paired by a table: neuromend evaluate --pairs",
            path=folder,
        )
    return found


def find_case_file(folder: Path, name: str, kind: str) -> Path | None:
    """The same, None where it is not there."""
    paths = (folder / f"{name}-{kind}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def images_in(folder: Path) -> list[Path]:
    """All ``.nii.gz`` and ``.nii`` files of a folder, sorted; hidden ones are left out.

    Raises:
        MissingInputError: IN-38, no such folder.
    """
    need_folder(folder)
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(IMAGE_SUFFIXES) and not path.name.startswith(".")
    )


def listed(names: Iterable[object], shown: int = 5) -> str:
    """``a, b, c and 7 more``."""
    every = [str(name) for name in names]
    rest = f" and {len(every) - shown} more" if len(every) > shown else ""
    return ", ".join(every[:shown]) + rest


def need_folder(folder: Path) -> None:
    """Refuse a folder that is not there (IN-38)."""
    if not folder.is_dir():
        raise MissingInputError(
            "IN-38",
            "no such folder",
            why="the cases are looked for in it",
            fix=f"check the path: ls '{folder.parent}'",
            path=folder,
        )


def _read_table(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Number and cells of every line but the heading and empty ones."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MissingInputError(
            "IN-38",
            f"the table cannot be read ({error.strerror})",
            why="it tells which prediction belongs to which truth",
            fix=f"check the path: ls -l '{table}'",
            path=table,
        ) from error
    except UnicodeDecodeError as error:
        raise _bad_table(table, f"it is no text in UTF-8 ({error.reason})") from error
    rows = list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    head = [name.strip() for name in rows[0]] if rows else []
    lacking = [name for name in TABLE_COLUMNS if name not in head]
    unknown = [name for name in head if name not in (*TABLE_COLUMNS, *OPTIONAL_COLUMNS)]
    if lacking:
        raise _bad_table(table, f"the heading has no column '{lacking[0]}'")
    if unknown or len(set(head)) < len(head):
        wrong = f"a column '{unknown[0]}'" if unknown else "a column twice"
        raise _bad_table(table, f"the heading has {wrong}")
    lines = []
    for number, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) != len(head):
            raise _bad_table(table, f"line {number} has {len(cells)} cells, the heading {len(head)}")
        lines.append((number, dict(zip(head, cells, strict=True))))
    if not lines:
        raise _bad_table(table, "it lists no case")
    return lines


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files that match a pattern, whose relative or absolute path may hold wildcards anywhere."""
    start, parts = folder, Path(pattern).parts
    if Path(pattern).is_absolute():
        start, parts = Path(parts[0]), parts[1:]
    return sorted(start.glob(str(Path(*parts))))


def _bad_table(table: Path, what: str) -> InputError:
    return InputError(
        "EV-03",
        f"{what}; expected columns with tabs between: {', '.join(TABLE_COLUMNS)}"
        f" [, {', '.join(OPTIONAL_COLUMNS)}]",
        why="a wrong pair would give scores that mean nothing",
        fix="correct the table; docs/how-to/evaluate.md shows one",
        path=table,
    )
