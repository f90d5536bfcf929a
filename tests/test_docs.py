"""The pages for users: commands that exist, links that lead somewhere, an example that runs."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer

import neuromend
from neuromend import cli
from neuromend.doctor import synthetic_head

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "training/README.md")),
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "decisions"),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def lines_of_shell() -> list[str]:
    return [
        line.split("  #")[0].strip()
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]


@pytest.mark.parametrize("line", sorted({line for line in lines_of_shell() if line.startswith("neuromend ")}))
def test_every_command_is_understood(line: str) -> None:
    """Names, options and values are parsed as the command line parses them; nothing is run."""
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    if not {"--help", "-h", "--version"} & set(words) and not hasattr(command, "commands"):
        command.make_context(command.name, words)


@pytest.mark.parametrize("line", sorted({line for line in lines_of_shell() if line.startswith("make ")}))
def test_every_chore_is_in_the_makefile(line: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert line.split()[1] in targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    """A page that no one is led to is not read; the index itself is linked by the README."""
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", (docs / "README.md").read_text(encoding="utf-8")))
    there = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} - {"README.md"}
    assert sorted(there - linked) == []
    assert "](docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for image, name in zip(synthetic_head(), ("T1.nii.gz", "lesion.nii.gz"), strict=True):
        small = np.asarray(image.dataobj)[::3, ::3, ::3]
        nib.save(nib.Nifti1Image(small, image.affine @ np.diag([3, 3, 3, 1])), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    fill: Any = partial(
        neuromend.fill, model="ring-mean", threads=1
    )  # every test runs without trained weights
    monkeypatch.setitem(vars(neuromend), "fill", fill)
    (example,) = blocks(ROOT / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "(27, 32, 24)" in out
    assert "OK-01 pass" in out


def test_the_files_that_the_readme_lists_are_those_that_are_written(tmp_path: Path) -> None:
    from neuromend.planning import OutputPlan

    listed = re.findall(r"`(filled[^` ]*\.[a-z.]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    planned = {
        path.name for path in OutputPlan.of(tmp_path / "filled.nii.gz", "T1.nii.gz", samples=2).files.values()
    }
    assert set(listed) == planned - {"filled_sample-02.nii.gz"}


def test_the_first_steps_name_codes_that_are_explained() -> None:
    start, errors = (
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("start", "errors")
    )
    codes = set(re.findall(r"\b[A-Z]{2}-\d\d\b", start))
    assert codes
    assert all(f"| {code} |" in errors for code in codes)
