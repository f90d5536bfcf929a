"""The container recipes name files that exist and hold what the promises need (no container is built here)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKER = (ROOT / "containers" / "Dockerfile").read_text()
APPTAINER = (ROOT / "containers" / "neuromend.def").read_text()


def copied() -> set[str]:
    """What both recipes take from the repository."""
    docker = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKER, re.MULTILINE)
        for name in line.split()[:-1]
    }
    section = re.search(r"%files\n(.*?)\n\n", APPTAINER, re.DOTALL)
    assert section is not None
    assert {line.split()[0] for line in section[1].splitlines()} == docker
    return docker


def test_both_recipes_take_the_same_files_and_these_exist() -> None:
    assert all((ROOT / name).exists() for name in copied())


def test_what_is_copied_is_not_ignored() -> None:
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied() == kept


@pytest.mark.parametrize("recipe", [DOCKER, APPTAINER])
def test_nothing_is_fetched_or_written_at_run_time(recipe: str) -> None:
    for setting in (
        "HF_HUB_OFFLINE=1",
        "PYTHONDONTWRITEBYTECODE=1",
        "MPLCONFIGDIR=/tmp/",
        "XDG_CACHE_HOME=/tmp/",
    ):
        assert setting in recipe
    assert "models verify" in recipe


@pytest.mark.parametrize("recipe", [DOCKER, APPTAINER])
def test_the_extras_exist(recipe: str) -> None:
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    named = re.search(r"(?:EXTRAS=|\.\[)(\w+(?:,\w+)*)", recipe)
    assert named is not None
    assert set(named[1].split(",")) <= extras
