"""Recipes for training cases: tables of a run's configuration, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from neuromend.corpus.recipe import RECIPES, Recipe
from neuromend.errors import UsageError


def test_an_empty_table_is_the_default() -> None:
    assert Recipe.from_table({}) == Recipe() == RECIPES["default"]


def test_a_table_changes_a_recipe_that_it_names() -> None:
    table = {"base": "crop128", "noise": 1, "volume_ml": [1, 20], "plane_jitter": False, "crop": [64, 80, 96]}
    expected = replace(
        RECIPES["crop128"], noise=1.0, volume_ml=(1.0, 20.0), plane_jitter=False, crop=(64, 80, 96)
    )
    assert Recipe.from_table(table) == expected
    assert Recipe.from_table({"crop": "whole"}).crop == "whole"


def test_a_plain_recipe_keeps_the_crop_and_changes_nothing_in_a_scan() -> None:
    plain = RECIPES["crop128"].plain()
    assert plain.crop == (128, 128, 128)
    assert {
        getattr(plain, n) for n in ("scattered", "geometry", "flip", "gamma", "skull", "noise", "bias")
    } == {0.0}
    assert plain.gain == (1.0, 1.0)
    assert RECIPES["paper"].plain() == RECIPES["paper"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"base": "best"}, "base is 'best'; expected one of crop128"),
        ({"nois": 0.5}, "nois is 0.5; expected one of the names"),
        ({"noise": 1.5}, "noise is 1.5; expected a share"),
        ({"noise": True}, "noise is True; expected a value like 0.4"),
        ({"noise": "much"}, "noise is 'much'"),
        ({"gamma": -1}, "gamma is -1.0; expected 0 or more"),
        ({"plane_jitter": 1}, "plane_jitter is 1; expected a value like True"),
        ({"gain": [1.2, 0.8]}, r"gain is \(1.2, 0.8\); expected two numbers above 0"),
        ({"gain": [1.2]}, r"gain is \[1.2\]"),
        ({"volume_ml": [0, 1]}, "volume_ml is"),
        ({"crop": "half"}, "crop is 'half'"),
        ({"crop": [64, 0, 64]}, "crop is"),
        ({"crop": [64, 64]}, "crop is"),
    ],
)
def test_what_means_nothing_is_refused(table: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Recipe.from_table(table)
    assert (caught.value.code, caught.value.exit_status) == ("TR-31", 2)
