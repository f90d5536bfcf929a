"""One fill at a time, in a process that may be killed (WE-09, WE-14)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuromend.errors import NeuromendError, StorageError
from neuromend.models import resolve_model
from neuromend.review import worker as worker_module
from neuromend.review.estimate import DEFAULT_STEPS, EXPECTED_STEPS, Estimator, work_of
from neuromend.review.jobs import KEPT_JOBS, Job, JobQueue
from neuromend.review.refusals import Refusal
from neuromend.review.worker import Filled, Order, Worker, WorkerDied, _done

from .review_cases import HeldWorker, client_of, make_desk, save_mask, save_scan


def order(folder: Path, name: str) -> Order:
    return Order(folder / "scan.nii", folder / "mask.nii", folder / name, "ring-mean", 0, None, 0, ())


def job(folder: Path, name: str) -> Job:
    return Job(name, f"key of {name}", order(folder, name), {"seed": 0}, 10.0)


def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


class Held:
    """A queue whose workers wait."""

    def __init__(self, max_queue: int) -> None:
        self.workers: list[HeldWorker] = []
        self.log: list[str] = []
        self.queue = JobQueue(
            lambda job, filled, seconds: {"of": job.id}, self.log.append, max_queue=max_queue,
            make_worker=self.make,  # type: ignore[arg-type]
        )  # fmt: skip

    def make(self) -> HeldWorker:
        self.workers.append(HeldWorker())
        return self.workers[-1]

    def state(self, name: str) -> str:
        return str(self.queue.get(name)["state"])


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held(max_queue=2)
    yield held
    held.queue.close()


def test_one_runs_two_wait_and_the_next_is_refused_with_its_position(held: Held, tmp_path: Path) -> None:
    """WE-09."""
    held.queue.submit(job(tmp_path, "a"))
    until(lambda: held.state("a") == "running")
    assert held.queue.submit(job(tmp_path, "b"))["position"] == 1
    assert held.queue.submit(job(tmp_path, "c"))["position"] == 2
    with pytest.raises(Refusal) as refused:
        held.queue.submit(job(tmp_path, "d"))
    assert (refused.value.status, refused.value.code, refused.value.facts) == (429, "WE-09", {"position": 3})
    running, waiting = held.queue.current()
    assert running is not None
    assert (running["id"], [told["id"] for told in waiting]) == ("a", ["b", "c"])
    assert held.queue.busy
    for name in "abc":
        held.workers[0].began.wait(20)
        held.workers[0].began.clear()
        held.workers[0].go.set()
        until(lambda name=name: held.state(name) == "done")  # type: ignore[misc]
    assert [made.out.name for made in held.workers[0].orders] == ["a", "b", "c"]
    assert held.queue.get("c")["result"] == {"of": "c"}
    assert not held.queue.busy


def test_fifty_clicks_are_one_job(tmp_path: Path) -> None:
    """WE-09: the page sends the same key again, from many threads at once."""
    desk = make_desk(tmp_path, make_worker=HeldWorker)
    web = client_of(desk)
    scan = desk.session.add_scan(save_scan(tmp_path))
    mask, _ = desk.session.add_mask(scan, save_mask(tmp_path), "m")
    body = {"scan": scan.id, "mask": mask.id, "model": "ring-mean", "key": "the same key"}
    replies: list[Any] = []
    threads = [
        threading.Thread(target=lambda: replies.append(web.post("/api/jobs", json=body))) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    others = [web.post("/api/jobs", json=body | {"key": f"another {n}"}) for n in range(6)]
    assert [reply.status_code for reply in others].count(429) in (1, 2)
    assert others[-1].json()["position"] == 5
    desk.close()


def test_a_job_outlives_the_tab_that_asked_for_it(tmp_path: Path) -> None:
    """WE-14: another connection finds it, in the session and by its id."""
    workers = [HeldWorker()]
    desk = make_desk(tmp_path, make_worker=lambda: workers[0])
    scan = desk.session.add_scan(save_scan(tmp_path))
    mask, _ = desk.session.add_mask(scan, save_mask(tmp_path), "m")
    body = {"scan": scan.id, "mask": mask.id, "model": "ring-mean", "key": "a tab of mine"}
    with client_of(desk) as web:
        id = web.post("/api/jobs", json=body).json()["id"]
    workers[0].began.wait(20)
    with client_of(desk) as other:
        told = other.get("/api/session").json()["job"]
        assert (told["id"], told["state"], told["stage"], told["done"], told["of"]) == (
            id,
            "running",
            "filling",
            1,
            4,
        )
        assert told["eta_s"] >= 0
        workers[0].go.set()
        until(lambda: other.get(f"/api/jobs/{id}").json()["state"] == "done")
    desk.close()


def test_the_end_of_the_server_cancels_what_runs_and_what_waits(tmp_path: Path) -> None:
    held = Held(max_queue=2)
    for name in "ab":
        held.queue.submit(job(tmp_path, name))
    until(lambda: bool(held.workers) and held.workers[0].began.is_set())
    held.queue.close()
    assert (held.state("a"), held.state("b")) == ("cancelled", "cancelled")
    assert not (tmp_path / "a").exists()
    assert not [line for line in held.log if "failed" in line]


def test_a_job_that_waits_is_taken_back(held: Held, tmp_path: Path) -> None:
    held.queue.submit(job(tmp_path, "a"))
    until(lambda: held.state("a") == "running")
    held.queue.submit(job(tmp_path, "b"))
    assert held.queue.cancel("b")["state"] == "cancelled"
    assert held.queue.current()[1] == []
    held.workers[0].go.set()
    until(lambda: held.state("a") == "done")
    assert held.queue.cancel("a")["state"] == "done"  # too late: it stays as it is
    assert held.state("b") == "cancelled"


def test_a_job_that_runs_is_cancelled_by_killing_its_process(held: Held, tmp_path: Path) -> None:
    held.queue.submit(job(tmp_path, "a"))
    held.queue.submit(job(tmp_path, "b"))
    until(lambda: bool(held.workers) and held.workers[0].began.is_set())
    (tmp_path / "a" / "half").write_text("a file of the fill")
    assert held.queue.cancel("a")["state"] == "cancelled"
    until(lambda: len(held.workers) == 2 and held.state("b") == "running")
    assert not (tmp_path / "a").exists()
    assert held.state("a") == "cancelled"
    held.workers[1].began.wait(20)
    held.workers[1].go.set()
    until(lambda: held.state("b") == "done")


@pytest.mark.parametrize(("problem", "code"), [(OSError(28, "no space"), "RT-03"), (KeyError("x"), "UX-70")])
def test_a_fault_behind_the_fill_is_a_failed_job_and_the_queue_goes_on(
    tmp_path: Path, problem: Exception, code: str
) -> None:
    """A disk that is full, or a bug of ours."""
    workers = [HeldWorker()]

    def finish(job: Job, filled: Filled, seconds: float) -> dict[str, Any]:
        if job.id == "a":
            raise problem
        return {}

    queue = JobQueue(finish, lambda line: None, make_worker=lambda: workers[0])  # type: ignore[arg-type, return-value]
    for name in "ab":
        queue.submit(job(tmp_path, name))
        workers[0].began.wait(20)
        workers[0].began.clear()
        workers[0].go.set()
        until(lambda name=name: queue.get(name)["state"] not in ("queued", "running"))  # type: ignore[misc]
    assert (queue.get("a")["state"], queue.get("a")["error"]["code"]) == ("failed", code)
    assert queue.get("b")["state"] == "done"
    queue.close()


def test_old_jobs_are_forgotten(held: Held, tmp_path: Path) -> None:
    held.queue.submit(job(tmp_path, "running"))
    until(lambda: held.state("running") == "running")
    for number in range(KEPT_JOBS + 5):
        held.queue.submit(job(tmp_path, str(number)))
        held.queue.cancel(str(number))
    with pytest.raises(Refusal):
        held.queue.get("0")
    assert held.state("running") == "running"


def test_a_killed_process_is_a_failed_job_and_the_next_one_gets_a_new_process(tmp_path: Path) -> None:
    """WE-14 with a real process: what the system's memory killer does."""
    log: list[str] = []
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker())
        return made[-1]

    queue = JobQueue(lambda *facts: {}, log.append, make_worker=make)
    queue.submit(job(tmp_path, "a"))
    until(lambda: queue.get("a")["state"] == "running")
    pid = made[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: queue.get("a")["state"] == "failed")
    error = queue.get("a")["error"]
    assert error["code"] == "RT-12"
    assert "signal 9" in error["what"]
    until(lambda: len(made) == 2 and made[1].alive)
    queue.close()
    assert not made[1].alive


