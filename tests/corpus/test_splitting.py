"""A person is in one split, and stays there whoever else is in the data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuromend.corpus.layouts import Source
from neuromend.corpus.splitting import drawn_split, split_subjects
from neuromend.errors import InputError, UsageError


def case(name: str, subject: str, split: str | None = None) -> Source:
    return Source(name, subject, Path(f"{name}.nii.gz"), split)


PEOPLE = [case(f"{n}-{visit}", f"person-{n}") for n in range(400) for visit in (0, 1)]
SHARES = {"dev_share": 0.2, "test_share": 0.1}


def test_the_split_depends_on_seed_and_name_alone() -> None:
    whole = split_subjects(PEOPLE, {}, seed=3, **SHARES)
    part = split_subjects(PEOPLE[100:60:-1], {}, seed=3, **SHARES)
    assert part.items() <= whole.items()
    assert split_subjects(PEOPLE, {}, seed=4, **SHARES) != whole
    assert drawn_split("person-7", 3, 0.2, 0.1) == whole["person-7"]


def test_the_shares_are_met() -> None:
    splits = list(split_subjects(PEOPLE, {}, seed=3, **SHARES).values())
    assert 0.15 < splits.count("dev") / 400 < 0.25
    assert 0.06 < splits.count("test") / 400 < 0.14


def test_a_stated_split_holds_for_all_visits_of_a_person() -> None:
    cases = [case("a-0", "a"), case("a-1", "a", "test"), case("b", "b", "dev")]
    assert split_subjects(cases, {}, seed=0, dev_share=0, test_share=0) == {"a": "test", "b": "dev"}


def test_the_table_of_subjects_goes_before_the_data_set() -> None:
    cases = [case("a", "a", "train"), case("b", "b")]
    found = split_subjects(cases, {"a": "dev", "elsewhere": "test"}, seed=0, dev_share=0, test_share=0)
    assert found == {"a": "dev", "b": "train"}


def test_a_person_in_two_splits_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        split_subjects([case("a-0", "a", "train"), case("a-1", "a", "dev")], {}, seed=0, **SHARES)
    assert (caught.value.code, caught.value.exit_status) == ("TR-10", 65)
    for name in ("'a'", "a-0", "a-1", "train", "dev"):
        assert name in caught.value.what


def test_a_table_of_strangers_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        split_subjects([case("a", "sub-a")], {"a": "dev"}, seed=0, **SHARES)
    assert caught.value.code == "TR-10"
    assert "sub-a" in caught.value.what


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_that_leave_nobody_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(UsageError) as caught:
        split_subjects(PEOPLE, {}, seed=0, dev_share=shares[0], test_share=shares[1])
    assert (caught.value.code, caught.value.exit_status) == ("TR-10", 2)
