"""The how-to page says what is there: every key of the page, every route of the server, links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from neuromend.review.api import PAGE, routes

PAGE_OF_DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "review.md"
TEXT = PAGE_OF_DOCS.read_text(encoding="utf-8")


def test_every_key_of_the_page_is_in_the_table() -> None:
    keys = re.findall(r'^    \["\w+", "([^"]+)", "([^"]+)"', (PAGE / "keys.js").read_text(), re.MULTILINE)
    assert len(keys) > 40
    listed = re.findall(
        r"^\|[^|]*\| `(.+?)` \| (.+) \|$", TEXT.split("## Keys")[1].split("## What")[0], re.MULTILINE
    )
    assert listed == keys


def test_every_route_of_the_server_is_in_the_table() -> None:
    asked = TEXT.split("## What the page asks")[1].split("## What was tried")[0]
    listed = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[^`]*)`", asked))
    there = {(method, route.path.replace(":path", "")) for route in routes.routes for method in route.methods}  # type: ignore[attr-defined]
    assert listed == there


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE_OF_DOCS.parent / target).exists()
