"""Runs: what is kept, what is repeated, what fails alone, what stops everything, and the command as a whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend import benchmark, cli
from neuromend.benchmark import ORACLE, Method, Settings, default_names, methods_of, run_benchmark, run_digest
from neuromend.benchmark_cases import Case, load
from neuromend.benchmark_runs import append_run, filled_image, read_runs
from neuromend.benchmark_worker import Worker
from neuromend.errors import NeuromendError
from neuromend.evaluate import EvaluationError
from neuromend.external import EXTERNAL
from neuromend.methods import METHODS

from .filling_cases import ball, head, image, save_network

SETTINGS = Settings(device="cpu", threads=1)
QUIET = ["--device", "cpu", "--threads", "1", "-q"]


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # main() sets it for the process; here that is pytest's


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    nib.save(image(head()), tmp_path / "scan.nii.gz")
    nib.save(image(ball()), tmp_path / "one.nii.gz")
    nib.save(image(ball(0.2, (-0.3, 0.1, 0.0))), tmp_path / "two.nii.gz")
    rows = [f"{name}\tscan.nii.gz\t{name}.nii.gz\tcortex\n" for name in ("one", "two")]
    (tmp_path / "cases.tsv").write_text("id\timage\tmask\tsite\n" + "".join(rows))
    return [Case(name, tmp_path / "scan.nii.gz", tmp_path / f"{name}.nii.gz") for name in ("one", "two")]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that stands for FSL: it copies its input, and does first what a test writes into ``do``."""
    program = tmp_path / "bin" / EXTERNAL["fsl"].executable
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n. "{tmp_path}/do"\ncp "$2" "$6"\necho run >> "{tmp_path}/count"\n')
    program.chmod(0o755)
    (tmp_path / "do").write_text("")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run(cases: list[Case], names: list[str], out: Path, settings: Settings = SETTINGS) -> Any:
    told: list[bool] = []
    rows = run_benchmark(
        cases, methods_of(names, 0), out, settings, on_run=lambda done, of, row, kept: told.append(kept)
    )
    return SimpleNamespace(rows=rows, kept=told)


def test_the_whole_command(cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "benchmark",
        "--models",
        "ring-mean",
        "white-matter",
        "oracle",
        "--cases",
        str(tmp_path / "cases.tsv"),
    ]
    words += [
        "--out",
        str(tmp_path / "out"),
        "--results",
        str(tmp_path / "docs" / "results.md"),
        *QUIET,
        "--json",
    ]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cases"] == 2
    assert set(found["methods"]) == {"ring-mean", "white-matter", "oracle"}
    assert found["failures"] == []
    files = {role: Path(path) for role, path in found["outputs"].items()}
    assert all(path.stat().st_size for path in files.values())
    assert {path.name for path in files.values()} == {
        "scores.csv", "leaderboard.html", "leaderboard.md", "figure.png", "results.md", "results.png"
    }  # fmt: skip
    text = files["results"].read_text()
    assert "](results.png)" in text
    assert "neuromend benchmark --models ring-mean white-matter oracle" in text
    rows = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    assert [(row["method"], row["id"]) for row in rows] == [
        (name, case) for name in ("ring-mean", "white-matter", "oracle") for case in ("one", "two")
    ]
    for row in rows[:4]:
        assert row["seconds"] > 0
        assert 50 < row["peak_memory_mb"] < 4000
        assert (row["device"], row["steps"], row["site"], row["seed"]) == ("cpu", 1, "cortex", 0)
        assert row["mse"] > 0
    assert rows[4]["mse"] == 0
    assert rows[4]["psnr"] == "inf"  # in JSON that every reader understands
    words_kept = text.replace("again -->\n", "again -->\nRing means win.\n", 1)
    files["results"].write_text(words_kept)
    assert cli.main(words) == 0  # and nothing is run again
    assert len((tmp_path / "out" / "runs.jsonl").read_text().splitlines()) == 6
    assert "Ring means win." in files["results"].read_text()


