"""Who trains and who is scored: every person is in one split, drawn from the seed and the person's name alone.

So the split of a person never changes when others are added, and nothing has to be stored to repeat it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from neuromend.errors import InputError, UsageError


class Person(Protocol):
    """What a split is decided by: the case's id, its subject and the split that a table gives it."""

    @property
    def id(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def split(self) -> str | None: ...


def split_subjects(
    cases: Sequence[Person],
    stated: Mapping[str, str],
    *,
    seed: int,
    dev_share: float,
    test_share: float,
) -> dict[str, str]:
    """Subject -> split.

    Args:
        cases: all cases; a stated split of one holds for all of its subject.
        stated: subject -> split, of a table of subjects; it goes before what the cases say.
        seed: of the drawn splits.
        dev_share, test_share: shares of the subjects; the rest trains.

    Raises:
        UsageError: TR-10, the shares are no shares.
        InputError: TR-10, a subject is in two splits; or the table names subjects of whom none is here.
    """
    if not (dev_share >= 0 and test_share >= 0 and dev_share + test_share < 1):
        raise UsageError(
            "TR-10",
            f"--dev-share {dev_share:g} and --test-share {test_share:g}; expected two shares of 0 or more,"
            " together less than 1",
            why="somebody must be left to train on",
            fix="--dev-share 0.1 --test-share 0.1",
        )
    known = {case.subject for case in cases}
    strangers = sorted(set(stated) - known)
    if stated and not set(stated) & known:
        raise InputError(
            "TR-10",
            f"none of the {len(stated)} subjects of --subjects is in the data set (such as '{strangers[0]}');"
            f" its subjects are called like '{min(known)}'",
            why="the splits that the table states would all be ignored",
            fix="write the subjects as the data set names them",
        )
    splits = dict(stated)
    said_by: dict[str, str] = {}
    for case in cases:
        if case.subject in stated or case.split is None:
            continue
        if splits.setdefault(case.subject, case.split) != case.split:
            raise InputError(
                "TR-10",
                f"subject '{case.subject}' is in two splits: case '{said_by[case.subject]}' in"
                f" '{splits[case.subject]}', case '{case.id}' in '{case.split}'",
                why="scores on a person whom the network has seen in training mean nothing",
                fix="give all cases of a subject one split",
            )
        said_by.setdefault(case.subject, case.id)
    for subject in known - set(splits):
        splits[subject] = drawn_split(subject, seed, dev_share, test_share)
    return {subject: splits[subject] for subject in known}


def drawn_split(subject: str, seed: int, dev_share: float, test_share: float) -> str:
    """The split of a subject: a number between 0 and 1 that its name and the seed give, compared with the shares."""
    digest = hashlib.sha256(f"{seed}\t{subject}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test_share:
        return "test"
    return "dev" if place < test_share + dev_share else "train"
