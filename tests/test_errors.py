from __future__ import annotations

import pickle

import pytest

from neuromend import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.NeuromendError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_between_processes(kind: type[errors.NeuromendError]) -> None:
    error = kind(
        "IN-07", "the affine is singular", why="no geometry", fix="convert again", path="a/T1.nii.gz"
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.code, copy.path, str(copy)) == ("IN-07", error.path, str(error))