def test_a_process_ends_when_its_server_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """WE-14: nothing goes on in the background after a server was killed; its pipe ends, and so does the process."""
    ours, theirs = multiprocessing.Pipe()
    monkeypatch.setattr(worker_module, "signal", SimpleNamespace(signal=lambda *a: None, SIGINT=2, SIG_IGN=1))
    ours.close()
    worker_module.serve(theirs)
    theirs.close()


def test_a_dead_process_is_told_apart_from_a_fault() -> None:
    worker = Worker()
    worker.kill()
    with pytest.raises(WorkerDied) as death:
        worker.ask(order(Path(), "x"), lambda *step: None)
    assert death.value.args == (-signal.SIGKILL,)


class Pipe:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (StorageError("RT-03", "the disk is full", why="w", fix="f"), "RT-03"),
        (MemoryError(), "RT-12"),
        (ZeroDivisionError("x"), "UX-70"),
    ],
)
def test_a_fill_that_raises_is_an_answer(problem: Exception, code: str) -> None:
    def fill(*arguments: Any, on_step: Any, **options: Any) -> Any:
        on_step("reading", 0, 1)
        raise problem

    pipe = Pipe()
    kind, error = _done(fill, order(Path(), "x"), pipe)  # type: ignore[arg-type]
    assert (kind, error.code) == ("failed", code)
    assert isinstance(error, NeuromendError)
    assert pipe.sent == [("step", ("reading", 0, 1))]


