"""What the tests of cohorts share."""

from __future__ import annotations

import pytest


@pytest.fixture
def plain_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills in this process write a token instead of their picture and report, which take most of the time."""
    monkeypatch.setattr("neuromend.saving.write_picture", lambda case, file: file.write(b"picture"))
    monkeypatch.setattr("neuromend.saving.render_page", lambda case: "report")
