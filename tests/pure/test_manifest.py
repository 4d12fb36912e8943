"""The proof that every row of a plan is in exactly one part, and the words for why two plans differ."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import manifest as manifests
from jobs.attempt import Receipt
from jobs.difference import difference
from jobs.errors import InternalError
from jobs.manifest import manifest
from jobs.numerics import UNKNOWN, Numerics
from jobs.plan import InputFile, Plan, RowGroup, plan
from jobs.section.limits import Limits
from jobs.versions import UNRECORDED, Versions

IDENTITY = {"model": {"digest": "aa", "signature": "serving_default"}, "columns": {"keep": ["id"]}}


def plan_of(*rows: int, identity: dict[str, object] = IDENTITY) -> Plan:
    """Two row groups of 10 bytes a file, one shard a row group."""
    files = [InputFile(f"/in/{i}.parquet", 100, "v1", (RowGroup(n, 10), RowGroup(1, 10))) for i, n in enumerate(rows)]
    return plan(files, Limits(shard_bytes=10), identity)


def receipts_of(planned: Plan) -> list[Receipt]:
    return [
        Receipt(s.index, f"e1-a1-{s.index:012x}", 1, 1, f"part-{s.index}", 50, "ab", s.rows, s.rows)
        for s in planned.shards
    ]


def names_of(receipts: list[Receipt]) -> list[str]:
    return [receipt.part for receipt in receipts]


def test_a_complete_output_is_listed_with_its_totals_and_input_ranges() -> None:
    planned = plan_of(3, 5)
    receipts = receipts_of(planned)
    found = manifest(planned, reversed(receipts), 7, names_of(receipts))
    assert found["totals"] == {"parts": 4, "rows_in": 10, "rows_out": 10, "rows_rejected": 0, "bytes": 200}
    assert found["epoch"] == 7
    assert found["plan_id"] == planned.id
    assert [part["name"] for part in found["parts"]] == names_of(receipts)
    assert found["parts"][2]["inputs"] == [{"url": "/in/1.parquet", "row_groups": [0, 1], "rows": 5}]
    assert json.loads(json.dumps(found)) == found


def test_a_manifest_lists_each_kind_of_numerics_once_and_gives_them_back() -> None:
    planned = plan_of(3, 5)
    intel, arm = Numerics(cpu="Intel", onednn=True), Numerics(cpu="ARM", onednn=False)
    of_shards = (intel, arm, intel, UNKNOWN)  # the last one was published by an older version
    receipts = [dataclasses.replace(r, numerics=one) for r, one in zip(receipts_of(planned), of_shards, strict=True)]
    found = json.loads(json.dumps(manifest(planned, receipts, 7, names_of(receipts))))
    assert found["numerics"] == [intel.document(), arm.document(), {}]
    assert [part.get("numerics") for part in found["parts"]] == [None, 1, None, 2]
    assert [receipt.numerics for receipt in manifests.receipts_of(found)] == list(of_shards)
    del found["numerics"]
    old = found | {"parts": [{k: v for k, v in part.items() if k != "numerics"} for part in found["parts"]]}
    assert {receipt.numerics for receipt in manifests.receipts_of(old)} == {UNKNOWN}


def test_a_manifest_lists_each_kind_of_versions_once_and_gives_them_back() -> None:
    planned = plan_of(3, 5)
    new, newer = Versions(runner="0.1.0", python="3.11.9"), Versions(runner="0.2.0", python="3.12.1")
    of_shards = (new, newer, new, UNRECORDED)  # the last one was published by an older version
    receipts = [dataclasses.replace(r, versions=one) for r, one in zip(receipts_of(planned), of_shards, strict=True)]
    found = json.loads(json.dumps(manifest(planned, receipts, 7, names_of(receipts))))
    assert found["versions"] == [new.document(), newer.document(), {}]
    assert [part.get("versions") for part in found["parts"]] == [None, 1, None, 2]
    assert [receipt.versions for receipt in manifests.receipts_of(found)] == list(of_shards)
    del found["versions"]
    old = found | {"parts": [{k: v for k, v in part.items() if k != "versions"} for part in found["parts"]]}
    assert {receipt.versions for receipt in manifests.receipts_of(old)} == {UNRECORDED}


def test_a_rejected_row_is_accounted_for() -> None:
    planned = plan_of(3)
    receipts = receipts_of(planned)
    receipts[0] = dataclasses.replace(receipts[0], rows_out=2, rows_rejected=1)
    assert manifest(planned, receipts, 1, names_of(receipts))["totals"]["rows_rejected"] == 1


def test_a_row_that_is_left_out_is_accounted_for_and_a_manifest_without_one_has_no_word_of_it() -> None:
    planned = plan_of(3)
    plain = receipts_of(planned)
    receipts = [dataclasses.replace(plain[0], rows_out=1, rows_rejected=1, rows_left_out=1), *plain[1:]]
    found = json.loads(json.dumps(manifest(planned, receipts, 1, names_of(receipts))))
    assert (found["totals"]["rows_left_out"], found["parts"][0]["rows_left_out"]) == (1, 1)
    assert manifests.receipts_of(found)[0].rows_left_out == 1
    assert "rows_left_out" not in json.dumps(manifest(planned, plain, 1, names_of(plain)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows_left_out": 1}, "3 rows planned, 3 read, 3 written, 0 rejected, 1 left out"),
        ({"rows_out": 4, "rows_left_out": -1}, "4 written, 0 rejected, -1 left out"),
        ({"rows_out": 2}, "3 rows planned, 3 read, 2 written, 0 rejected"),
        ({"rows_in": 2, "rows_out": 2}, "3 rows planned, 2 read"),
        ({"rows_out": 4, "rows_rejected": -1}, "4 written, -1 rejected"),
        ({"shard": 1}, "shard 0 has 0 receipts"),
        ({"shard": 9}, "a receipt names shard 9, the plan has 2 shards"),
        ({"part": "part-1"}, "part 'part-1' is named by 2 receipts"),
    ],
)
def test_a_receipt_that_does_not_add_up_breaks_the_proof(changed: dict[str, object], said: str) -> None:
    planned = plan_of(3)
    receipts = receipts_of(planned)
    names = names_of(receipts)
    receipts[0] = dataclasses.replace(receipts[0], **changed)
    with pytest.raises(InternalError, match=said):
        manifest(planned, receipts, 1, names)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["part-0"], "'part-1' is named by 1 receipt and listed 0 times"),
        (["part-0", "part-1", "part-2"], "'part-2' is named by 0 receipts and listed 1 time"),
        (["part-0", "part-1", "part-1"], "'part-1' is named by 1 receipt and listed 2 times"),
    ],
)
def test_missing_and_extra_parts_break_the_proof(names: list[str], said: str) -> None:
    planned = plan_of(3)
    with pytest.raises(InternalError, match=said):
        manifest(planned, receipts_of(planned), 1, names)


@given(rows=st.lists(st.integers(0, 50), min_size=1, max_size=5), lost=st.data())
def test_no_receipt_can_be_left_out_or_doubled(rows: list[int], lost: st.DataObject) -> None:
    planned = plan_of(*rows)
    receipts = receipts_of(planned)
    names = names_of(receipts)
    index = lost.draw(st.integers(0, len(receipts) - 1))
    with pytest.raises(InternalError):
        manifest(planned, receipts[:index] + receipts[index + 1 :], 1, names)
    with pytest.raises(InternalError):
        manifest(planned, [*receipts, receipts[index]], 1, names)


def test_equal_plans_do_not_differ() -> None:
    assert difference(plan_of(3).document(), json.loads(json.dumps(plan_of(3).document()))) == ""


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({**IDENTITY, "model": {"digest": "bb", "signature": "serving_default"}}, "model.digest: 'aa' then, 'bb' now"),
        ({**IDENTITY, "columns": {"keep": []}}, "columns.keep: ['id'] then, [] now"),
        ({"model": IDENTITY["model"]}, "columns: {'keep': ['id']} then, None now"),
        ({**IDENTITY, "columns": {"keep": ["x" * 200]}}, "columns.keep: ['id'] then, ['" + "x" * 75 + "... now"),
    ],
)
def test_a_changed_setting_is_named_in_the_words_of_the_job(identity: dict[str, object], said: str) -> None:
    assert difference(plan_of(3).document(), plan_of(3, identity=identity).document()) == said


def test_a_changed_input_file_is_named() -> None:
    then, now = plan_of(3).document(), plan_of(3).document()
    now["files"][0]["size"] = 120
    assert difference(then, now) == "input file '/in/0.parquet' changed: size 100 then, 120 now"
    now["files"][0].update(size=100, version="v2")
    assert difference(then, now) == "input file '/in/0.parquet' changed: version v1 then, v2 now"
    assert difference(then, plan_of(3, 4).document()) == "input file '/in/1.parquet' is new"
    assert "was part of the input then" in difference(plan_of(3, 4).document(), then)


def test_other_cuts_of_the_same_input_are_named_by_the_limits_that_make_them() -> None:
    then, now = plan_of(3).document(), plan_of(3).document()
    now["shards"] = [[[0, 0, 2]]]
    assert difference(then, now) == "limits.shard_bytes or limits.shard_rows: 2 shards then, 1 now"
