"""``neuromend evaluate`` and ``neuromend submission``: what they accept, print and end with."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from neuromend import cli, submission_checks

from .brats_cases import IDS, SHAPE, add_case, add_prediction, hole, save, tumour

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command and returns its exit status, stdout and stderr."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr(submission_checks, "GRID", SHAPE)

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return command


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and cases."""
    for seed, name in enumerate(IDS):
        healthy = add_case(tmp_path / "truth", name, seed)
        add_prediction(tmp_path / "pred", name, np.where(hole() | tumour(), 850, healthy).astype(np.float32))
    return tmp_path / "pred", tmp_path / "truth"


def test_evaluate_writes_scores_and_tells_every_case(
    run: Run, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    status, out, err = run("evaluate", "--pred", folders[0], "--truth", folders[1], "--out", tmp_path / "s")
    assert status == 0, err
    assert out.splitlines() == [
        f"scores: {tmp_path / 's' / 'scores.csv'}",
        f"markdown: {tmp_path / 's' / 'summary.md'}",
        f"summary: {tmp_path / 's' / 'summary.json'}",
    ]
    assert f"[2/3] {sorted(IDS)[1]} (3.2 ml): PSNR " in err
    with (tmp_path / "s" / "scores.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == sorted(IDS)


def test_evaluate_as_json_is_the_summary(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = (
        "evaluate",
        "--pred",
        folders[0],
        "--truth",
        folders[1],
        "-o",
        tmp_path,
        "--json",
        "-q",
        "-j",
        "2",
    )
    status, out, err = run(*words)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found.pop("outputs")["summary"] == str(tmp_path / "summary.json")
    assert found == json.loads((tmp_path / "summary.json").read_text())


def test_evaluate_takes_a_table(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    name = IDS[0]
    truth = f"truth/{name}/{name}"
    cells = f"a\tpred/{name}-t1n-inference.nii.gz\t{truth}-t1n.nii.gz\t{truth}-mask-healthy.nii.gz"
    (tmp_path / "pairs.tsv").write_text(f"id\tprediction\ttruth\tmask\n{cells}\n")
    status, _, err = run("evaluate", "--pairs", tmp_path / "pairs.tsv", "--out", tmp_path / "scores")
    assert status == 0, err
    assert "[1/1] a (3.2 ml)" in err


def test_missing_and_surplus_predictions(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    gone = folders[0] / f"{IDS[0]}-t1n-inference.nii.gz"
    gone.rename(folders[0] / "stray.nii.gz")
    words = ("evaluate", "--pred", folders[0], "--truth", folders[1], "--out", tmp_path / "s")
    status, out, err = run(*words)
    assert (status, out) == (65, "")
    assert f"[EV-01] 1 of 3 cases have no prediction: {IDS[0]}" in err
    assert list((tmp_path / "s").iterdir()) == []
    status, _, err = run(*words, "--allow-missing")
    assert status == 0
    assert "WARN [EV-01] 1 of 3 cases" in err
    assert "WARN [EV-02] 1 files among the predictions belong to no case: stray.nii.gz" in err
    assert f"- {IDS[0]}" in (tmp_path / "s" / "summary.md").read_text()


def test_a_wrong_grid_names_the_case_and_writes_nothing(
    run: Run, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    path = add_prediction(folders[0], IDS[1], np.ones((19, 22, 24), np.float32))
    status, out, err = run("evaluate", "--pred", folders[0], "--truth", folders[1], "--out", tmp_path / "s")
    assert (status, out) == (65, "")
    assert f"[MA-09] {path}: case {IDS[1]}: prediction: 19x22x24 voxels" in err
    assert list((tmp_path / "s").iterdir()) == []


def test_scores_that_are_there_are_not_replaced(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("precious")
    words = ("evaluate", "--pred", folders[0], "--truth", folders[1], "--out", tmp_path)
    assert run(*words)[0] == 73
    assert (tmp_path / "summary.json").read_text() == "precious"
    assert run(*words, "--overwrite")[0] == 0


@pytest.mark.parametrize("words", ["", "--pred p", "--truth t", "--pairs f --pred p", "--pairs f --truth t"])
def test_one_way_of_pairing_must_be_chosen(run: Run, tmp_path: Path, words: str) -> None:
    status, out, err = run("evaluate", "--out", tmp_path / "s", *words.split())
    assert (status, out) == (2, "")
    assert "[UX-15] expected either --pred and --truth, or --pairs" in err
    assert not (tmp_path / "s").exists()


def test_submission_check_lists_every_fault(run: Run, folders: tuple[Path, Path]) -> None:
    words = ("submission", "check", folders[0], "--cases", folders[1])
    status, out, _ = run(*words)
    assert (status, out) == (0, "3 predictions, 0 faults\n")
    (folders[0] / "log.txt").write_text("")
    add_prediction(folders[0], IDS[1], np.ones((19, 22, 24), np.float32))
    status, out, _ = run(*words)
    assert status == 65
    assert f"FAIL [SU-04] {folders[0] / 'log.txt'}" in out
    assert "FAIL [SU-02]" in out
    assert out.endswith("3 predictions, 2 faults\n")
    status, out, _ = run(*words, "--json", "-q")
    assert status == 65
    assert [fault["code"] for fault in json.loads(out)["faults"]] == ["SU-04", "SU-02"]


def test_submission_make_fills_checks_and_packs(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("submission", "make", "--cases", folders[1], "--out", tmp_path / "sub", "--model", "harmonic")
    status, out, err = run(*words, "--threads", "1")
    assert (status, out) == (0, f"submission: {tmp_path / 'sub' / 'submission.zip'}\n"), err
    assert f"[3/3] {sorted(IDS)[2]}: ready" in err
    assert run("submission", "check", tmp_path / "sub" / "predictions", "--cases", folders[1])[0] == 0
    status, _, err = run(*words, "--threads", "1")
    assert status == 0
    assert err.count("[RT-05] the output is there, complete") == 3


def test_submission_pack_makes_the_zip(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("submission", "pack", folders[0], "--out", tmp_path / "mine.zip", "--json")
    status, out, err = run(*words)
    assert status == 0, err
    assert json.loads(out) == {"outputs": {"submission": str(tmp_path / "mine.zip")}}
    assert run(*words)[0] == 73


@pytest.mark.parametrize(
    "words", [("evaluate",), ("submission",), *(("submission", n) for n in ("check", "make", "pack"))]
)
def test_every_command_has_help(run: Run, words: tuple[str, ...]) -> None:
    status, out, err = run(*words, "--help")
    assert (status, err) == (0, "")
    assert f"Usage: neuromend {' '.join(words)}" in out


def test_every_option_tells_its_default() -> None:
    commands = vars(vars(typer.main.get_command(cli.app))["commands"]["submission"])["commands"]
    for name, command in commands.items():
        for option in command.params:
            assert option.required or option.show_default or "(Default: " in (option.help or ""), (
                name,
                option.name,
            )


GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "evaluate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^neuromend .*$", GUIDE, re.MULTILINE))
def test_every_command_of_the_guide_is_understood(
    run: Run, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where none of its files are
    status, _, err = run(*shlex.split(line)[1:])
    assert status == 66, err


def test_the_table_of_the_guide_can_be_read(tmp_path: Path) -> None:
    from neuromend.pairing import pair_table

    (example,) = re.findall(r"^```tsv\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    (tmp_path / "pairs.tsv").write_text(example)
    assert len(pair_table(tmp_path / "pairs.tsv").missing) == 2


def test_the_example_of_the_guide_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from neuromend.doctor import synthetic_head

    for image, name in zip(synthetic_head(), ("healthy.nii.gz", "hole.nii.gz"), strict=True):
        small = np.asarray(image.dataobj)[::3, ::3, ::3]
        save(tmp_path / name, small, image.affine @ np.diag([3, 3, 3, 1]))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "evaluate.md", "exec"), names)
    assert 10 < names["scores"]["psnr_01"] < 60


def test_the_guide_names_every_column_and_site() -> None:
    from neuromend.score_files import COLUMNS
    from neuromend.sites import SITES

    assert [name for name in (*COLUMNS, *SITES) if f"`{name}`" not in GUIDE] == []
