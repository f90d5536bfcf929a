"""The cache of prepared cases: what is written is what is read, and damage is always noticed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from neuromend.corpus.cache import MANIFEST, CaseCache, CaseRow, pack_arrays, write_manifest
from neuromend.errors import InputError, MissingInputError

from .cache_cases import SHAPE, small_cache


def test_rows_come_by_split_and_id(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    assert [row.id for row in cache.rows("train")] == ["a-plain", "b-rich"]
    assert [row.id for row in cache.rows("dev")] == ["c-dev"]
    assert len(cache.rows()) == 3
    assert cache.rows("test") == []


def test_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    plain, rich = (cache.load(row) for row in cache.rows("train"))
    assert rich.healthy.shape == SHAPE
    assert rich.healthy.dtype == np.uint8
    assert plain.healthy.dtype == np.uint16
    assert np.array_equal(plain.healthy, rich.healthy.astype(np.uint16) * 200)
    assert np.allclose(plain.normalised(), rich.normalised(), atol=1e-6)
    assert rich.lesion is not None
    assert rich.lesion.sum() == 3 * 4 * 2
    assert list(rich.masks) == ["healthy"]
    assert rich.masks["healthy"].dtype == np.bool_
    assert rich.tissue is not None
    assert (plain.lesion, plain.masks, plain.tissue, plain.descriptor) == (None, {}, None, None)


def test_arrays_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    case = cache.load(cache.rows("dev")[0])
    assert isinstance(case.healthy, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        case.healthy[0, 0, 0] = 1


def test_a_worker_gets_the_cache_by_its_path(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    payload = pickle.dumps(cache)
    assert len(payload) < 8000
    again = pickle.loads(payload)
    assert again == cache
    assert np.array_equal(again.load(again.cases[0]).healthy, cache.load(cache.cases[0]).healthy)


def test_equal_data_have_an_equal_digest_and_other_data_another(tmp_path: Path) -> None:
    first, second = small_cache(tmp_path / "1"), small_cache(tmp_path / "2")
    assert first.digest == second.digest
    assert write_manifest(tmp_path / "2", second.rows("train"), {}) != first.digest


def test_arrays_start_aligned() -> None:
    payload, places = pack_arrays(
        {"a": np.ones(3, np.uint8), "b": np.ones((2, 5), ">u2"), "c": np.ones(1, bool)}
    )
    assert [place.offset for place in places] == [0, 64, 128]
    assert places[1].dtype == "<u2"
    assert np.array_equal(np.frombuffer(payload, "<u2", 10, 64), np.ones(10))


def test_a_row_survives_json(tmp_path: Path) -> None:
    row = small_cache(tmp_path).rows("train")[1]
    assert CaseRow.from_json(json.loads(json.dumps(row.as_json()))) == row


def test_a_cache_without_its_manifest_is_not_finished(tmp_path: Path) -> None:
    small_cache(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(MissingInputError) as caught:
        CaseCache.open(tmp_path)
    assert (caught.value.code, caught.value.exit_status) == ("TR-07", 66)
    assert caught.value.path == tmp_path / MANIFEST


@pytest.mark.parametrize("damage", ["shorter", "longer", "gone"])
def test_a_half_written_case_is_refused_on_opening(tmp_path: Path, damage: str) -> None:
    cache = small_cache(tmp_path)
    path = cache.path(cache.cases[1])
    payload = path.read_bytes()
    path.write_bytes(payload[:-1] if damage == "shorter" else payload + b"\0")
    if damage == "gone":
        path.unlink()
    with pytest.raises(InputError) as caught:
        CaseCache.open(tmp_path)
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("TR-07", 65, path)
    with pytest.raises(InputError):
        cache.load(cache.cases[1])


def test_a_flipped_bit_is_found_by_verifying(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    assert [row.id for row in cache.verify()] == ["a-plain", "b-rich", "c-dev"]
    path = cache.path(cache.cases[2])
    payload = bytearray(path.read_bytes())
    payload[77] ^= 4
    path.write_bytes(payload)
    with pytest.raises(InputError) as caught:
        list(CaseCache.open(tmp_path).verify())
    assert (caught.value.code, caught.value.path) == ("TR-07", path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "config": {}, "cases": [{"id": 3}]}', '{"format": 2}']
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError) as caught:
        CaseCache.open(tmp_path)
    assert (caught.value.code, caught.value.exit_status) == ("TR-07", 65)
    assert "manifest" in caught.value.what