def test_a_network_also_draws_samples(cases: list[Case], tmp_path: Path) -> None:
    folder = save_network(tmp_path / "tiny")
    methods = methods_of([str(folder)], 2)
    assert [(m.label, m.samples) for m in methods] == [
        ("tiny", 0),
        ("tiny, 1 sample", 1),
        ("tiny, mean of 2", 2),
    ]
    rows = run_benchmark(cases[:1], methods[2:], tmp_path / "out", SETTINGS, on_run=lambda *_: None)
    assert rows[0]["samples"] == 2
    assert rows[0]["crps"] > 0
    assert np.isnan(rows[0]["coverage_50"])  # of two samples nothing can be said
    assert np.isnan(read_runs(tmp_path / "out" / "runs.jsonl")[rows[0]["digest"]]["coverage_50"])


def test_a_network_whose_samples_are_no_anatomies_draws_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not METHODS["unet3d"].samples_are_anatomies  # type: ignore[attr-defined]
    monkeypatch.setattr(METHODS["fastwavelet3d"], "samples_are_anatomies", False, raising=False)
    assert [m.label for m in methods_of([str(save_network(tmp_path / "tiny"))], 2)] == ["tiny"]


def test_finished_runs_are_kept_and_others_are_made(cases: list[Case], tool: Path) -> None:
    out = tool / "out"
    first = run(cases[:1], ["fsl", ORACLE], out)
    again = run(cases, ["fsl", ORACLE], out)
    assert first.kept == [False, False]
    assert again.kept == [True, False, True, False]
    assert (tool / "count").read_text().count("run") == 2
    assert again.rows[0] == first.rows[0]
    (out / "fills" / "fsl" / "one.npy").unlink()  # a run without its voxels is none
    assert run(cases, ["fsl"], out).kept == [False, True]


def test_what_decides_a_run_decides_whether_it_is_kept(cases: list[Case], tmp_path: Path) -> None:
    method = Method("harmonic", "harmonic", 0, "harmonic")
    digests = {run_digest(cases[0], method, SETTINGS), run_digest(cases[1], method, SETTINGS)}
    digests |= {run_digest(cases[0], Method("harmonic", "harmonic", 0, "other weights"), SETTINGS)}
    digests |= {run_digest(cases[0], Method("copy", "harmonic", 0, "harmonic"), SETTINGS)}
    digests |= {run_digest(cases[0], Method("harmonic", "harmonic", 3, "harmonic"), SETTINGS)}
    for changed in (Settings(1, None, "cpu", 1), Settings(0, 2, "cpu", 1), Settings(0, None, "auto", 1)):
        digests.add(run_digest(cases[0], method, changed))
    nib.save(image(head() * 2), tmp_path / "scan.nii.gz")
    digests.add(
        run_digest(Case("one", *[tmp_path / f"{n}.nii.gz" for n in ("scan", "one")]), method, SETTINGS)
    )
    assert len(digests) == 9


def test_the_filled_voxels_are_stored_in_the_order_of_the_mask(cases: list[Case], tmp_path: Path) -> None:
    rows = run(cases, [ORACLE], tmp_path / "out").rows
    loaded = load(cases[1])
    assert np.array_equal(filled_image(tmp_path / "out", rows[1], loaded), loaded.healthy)
    np.save(tmp_path / "out" / "fills" / ORACLE / "two.npy", np.arange(loaded.mask.sum()))
    filled = filled_image(tmp_path / "out", rows[1], loaded)
    assert np.array_equal(filled[loaded.mask], np.arange(loaded.mask.sum()))
    assert np.array_equal(filled[~loaded.mask], loaded.healthy[~loaded.mask])


def test_a_method_is_never_handed_the_truth(cases: list[Case], tool: Path) -> None:
    (tool / "do").write_text(f'cp "$2" "{tool}/seen.nii.gz"\n')
    row = run(cases[:1], ["fsl"], tool / "out").rows[0]
    seen, loaded = nib.load(tool / "seen.nii.gz").get_fdata(dtype=np.float32), load(cases[0])
    assert (seen[loaded.mask] != loaded.healthy[loaded.mask]).all()
    assert np.array_equal(seen[~loaded.mask], loaded.healthy[~loaded.mask])
    assert row["mse"] > 0.01  # it gave back the noise


