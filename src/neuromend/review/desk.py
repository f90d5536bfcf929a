"""The one object behind the routes: the open session, the queue of fills, the models, the cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from neuromend.errors import OutputError
from neuromend.findings import Finding
from neuromend.models import DEFAULT_MODEL, ModelEntry, available_models, resolve_model
from neuromend.provenance import version_string
from neuromend.review.cohort import Cohort
from neuromend.review.estimate import EXPECTED_STEPS, Estimator, work_of
from neuromend.review.jobs import MAX_QUEUE, Job, JobQueue
from neuromend.review.refusals import Refusal, without_folders
from neuromend.review.requests import MAX_UPLOAD_BYTES, FillWish, JobWish
from neuromend.review.saving import save_files
from neuromend.review.session import OpenResult, OpenScan, Session, new_folder
from neuromend.review.shelf import new_id
from neuromend.review.worker import Filled, Order, Worker


class Desk:
    """What a person works at.

    Args:
        folder: of the session, for files that are not saved yet.
        out: where results are saved; made with the first of them.
        say: one line for the log, without names and paths.
        command: the command line, for the record of every fill.
        model: chosen when the page opens: a name, or a model folder that is added to the list.
        redact: name no folders, not even in the sentences of errors.
        max_queue, max_upload_bytes: limits, told to the page.
        make_worker: starts the process that fills.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        *,
        say: Callable[[str], None] = lambda line: None,
        command: Sequence[str] = ("neuromend", "review"),
        model: str = DEFAULT_MODEL,
        redact: bool = False,
        max_queue: int = MAX_QUEUE,
        max_upload_bytes: int = MAX_UPLOAD_BYTES,
        make_worker: Callable[[], Worker] = Worker,
    ) -> None:
        self.session = Session(folder, say)
        self.out = out
        self.redact = redact
        self.max_upload_bytes = max_upload_bytes
        self.cohort: Cohort | None = None
        self._chosen = resolve_model(model)
        self._command = tuple(command)
        self._estimator = Estimator()
        self.jobs = JobQueue(
            self._finished, say, redact=redact, max_queue=max_queue, make_worker=make_worker
        )  # fmt: skip

    def close(self) -> None:
        """End the process that fills; the session's folder belongs to whoever made it."""
        self.jobs.close()

    def as_json(self) -> dict[str, Any]:
        """All that the page needs to show itself; answered at once, whatever is going on."""
        running, waiting = self.jobs.current()
        return {
            "version": self._version,
            "scans": [scan.as_json() for scan in list(self.session.scans.values())],
            "models": self._models,
            "model": self._chosen.name,
            "job": running,
            "queue": waiting,
            "out_dir": self.out.name,
            "cohort": None if self.cohort is None else self.cohort.as_json(),
        }

    def open_scan(self, id: str) -> OpenScan:
        """A scan by its id; one of a case is opened now."""
        return self.session.scan(id) if self.cohort is None else self.cohort.open_scan(id)

    def cohort_or_refuse(self) -> Cohort:
        """The cohort (Refusal WE-06 where there is none)."""
        if self.cohort is not None:
            return self.cohort
        raise Refusal(
            404,
            "WE-06",
            "no cohort is open",
            why="verdicts are stored beside the results of a cohort",
            fix="start the page with --cohort FOLDER",
        )

    def estimate(self, wish: FillWish) -> dict[str, Any]:
        """How long a fill will take: ``{"seconds", "basis"}``."""
        scan = self.session.scan(wish.scan)
        if wish.mask is not None:
            self.session.mask(wish.scan, wish.mask)
        entry = self._entry(wish.model)
        work = work_of(entry, scan.shape, scan.spacing_mm, samples=wish.samples, steps=wish.steps)
        return self._estimator.guess(work)

    def submit(self, wish: JobWish) -> dict[str, Any]:
        """Ask for a fill; the same key again gives the same job."""
        scan, mask = self.session.scan(wish.scan), self.session.mask(wish.scan, wish.mask)
        entry = self._entry(wish.model)
        id = new_id()
        facts = wish.model_dump(exclude={"key"})
        order = Order(
            scan.path, mask.path, new_folder(self.session.folder, "results") / id,
            str(entry.folder) if entry.folder is not None else entry.name,
            wish.samples, wish.steps, wish.seed, self._command,
        )  # fmt: skip
        job = Job(id, wish.key, order, facts, self.estimate(wish)["seconds"])
        return self.jobs.submit(job)

    def save(self, id: str, *, overwrite: bool) -> list[str]:
        """Copy the files of a result to the output folder, as ``neuromend fill`` names them.

        Raises:
            NeuromendError: RT-04 (a file is there), and what else keeps a file from being written.
        """
        result = self.session.result(id)
        if result.folder is None:
            return result.saved or []
        scan = self.session.scan(result.scan)
        inputs = [mask.path for mask in scan.masks.values()]
        try:
            result.saved = save_files(
                result.outputs,
                self.out,
                scan.path,
                samples=result.samples,
                others=inputs,
                overwrite=overwrite,
            )
        except OutputError as error:
            if error.code != "RT-04" or overwrite:
                raise
            fix = "save it again and agree to replace what is there, or move the older files away"
            raise OutputError("RT-04", error.what, why=error.why, fix=fix, path=error.path) from error
        self.session.say(f"result saved: {len(result.saved)} files")
        return result.saved

    def _finished(self, job: Job, filled: Filled, seconds: float) -> dict[str, Any]:
        scan, entry = self.session.scan(job.facts["scan"]), self._entry(job.facts["model"])
        work = work_of(
            entry, scan.shape, scan.spacing_mm, samples=job.order.samples, steps=job.order.steps
        )  # fmt: skip
        self._estimator.learn(work, seconds)
        result = OpenResult(
            new_id(), scan.id, job.facts["mask"], entry.name, job.order.samples, filled.steps, filled.seed,
            round(seconds, 1), filled.outputs, self._told(filled.findings), job.order.out,
        )  # fmt: skip
        return self.session.add_result(result).as_json()

    def _told(self, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        if not self.redact:
            return tuple(findings)
        return tuple(replace(finding, message=without_folders(finding.message)) for finding in findings)

    def _entry(self, name: str) -> ModelEntry:
        return self._chosen if name == self._chosen.name else resolve_model(name)

    @cached_property
    def _version(self) -> str:
        return version_string()

    @cached_property
    def _models(self) -> list[dict[str, Any]]:
        entries = [entry for entry in available_models() if entry.problem is None]
        if self._chosen.name not in {entry.name for entry in entries}:
            entries.append(self._chosen)
        return [
            {
                "name": entry.name,
                "kind": "classical" if entry.manifest is None else entry.manifest.method,
                "description": entry.description,
                "expected": entry.manifest is None or entry.manifest.method in EXPECTED_STEPS,
            }
            for entry in entries
        ]
