"""The small files of a BIDS dataset: its description, tables of labels, sidecars, found by inheritance."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromend.cohort.bids_names import LESION_INDEX, LESION_WORDS, BidsName, parse_name
from neuromend.errors import InputError

_LARGEST = 4 << 20
"""Bytes above which a file is no sidecar and no table of labels."""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What ``dataset_description.json`` tells; empty where there is none."""

    name: str = ""
    doi: str = ""
    makers: tuple[str, ...] = ()


def dataset_facts(folder: Path) -> DatasetFacts:
    """Read the description of a dataset; one that cannot be read tells nothing, for it is not ours to judge."""
    facts = _read_json(folder / "dataset_description.json")
    made = facts.get("GeneratedBy")
    makers = made if isinstance(made, list) else []
    return DatasetFacts(
        name=str(facts.get("Name") or ""),
        doi=str(facts.get("DatasetDOI") or ""),
        makers=tuple(str(maker.get("Name")) for maker in makers if isinstance(maker, dict)),
    )


def says_lesion_type(mask: Path, dataset: Path) -> bool:
    """Whether the sidecar of a mask (its own, or one that it inherits) has ``"Type": "Lesion"``."""
    name = parse_name(mask.name)
    if name is None:
        return False
    # The nearest file that has the field decides, as inheritance demands.
    for path in inherited(mask.parent, name, dataset, ".json"):
        kind = _read_json(path).get("Type")
        if kind is not None:
            return str(kind).casefold() == "lesion"
    return False


def lesion_labels(dseg: Path, name: BidsName, dataset: Path) -> tuple[int, ...] | None:
    """The labels of a label map that its table calls lesion; None if no table does.

    A row is lesion if its ``name`` or ``abbreviation`` is a word for it, or if its ``mapping`` leads to the lesion of
    BIDS' generic table.

    Raises:
        InputError: BD-05, the table cannot be read.
    """
    table = next(iter(inherited(dseg.parent, name, dataset, ".tsv")), None)
    if table is None:
        return None
    labels = []
    for row in read_table(table):
        said = {(row.get(column) or "").strip().casefold() for column in ("name", "abbreviation")}
        if said & LESION_WORDS or (row.get("mapping") or "").strip() == str(LESION_INDEX):
            index = (row.get("index") or "").strip()
            try:
                labels.append(int(index))
            except ValueError:
                raise _bad_table(
                    table, f"the index '{index}' of {row.get('name')} is no whole number"
                ) from None
    return tuple(labels) or None


def inherited(folder: Path, name: BidsName, dataset: Path, extension: str) -> list[Path]:
    """Metadata files that apply to a file, the nearest first (BIDS, "The Inheritance Principle").

    A file applies if it lies in the same folder or above, has the same suffix, and has no entity that the file does
    not have with the same label. In one folder the one with more entities is nearer.
    """
    found: list[Path] = []
    while folder == dataset or dataset in folder.parents:
        here = []
        for path in sorted(folder.glob(f"*{name.suffix}{extension}")):
            # "dseg.tsv" at the top of a dataset applies to every label map.
            other = parse_name(path.name)
            if (
                other is not None
                and (other.suffix, other.extension) == (name.suffix, extension)
                and other.entities.items() <= name.entities.items()
            ):
                here.append((len(other.entities), path))
        found += [path for _, path in sorted(here, key=lambda entry: -entry[0])]
        folder = folder.parent
    return found


def read_table(path: Path) -> list[dict[str, str | None]]:
    """The rows of a table with tabs, by its heading.

    Raises:
        InputError: BD-05, it cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has {path.stat().st_size} bytes, too many for a table of labels")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, ValueError, csv.Error) as error:
        raise _bad_table(path, f"it cannot be read ({error})") from error


def _bad_table(path: Path, what: str) -> InputError:
    return InputError(
        "BD-05",
        f"table of labels: {what}",
        why="it tells which label of the segmentation is lesion",
        fix="correct the table (columns index and name, tabs between), or give the labels: --labels 7",
        path=path,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        facts = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
