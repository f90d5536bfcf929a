"""Whole runs (RT-16, RT-17, RT-18). Most have threads of this process as workers; where some must die, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from neuromend import cli
from neuromend.cohort import engine
from neuromend.cohort.cases import Case
from neuromend.cohort.clusters import EngineOptions
from neuromend.cohort.engine import Event, run_cases
from neuromend.cohort.listing import read_list
from neuromend.cohort.state import case_lock
from neuromend.errors import EXIT_PARTIAL, TemporaryError, UsageError
from neuromend.filling import FillResult
from neuromend.provenance import hash_file, read_sidecar

from .cohort_cases import QUICK, fills, rows, write_cohort

# On a machine that is very busy, Dask finds its own start slow and says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Creating scratch directories"),
    pytest.mark.usefixtures("plain_papers"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[EngineOptions]:
    """A cluster that runs already: two workers in threads, reached by their scheduler's address."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0",
        host="127.0.0.1", silence_logs=50,
    ) as cluster:  # fmt: skip
        yield EngineOptions(scheduler=cluster.scheduler_address)


def spoil(folder: Path, numbers: range) -> None:
    for number in numbers:
        (folder / f"case-{number:02d}_mask.nii.gz").write_bytes(b"")


def test_ten_bad_cases_of_forty_do_not_stop_the_others(
    tmp_path: Path, running: EngineOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    table, out = write_cohort(tmp_path / "in", 40), tmp_path / "out"
    spoil(tmp_path / "in", range(3, 40, 4))
    command = ["batch", str(table), "-o", str(out), "--model", "ring-mean", "--threads", "1", "--json"]
    command += ["--scheduler", str(running.scheduler)]
    assert cli.main(command) == EXIT_PARTIAL == 79
    said = capfd.readouterr()
    answer = json.loads(said.out)
    assert [answer[name] for name in ("done", "kept", "redone", "failed")] == [30, 0, 0, 10]
    assert "[RT-16]" in said.err
    assert "[40/40]" in said.err
    failures = rows(out / "failures.tsv")
    assert [row["id"] for row in failures] == [f"case-{number:02d}" for number in range(3, 40, 4)]
    assert {(row["code"], row["exit_status"]) for row in failures} == {("IN-01", "65")}
    cohort = rows(out / "cohort.tsv")
    assert [row["id"] for row in cohort] == [f"case-{number:02d}" for number in range(40)]
    for row in cohort:
        if row["status"] == "done":
            record = read_sidecar(out / row["record"])
            assert row["filled_sha256"] == hash_file(out / row["record"].replace(".json", ".nii.gz"))
            assert float(row["volume_ml"]) == record.mask.used_volume_ml
    assert cli.main(command) == 79
    again = json.loads(capfd.readouterr().out)
    assert [again[name] for name in ("done", "kept", "redone", "failed")] == [0, 30, 0, 10]


def test_fail_fast_begins_no_more(tmp_path: Path, running: EngineOptions) -> None:
    cases = read_list(write_cohort(tmp_path / "in", 8), tmp_path / "out")
    spoil(tmp_path / "in", range(1))
    done = run_cases(cases, QUICK, running, tmp_path / "out", fail_fast=True)
    assert (done.failed, done.stopped_early) == (1, True)
    assert done.done < 7
    assert len(rows(done.cohort)) == done.done + 1


def test_neither_order_nor_subset_changes_a_result(tmp_path: Path, running: EngineOptions) -> None:
    settings = replace(QUICK, model="white-matter", samples=1)  # recorded with the case's own seed
    table = write_cohort(tmp_path / "in", 4)
    all_ = list(read_list(table, tmp_path / "all"))
    run_cases(all_, settings, running, tmp_path / "all")
    some = [case for case in read_list(table, tmp_path / "some") if case.id != "case-01"][::-1]
    run_cases(iter(some), settings, running, tmp_path / "some")
    everything, part = fills(tmp_path / "all"), fills(tmp_path / "some")
    assert part == {name: payload for name, payload in everything.items() if "case-01" not in name}
    seeds = {read_sidecar(path).settings.seed for path in (tmp_path / "all").glob("*/*.json")}
    assert len(seeds) == 4


def test_a_case_of_another_run_is_waited_for(
    tmp_path: Path, running: EngineOptions, monkeypatch: Any
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)
    cases = list(read_list(write_cohort(tmp_path / "in", 3), tmp_path / "out"))
    told: list[Event] = []
    held = case_lock(cases[0].out)
    held.__enter__()

    def on_event(event: Event) -> None:
        told.append(event)
        if event.kind == "case" and event.finished == 2:
            held.__exit__(None, None, None)

    done = run_cases(cases, QUICK, running, tmp_path / "out", on_event=on_event)
    assert (done.done, done.failed) == (3, 0)
    waiting = [event.text for event in told if event.kind == "waiting"]
    assert any("case-00: process" in text for text in waiting)
    assert [row["id"] for row in rows(done.cohort)] == ["case-00", "case-01", "case-02"]


def test_two_runs_into_one_folder_give_one_result(
    tmp_path: Path, running: EngineOptions, monkeypatch: Any
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)
    cases = list(read_list(write_cohort(tmp_path / "in", 10), tmp_path / "out"))
    summaries = []

    def run() -> None:
        summaries.append(run_cases(cases, QUICK, running, tmp_path / "out"))

    other = threading.Thread(target=run)
    other.start()
    run()
    other.join()
    assert [summary.done + summary.kept for summary in summaries] == [10, 10]
    assert sum(summary.done for summary in summaries) == 10, "no case is filled twice"
    assert sum(summary.redone + summary.failed for summary in summaries) == 0
    assert len(fills(tmp_path / "out")) == 10
    assert not list((tmp_path / "out").rglob(".*"))


def test_the_driver_keeps_few_cases_in_flight(tmp_path: Path, running: EngineOptions) -> None:
    begun, ended = [0], [0]

    def cases() -> Iterator[Case]:
        for number in range(40):
            begun[0] += 1
            assert begun[0] - ended[0] <= 3, "cases are taken as workers get free"
            missing = tmp_path / "no.nii.gz"
            yield Case(str(number), missing, missing, tmp_path / "out" / str(number) / "x.nii.gz")

    def on_event(event: Event) -> None:
        ended[0] += event.kind == "case"

    done = run_cases(cases(), QUICK, running, tmp_path / "out", on_event=on_event)
    assert done.failed == 40
    assert {row["code"] for row in rows(done.failures)} == {"IN-38"}


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("neuromend.cohort.clusters.CONNECT_SECONDS", 0.5)
    cases = read_list(write_cohort(tmp_path / "in", 1), tmp_path / "out")
    with pytest.raises(TemporaryError, match=r"CO-04.*127\.0\.0\.1:9") as caught:
        run_cases(cases, QUICK, EngineOptions(scheduler="tcp://127.0.0.1:9"), tmp_path / "out")
    assert caught.value.exit_status == 75


def test_settings_that_suit_no_case_are_refused_before_workers_start(tmp_path: Path) -> None:
    cases = read_list(write_cohort(tmp_path / "in", 1), tmp_path / "out")
    with pytest.raises(UsageError, match="UX-01"):
        run_cases(cases, replace(QUICK, steps=0), EngineOptions(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cases_of_a_worker_that_dies_are_done_elsewhere_and_a_deadly_case_fails(tmp_path: Path) -> None:
    cases = list(read_list(write_cohort(tmp_path / "in", 8), tmp_path / "out"))
    marks = tmp_path / "marks"
    marks.mkdir()

    def finish(case: Case, result: FillResult) -> None:
        """case-05 kills every worker, case-02 its first one."""
        first = not (marks / case.id).exists()
        (marks / case.id).touch()
        if case.id == "case-05" or (case.id == "case-02" and first):
            os.kill(os.getpid(), signal.SIGKILL)

    options = EngineOptions(workers=2, attempts=2)
    done = run_cases(cases, QUICK, options, tmp_path / "out", finish=finish)
    assert (done.failed, done.done + done.kept) == (1, 7)
    (failure,) = rows(done.failures)
    assert (failure["id"], failure["code"], failure["exit_status"]) == ("case-05", "CO-05", "75")
    assert "2 workers died" in failure["message"]
    assert {row["id"]: row["status"] for row in rows(done.cohort)}["case-02"] == "kept"
    assert len(fills(tmp_path / "out")) == 8


@pytest.mark.parametrize(
    ("number", "status", "code"), [(signal.SIGINT, 130, "RT-08"), (signal.SIGTERM, 143, "RT-09")]
)
def test_a_stopped_run_leaves_nothing_half_written_and_can_go_on(
    tmp_path: Path, number: int, status: int, code: str
) -> None:
    table, out = write_cohort(tmp_path / "in", 60), tmp_path / "out"
    command = [sys.executable, "-m", "neuromend", "batch", str(table), "-o", str(out)]
    command += ["--model", "ring-mean", "--threads", "1", "--workers", "1"]
    with (
        heeding_interrupts(),
        subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        ) as process,
    ):
        wait_for(lambda: len(list(out.glob("*/*.json"))) >= 3 or process.poll() is not None)
        os.killpg(process.pid, number)  # as a terminal and a batch system do: driver and workers alike
        _, said = process.communicate(timeout=120)
    assert process.returncode == status
    assert f"[{code}]" in said
    assert "run it again: neuromend batch" in said
    finished = sorted(path.parent.name for path in out.glob("*/*.json"))
    assert 3 <= len(finished) < 60
    assert [path for path in out.rglob("*") if path.name.startswith(".")] == []
    assert {path.parent.name for path in out.glob("*/*")} == set(finished), (
        "every file belongs to a finished case"
    )
    told = [row["id"] for row in rows(out / "cohort.tsv")]
    assert set(told) <= set(finished)
    assert len(told) >= len(finished) - 1


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Processes begun here take Ctrl-C, even where the tests run as a job in the background that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not reached():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
