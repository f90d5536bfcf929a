"""``neuromend models list|verify|show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuromend import cli_options as opt
from neuromend.terminal import describe, error_json, finding_json, print_json, print_stdout

if TYPE_CHECKING:
    from neuromend.models import ModelEntry

app = typer.Typer(help="The models that are there: list, verify, show.")


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """The models that are there: list (default), verify, show."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models(as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """Name, licence and description of every model found."""
    from neuromend.models import available_models

    entries = available_models()
    if as_json:
        print_json({"models": [_entry_json(entry) for entry in entries]})
        return
    width = max(len(entry.name) for entry in entries)
    middle = max(len(entry.licence) for entry in entries)
    for entry in entries:
        fault = f" (cannot be used: [{entry.problem.code}])" if entry.problem else ""
        print_stdout(f"{entry.name:<{width}}  {entry.licence:<{middle}}  {entry.description}{fault}")


@app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", show_default=False, help="Names or folders. (Default: all.)"),
    ] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Check manifest, size, SHA-256, layout and every weight; exit status 78 at the first fault."""
    from neuromend.models import available_models, resolve_model, verify_model

    entries = [resolve_model(name) for name in names] if names else available_models()
    findings = [finding for entry in entries for finding in verify_model(entry)]
    if as_json:
        print_json({"findings": [finding_json(finding) for finding in findings]})
        return
    for finding in findings:
        print_stdout(describe(finding))


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name or a folder.")] = opt.DEFAULT_MODEL,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Print the card of a model: what it was trained on, how well it does, its limits and its licence."""
    from neuromend.manifest import CARD_NAME
    from neuromend.models import resolve_model

    entry = resolve_model(name)
    if as_json:
        manifest = None if entry.manifest is None else entry.manifest.model_dump(mode="json")
        print_json({**_entry_json(entry), "manifest": manifest})
        return
    print_stdout(f"{entry.name}: {entry.description}\nlicence: {entry.licence}")
    if entry.folder is not None:
        print_stdout(f"folder: {entry.folder}")
        card = entry.folder / CARD_NAME
        if card.is_file():
            print_stdout("\n" + card.read_text(encoding="utf-8").rstrip())


def _entry_json(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "description": entry.description,
        "licence": entry.licence,
        "folder": None if entry.folder is None else str(entry.folder),
        "problem": None if entry.problem is None else error_json(entry.problem)["error"],
    }