def test_a_method_that_fails_on_a_case_does_not_stop_the_others(cases: list[Case], tool: Path) -> None:
    (tool / "do").write_text(f'if mkdir "{tool}/once" 2>/dev/null; then echo broken >&2; exit 9; fi\n')
    rows = run(cases, ["fsl", ORACLE], tool / "out").rows
    assert rows[0]["failed"].startswith("[BM-02] lesion_filling ended with status 9: broken")
    assert all("failed" not in row for row in rows[1:])
    again = run(cases, ["fsl", ORACLE], tool / "out")
    assert again.kept == [False, True, True, True]  # what failed is tried again
    assert "failed" not in again.rows[0]


def test_a_process_that_dies_is_a_failed_run_and_the_next_case_gets_another(
    cases: list[Case], tool: Path
) -> None:
    (tool / "do").write_text(f'if mkdir "{tool}/once" 2>/dev/null; then kill -9 $PPID; sleep 9; fi\n')
    rows = run(cases, ["fsl"], tool / "out").rows
    assert rows[0]["failed"] == "[BM-04] the process of 'fsl' died (SIGKILL)"
    assert "failed" not in rows[1]


def test_the_error_of_a_process_is_raised_here_whole(tool: Path) -> None:
    (tool / "do").write_text("exit 4\n")
    with Worker("fsl") as worker, pytest.raises(NeuromendError) as caught:
        worker(image(head()), image(ball()))
    assert (caught.value.code, caught.value.exit_status) == ("BM-02", 70)
    assert caught.value.fix


@pytest.fixture
def peeking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that gives back what it finds in the hole."""

    class Peeking(Worker):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None: ...

        def __call__(self, scan: Any, hole: Any) -> Any:
            return SimpleNamespace(image=scan, samples=())

    monkeypatch.setattr(benchmark, "Worker", Peeking)


@pytest.mark.usefixtures("peeking")
def test_a_method_that_looks_into_the_hole_stops_the_benchmark(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as caught:
        run(cases, ["harmonic"], tmp_path / "out")
    assert (caught.value.code, caught.value.exit_status) == ("TR-12", 65)
    assert not (tmp_path / "out" / "runs.jsonl").exists()


def test_the_default_is_all_that_can_be_used_here(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = default_names()
    assert {"harmonic", "patch", "white-matter", "fsl", ORACLE} <= set(names)
    assert "niftyseg" not in names
    assert names[-1] == ORACLE


@pytest.mark.parametrize(
    ("names", "samples", "code", "status", "word"),
    [
        (["harmonic", "harmonic"], 0, "BM-08", 2, "'harmonic'"),
        (["harmonic"], 1, "UX-02", 2, "--samples is 1"),
        (["harmonic"], -2, "UX-02", 2, "--samples is -2"),
        (["nobody"], 0, "MO-16", 78, "'nobody'"),
        (["neurolit"], 0, "BM-01", 66, "lit-inpainting"),
    ],
)
def test_wrong_methods_are_refused_before_any_work(
    names: list[str], samples: int, code: str, status: int, word: str
) -> None:
    with pytest.raises(NeuromendError) as caught:
        methods_of(names, samples)
    assert (caught.value.code, caught.value.exit_status) == (code, status)
    assert word in caught.value.what


def test_a_line_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "out" / "runs.jsonl"
    append_run(path, {"digest": "a", "mse": float("nan"), "steps": None})
    with path.open("a") as file:
        file.write('{"digest": "b", "ms')
    assert list(read_runs(path)) == ["a"]
    append_run(path, {"digest": "c", "mse": 0.25})
    rows = read_runs(path)
    assert list(rows) == ["a", "c"]
    assert np.isnan(rows["a"]["mse"])
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("line", ["not a run", '{"mse": 1}', "[1]", "3"])
def test_another_file_is_not_taken_for_runs(line: str, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text(f'{{"digest": "a"}}\n{line}\n')
    with pytest.raises(NeuromendError) as caught:
        read_runs(tmp_path / "runs.jsonl")
    assert (caught.value.code, caught.value.exit_status) == ("BM-09", 65)
    assert caught.value.what.startswith("line 2")
    assert caught.value.path == tmp_path / "runs.jsonl"
