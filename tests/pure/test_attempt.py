"""Attempts, receipts and failures: what crosses between driver, worker and storage."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest

from jobs.attempt import Advice, Failure, InputSlice, Measured, Receipt, Success, attempt
from jobs.errors import DataError
from jobs.plan import InputFile, RowGroup, plan
from jobs.section.limits import Limits


def test_an_attempt_names_exactly_the_row_groups_of_its_shard() -> None:
    a = InputFile("in/a", 100, "v1", tuple(RowGroup(rows, 10) for rows in (1, 2, 3)))
    b = InputFile("in/b", 200, "v2", (RowGroup(4, 10),))
    cut = plan([a, b], Limits(shard_bytes=20), {})
    second = attempt(cut, cut.shards[1], 2, 7, "0123456789ab")
    assert (second.id, second.shard, second.number, second.epoch) == ("e7-a2-0123456789ab", 1, 2, 7)
    assert second.inputs == (InputSlice(0, "in/a", 100, "v1", 2, (3,)), InputSlice(1, "in/b", 200, "v2", 0, (4,)))
    assert second.rows == 7
    assert pickle.loads(pickle.dumps(second)) == second  # noqa: S301


RECEIPT = Receipt(3, "e1-a1-x", 1, 1, "part-3", 99, "ab", 10, 9, 1, "w1", adopted=True)
KEYS = (  # of receipts/*.json; a reader of an older version that meets another key reads the commit header instead
    *("shard", "attempt", "number", "epoch", "part", "size", "sha256", "rows_in", "rows_out", "rows_rejected"),
    *("worker", "seconds", "figures", "adopted", "staged", "reject_file", "codes", "bad_files", "nan_rows"),
    *("safe_rows", "recycle", "numerics", "nonfinite_rows", "unseen_rows", "changed_rows", "versions"),
)


def test_a_receipt_round_trips_through_json() -> None:
    success = Success(RECEIPT, Measured({"read": 0.5}, {"cpus": 2}), Advice({"x[]": 50}, "memory ran out"))
    document = json.loads(json.dumps(success.document()))
    assert sorted(document) == sorted(KEYS)
    assert (document["seconds"], document["figures"]) == ({"read": 0.5}, {"cpus": 2})
    assert (document["safe_rows"], document["recycle"]) == ({"x[]": 50}, "memory ran out")
    assert Receipt.from_document(document) == RECEIPT


def test_rows_that_are_left_out_are_a_key_only_where_there_are_any() -> None:
    some = replace(RECEIPT, rows_out=7, rows_left_out=2)
    assert Success(some).document()["rows_left_out"] == 2
    assert Receipt.from_document(json.loads(json.dumps(Success(some).document()))) == some
    assert (some.accounted, replace(some, rows_left_out=1).accounted) == (True, False)


@pytest.mark.parametrize(
    "missing", ["seconds", "figures", "safe_rows", "recycle", "nan_rows", "nonfinite_rows", "numerics", "versions"]
)
def test_a_receipt_is_read_without_what_its_worker_measured_and_advised(missing: str) -> None:
    document = Success(RECEIPT).document()
    del document[missing]
    assert Receipt.from_document(document) == RECEIPT


def test_a_receipt_with_a_key_that_is_not_known_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Receipt.from_document(Success(RECEIPT).document() | {"colour": "blue"})


def test_a_failure_keeps_its_error_between_processes_and_tells_its_kind_in_json() -> None:
    failure = Failure(3, "e1-a1-x", 1, "w1", DataError("row 4 is bad", code="NULL"))
    again = pickle.loads(pickle.dumps(failure))  # noqa: S301
    assert (again.error.message, again.error.facts) == ("row 4 is bad", {"code": "NULL"})
    told = json.loads(json.dumps(failure.document()))
    assert (told["shard"], told["worker"], told["error"], told["message"]) == (
        3,
        "w1",
        "DataError",
        "NULL: row 4 is bad",
    )
    assert told["code"] == "NULL"
    assert "code" not in Failure(3, "e1-a1-x", 1, "w1", DataError("row 4 is bad")).document()


def test_a_receipt_of_a_version_that_did_not_count_has_none() -> None:
    document = Success(RECEIPT).document()
    del document["changed_rows"]
    assert Receipt.from_document(document).changed_rows == 0
