"""The BIDS App: fill every scan of a dataset that has a lesion mask, then look at all of them together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from neuromend.cohort.bids_dataset import DatasetNames, refuse_foreign, write_dataset_files
from neuromend.cohort.bids_layout import Match, Selection, find_matches, mask_datasets
from neuromend.cohort.bids_outputs import BidsCase, BidsSettings, filled_path, finish_case
from neuromend.cohort.cases import Case
from neuromend.cohort.clusters import EngineOptions
from neuromend.cohort.engine import Event, Summary, run_cases
from neuromend.errors import InputError

Filters = tuple[Mapping[str, str | None], Mapping[str, str | None]]


@dataclass(frozen=True)
class BidsCases:
    """The cases of a dataset, found anew each time they are iterated, so that no list of them is kept.

    Args:
        root: the dataset; out: the derivatives.
        selection: the user's choice.
        names: names of the datasets, for URIs.
        count: how many there are.
    """

    root: Path
    out: Path
    selection: Selection
    names: DatasetNames
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Case]:
        for match in find_matches(self.root, self.out, self.selection):
            yield case_of(match, self.out, self.names)


def case_of(match: Match, out: Path, names: DatasetNames) -> BidsCase:
    """A scan and its mask as a case; one without a mask carries its problem along, to be told as its failure."""
    scan = match.scan
    uri = names.uri(scan.path, scan.dataset)
    target = filled_path(out, match.folder, match.id, scan.path)
    if match.mask is None:
        return BidsCase(match.id, scan.path, scan.path, target, (uri,), problem=match.problem)
    sources = (uri, names.uri(match.mask.path, match.mask.dataset))
    return BidsCase(match.id, scan.path, match.mask.path, target, sources, match.labels)


def find_cases(root: Path, out: Path, selection: Selection) -> BidsCases:
    """Find the cases of a dataset.

    Raises:
        OutputError: BD-06, ``out`` holds something else.
        MissingInputError: IN-38, no such dataset; BD-01, BD-02, nothing to be filled in it.
    """
    root, out = root.absolute(), out.absolute()
    selection = replace(selection, derivatives=tuple(path.absolute() for path in selection.derivatives))
    count = sum(1 for _ in find_matches(root, out, selection))  # refuses what is no dataset
    refuse_foreign(out, root)
    names = DatasetNames(root, mask_datasets(root, out, selection.derivatives), out)
    return BidsCases(root, out, selection, names, count)


def run_participants(
    cases: BidsCases,
    settings: BidsSettings,
    engine: EngineOptions,
    *,
    fail_fast: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Summary:
    """The participant level: fill the cases and describe the derivatives.

    Raises:
        NeuromendError: as ``run_cases``; the files of the dataset cannot be written.
    """
    settings.check()
    write_dataset_files(cases.out, cases.root, cases.names, settings)
    try:
        return run_cases(
            cases, settings, engine, cases.out, fail_fast=fail_fast, finish=finish_case, on_event=on_event
        )
    finally:
        _remove_empty_folders(cases)


def read_filters(path: Path | None) -> Filters:
    """Entities that scans and masks must have: ``{"t1w": {"acq": "mprage"}, "lesion": {"desc": "manual"}}``.

    Null means that the entity must not be there.

    Returns:
        The filters of scans and of masks.

    Raises:
        InputError: BD-10, it is no such file.
    """
    if path is None:
        return {}, {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict) or not content.keys() <= {"t1w", "lesion"}:
            raise ValueError("expected an object with the keys t1w and lesion, or one of them")
        for key, entities in content.items():
            plain = isinstance(entities, dict) and all(
                value is None or isinstance(value, str) for value in entities.values()
            )
            if not plain:
                raise ValueError(f"the value of {key} must be an object of entities and labels, both text")
    except (OSError, ValueError) as error:
        raise InputError(
            "BD-10",
            f"the filter file cannot be used: {error}",
            why="it chooses the scans and their masks",
            fix='such as {"t1w": {"acq": "mprage"}, "lesion": {"desc": "manual"}}; keys are those of file names',
            path=path,
        ) from error
    return content.get("t1w", {}), content.get("lesion", {})


def _remove_empty_folders(cases: BidsCases) -> None:
    """Remove the folders that were made for the locks of cases that failed."""
    for case in cases:
        for folder in (folder for folder in case.out.parents if cases.out in folder.parents):
            with suppress(OSError):  # not there, or in use
                folder.rmdir()
