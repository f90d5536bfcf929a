"""The routes of the page: what each request does, in one place. The wall in front of them is ``guard``.

Reading changes nothing; whatever changes something is POST, PUT or DELETE. Work on files is done in threads, so
that the server answers at all times.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from neuromend.data.atomic import storage_error
from neuromend.data.container import GZIP_MAGIC
from neuromend.errors import NeuromendError
from neuromend.review.desk import Desk
from neuromend.review.names import content_disposition, safe_name, shown_name
from neuromend.review.refusals import Refusal, error_body, no_such, not_understood, status_of
from neuromend.review.requests import FillWish, JobWish, SaveWish, VerdictWish, body_of, pieces
from neuromend.review.session import findings_json, new_folder
from neuromend.review.shelf import new_id

PAGE = Path(__file__).with_name("page")
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

routes = APIRouter()


def build_app(desk: Desk, *, page: Path = PAGE) -> FastAPI:
    """The application without its wall (``guard.Guard``), and without any route that describes it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk = desk
    app.state.uploading = asyncio.Lock()
    # Fixed now: a request can only name what was there at the start.
    app.state.static = {
        path.relative_to(page).as_posix(): path for path in page.rglob("*") if path.suffix in MEDIA
    }
    app.include_router(routes)
    app.add_exception_handler(NeuromendError, _told)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _bad_query)
    app.add_exception_handler(Exception, _bug)
    return app


@routes.get("/")
def index(request: Request) -> Response:
    return static(request, "index.html")


@routes.get("/page/{name:path}")
def static(request: Request, name: str) -> Response:
    path = request.app.state.static.get(name)
    if path is None:
        raise no_such("file of the page")
    return Response(path.read_bytes(), media_type=MEDIA[path.suffix])


@routes.get("/api/session")
def session(request: Request) -> dict[str, Any]:
    return _desk(request).as_json() | {"limits": _limits(request)}


@routes.get("/api/files/{id}")
def file(request: Request, id: str) -> Response:
    path, media, name = _desk(request).session.shelf.fetch(id)
    headers = {"Content-Disposition": content_disposition(name), "Accept-Ranges": "none"}
    return FileResponse(path, media_type=media, headers=headers)


@routes.get("/api/scans/{id}")
def scan(request: Request, id: str) -> dict[str, Any]:
    return _desk(request).open_scan(id).as_json()


@routes.post("/api/scans", status_code=201)
async def add_scan(request: Request, name: str) -> dict[str, Any]:
    desk, id = _desk(request), new_id()
    place = new_folder(new_folder(desk.session.folder, "scans"), id)
    try:
        path = await _receive(request, place / safe_name(name))
        opened = await run_in_threadpool(desk.session.add_scan, path, id=id, given=False)
    except BaseException:
        _remove(place)
        raise
    return opened.as_json()


@routes.post("/api/scans/{id}/masks", status_code=201)
async def add_mask(request: Request, id: str, name: str = "") -> dict[str, Any]:
    desk = _desk(request)
    opened = desk.session.scan(id)
    path = await _receive(request, desk.session.name_for_mask(opened, ".part"))
    try:
        path = path.rename(path.with_suffix(_mask_suffix(path)))
        shown = shown_name(name, path.name)
        mask, findings = await run_in_threadpool(desk.session.add_mask, opened, path, shown)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return mask.as_json() | {"findings": findings_json(findings)}


@routes.post("/api/estimate")
async def estimate(request: Request) -> dict[str, Any]:
    wish = await body_of(request, FillWish)
    return await run_in_threadpool(_desk(request).estimate, wish)


@routes.post("/api/jobs", status_code=202)
async def add_job(request: Request) -> dict[str, Any]:
    wish = await body_of(request, JobWish)
    return await run_in_threadpool(_desk(request).submit, wish)


@routes.get("/api/jobs/{id}")
def job(request: Request, id: str) -> dict[str, Any]:
    return _desk(request).jobs.get(id)


@routes.delete("/api/jobs/{id}")
def cancel_job(request: Request, id: str) -> dict[str, Any]:
    return _desk(request).jobs.cancel(id)


@routes.post("/api/results/{id}/save")
async def save_result(request: Request, id: str) -> dict[str, Any]:
    wish = await body_of(request, SaveWish)
    return {"files": await run_in_threadpool(_desk(request).save, id, overwrite=wish.overwrite)}


@routes.delete("/api/results/{id}", status_code=204)
def remove_result(request: Request, id: str) -> None:
    _desk(request).session.remove_result(id)


@routes.put("/api/cases/{id}/verdict")
async def judge(request: Request, id: str) -> dict[str, Any]:
    wish = await body_of(request, VerdictWish)
    return await run_in_threadpool(_desk(request).cohort_or_refuse().judge, id, wish.verdict, wish.note)


@routes.get("/api/verdicts.tsv")
def verdicts(request: Request) -> Response:
    text = _desk(request).cohort_or_refuse().table()
    headers = {"Content-Disposition": content_disposition("verdicts.tsv")}
    body = text.encode("utf-8", "replace")
    return Response(body, media_type="text/tab-separated-values", headers=headers)


async def _receive(request: Request, path: Path) -> Path:
    """Write the body of an upload to a file of the session, one upload at a time."""
    uploading: asyncio.Lock = request.app.state.uploading
    if uploading.locked():
        raise Refusal(
            429,
            "WE-07",
            "another file is arriving",
            why="files are taken one at a time",
            fix="wait until it is there, then try again",
        )
    most = request.app.state.desk.max_upload_bytes
    async with uploading:
        try:
            with path.open("xb") as target:
                async for piece in pieces(request, most):
                    target.write(piece)
        except BaseException as problem:
            path.unlink(missing_ok=True)
            if isinstance(problem, OSError):
                raise storage_error(path, problem) from problem
            raise
    return path


def _mask_suffix(path: Path) -> str:
    with path.open("rb") as file:
        return ".nii.gz" if file.read(2) == GZIP_MAGIC else ".nii"


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _limits(request: Request) -> dict[str, int]:
    desk = _desk(request)
    return {"max_bytes": desk.max_upload_bytes, "max_queue": desk.jobs.max_queue}


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, NeuromendError)
    desk = _desk(request)
    desk.session.say(f"refused [{error.code}]")
    return JSONResponse(error_body(error, redact=desk.redact), status_of(error))


def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return JSONResponse(error_body(not_understood("there is nothing at this address"), redact=True), status)


def _bad_query(request: Request, error: Exception) -> Response:
    return _told(request, not_understood("a part of the address is missing"))


def _bug(request: Request, error: Exception) -> Response:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = (
        "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
    )
    kind = f"{type(error).__name__}{where}"
    _desk(request).session.say(f"bug: {kind}")
    bug = NeuromendError(
        "UX-70",
        f"the server met {kind}",
        why="nobody foresaw this: it is a bug in neuromend, please report it",
        fix="try again; start `neuromend review` again if it stays",
    )
    return JSONResponse(error_body(bug, redact=True), 500)