def test_an_answer_holds_what_was_really_used() -> None:
    class Result:
        record = {"settings": {"steps": 4, "seed": 3}}  # noqa: RUF012
        outputs = {"filled": Path("f")}  # noqa: RUF012
        findings = ()

    assert _done(lambda *a, **o: Result(), order(Path(), "x"), Pipe()) == (  # type: ignore[arg-type]
        "done", Filled({"filled": Path("f")}, (), 4, 3),
    )  # fmt: skip


def test_estimates_start_from_a_table_and_then_from_what_was_measured() -> None:
    entry = resolve_model("fastwavelet3d-default")
    size: Any = ((150, 200, 150), (1.0, 1.0, 1.0))
    one, four = (work_of(entry, *size, samples=samples, steps=None) for samples in (0, 1))
    assert (one.megavoxel_passes, four.megavoxel_passes) == (4.5, 18.0)
    assert work_of(entry, (900, 900, 900), size[1], samples=0, steps=None).megavoxel_passes == 9.6  # the head
    estimator = Estimator()
    assert estimator.guess(one)["seconds"] == pytest.approx(3 + 4.5 * 0.3, abs=0.1)
    assert "other models" in estimator.guess(one)["basis"]
    estimator.learn(one, 11.0)
    assert estimator.guess(four) == {
        "seconds": 35.0, "basis": "measured: the last fill with this model in this session",
    }  # fmt: skip
    patch = work_of(resolve_model("patch"), *size, samples=0, steps=None)
    estimator.learn(patch, 60.0)
    assert estimator.guess(patch)["seconds"] == 60.0
    assert estimator.guess(one)["seconds"] == 11.0


def test_the_table_of_steps_is_that_of_the_methods() -> None:
    from neuromend.methods import METHODS

    expected = {name: method.expected_steps for name, method in METHODS.items() if method.expected_steps}
    assert expected == EXPECTED_STEPS
    assert {name: method.default_steps for name, method in METHODS.items()} == DEFAULT_STEPS
