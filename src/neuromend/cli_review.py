"""``neuromend review``: look, draw, fill and judge in the browser."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from neuromend import cli_options as opt
from neuromend.errors import UsageError
from neuromend.findings import Finding
from neuromend.terminal import Talk, print_stdout

_INPUT, _OUTPUT, _PAGE = "Input", "Output", "Page"

Scan = Annotated[
    Path | None,
    typer.Argument(
        metavar="SCAN",
        parser=opt._path,
        show_default=False,
        help="The scan to open: .nii, .nii.gz, .mgz ... (Default: none; drop one on the page.)",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Argument(
        metavar="MASK",
        parser=opt._path,
        show_default=False,
        help="Its lesion mask. (Default: none; draw one on the page.)",
    ),
]
CohortFolder = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--cohort",
        "DIR",
        "Review the results of `neuromend batch` or `neuromend bids`: their output folder. Verdicts are stored in "
        "DIR/review.",
        default="none",
    ),
]
Out = Annotated[
    Path,
    opt._path_option(
        _OUTPUT, "--out -o", "DIR", "Where results are saved, with the names that `neuromend fill` gives."
    ),
]
Port = Annotated[
    int,
    opt._option(_PAGE, "--port", "N", "The port of the page; 0 takes a free one.", min=0, max=65535),
]
Host = Annotated[
    str,
    opt._option(
        _PAGE,
        "--host",
        "ADDRESS",
        "The address to listen on. Any other than the default lets other machines in, without encryption.",
    ),
]
NoBrowser = Annotated[bool, opt._flag(_PAGE, "Only print the address, do not open it.", "--no-browser")]
IdleShutdown = Annotated[
    float,
    opt._option(
        _PAGE,
        "--idle-shutdown",
        "MIN",
        "End after so many minutes in which no page is open and no fill runs; 0 means never.",
        min=0,
    ),
]
RedactPaths = Annotated[
    bool, opt._flag(_PAGE, "Show no folders on the page, not even in error messages.", "--redact-paths")
]


def review(
    context: typer.Context,
    scan: Scan = None,
    mask: Mask = None,
    cohort: CohortFolder = None,
    out: Out = Path("neuromend-review"),
    model: opt.Model = opt.DEFAULT_MODEL,
    port: Port = 0,
    host: Host = "127.0.0.1",
    no_browser: NoBrowser = False,
    idle_shutdown: IdleShutdown = 120.0,
    redact_paths: RedactPaths = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    debug: opt.Debug = False,
) -> None:
    """Open a page in the browser: look at a scan, draw or correct the mask, fill it, compare, save, judge.

    Only this machine can reach it. Ctrl-C ends it; what was not saved is gone then.
    """
    if scan is not None and cohort is not None:
        raise UsageError(
            "WE-20",
            "a scan and --cohort were both given, expected one of them",
            why="the page shows a scan of yours or the cases of a cohort",
            fix="neuromend review --cohort FOLDER, or neuromend review SCAN MASK",
        )
    _require_extra()
    with Talk(context.obj, quiet=quiet, color=not no_color) as talk:
        from neuromend.interrupts import Stopped
        from neuromend.review.server import Opening, Place, serve_page

        def warn(finding: Finding) -> None:
            talk.show_findings([finding])

        try:
            serve_page(
                Opening(scan, mask, cohort, out, model, redact_paths),
                Place(host, port, idle_shutdown, browser=not no_browser),
                command=["neuromend", *context.obj],
                tell=print_stdout, say=talk.say, warn=warn,
            )  # fmt: skip
        except Stopped as stop:
            if stop.number != signal.SIGINT:
                raise
        talk.say("the page is closed")


def _require_extra() -> None:
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        raise UsageError(
            "WE-21",
            f"`neuromend review` needs {error.name}, which is not installed",
            why="the server of the page is an extra",
            fix="pip install 'neuromend[review]'",
        ) from error
    del fastapi, uvicorn
