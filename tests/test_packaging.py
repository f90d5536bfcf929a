"""What is shipped is what is in the tree; versions agree; the light imports stay light."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "neuromend"
#: A wheel above this is refused by many users' patience and by some proxies; the weights take 32 MB of it.
MAX_WHEEL_BYTES = 40_000_000


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that no build folder appears in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(
        ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
    )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return built


def names(requirements: list[Any]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", text, maxsplit=1)[0].lower() for text in requirements}


def test_everything_in_the_package_is_in_the_wheel(wheel: Path) -> None:
    tree = {
        path.relative_to(ROOT / "src").as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and not any(p.startswith((".", "__pycache__")) for p in path.relative_to(ROOT).parts)
    }
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith("neuromend/")}
    assert "neuromend/py.typed" in shipped
    assert {name for name in shipped if name.startswith("neuromend/report/")} > {"neuromend/report/page.css"}
    assert shipped == tree


def test_the_wheel_has_its_licence_its_command_and_a_bearable_size(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        listed = archive.namelist()
        (commands,) = (name for name in listed if name.endswith("entry_points.txt"))
        assert b"neuromend = neuromend.cli:main" in archive.read(commands)
        (metadata,) = (name for name in listed if name.endswith(".dist-info/METADATA"))
        facts = archive.read(metadata).decode()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in listed)
    assert "License-Expression: Apache-2.0" in facts
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_users_are_not_bound_to_the_tested_versions(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"].values()
    for requirement in [*project["project"]["dependencies"], *(r for extra in extras for r in extra)]:
        assert "==" not in requirement


def test_every_direct_dependency_has_a_tested_version(project: dict[str, Any]) -> None:
    direct = names(project["project"]["dependencies"]) | names(project["dependency-groups"]["dev"])
    for extra in project["project"]["optional-dependencies"].values():
        direct |= names(extra) - {"neuromend"}  # the extra that is all others
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    assert names(pins) == direct


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    release = project["project"]["version"]
    assert f"\nversion: {release}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == release


@pytest.mark.parametrize("module", ["neuromend", "neuromend.cli", "neuromend.models", "neuromend.provenance"])
def test_a_light_module_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "scipy", "matplotlib", "nibabel", "diffusers"}
    code = f"import sys, {module}; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
