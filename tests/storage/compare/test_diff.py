"""Two columns of an output compared: in all formats and stores, as far as the job is, back to rows of the input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from three_shards import plan_of

import runner
from connectors.formats import spool
from connectors.output.directory import OutputDirectory
from connectors.output.part import Losses
from connectors.output.reject import PLACE
from jobs.attempt import Success, attempt
from jobs.errors import JobError, OutputError
from jobs.plan import InputFile, Plan, RowGroup, plan
from jobs.section.limits import Limits
from jobs.section.output import Output
from runner.compare.diff import diff

PLAN = plan_of({"model": {"digest": "aa"}, "columns": {"keep": ["id", {"who": "name"}]}})
LEFT = np.arange(15, dtype=np.float32)
RIGHT = LEFT.copy()
RIGHT[[3, 8, 14]] += [0.25, -4, 1]  # one in each shard
REJECTED = 6  # the row that is in no part: 2 of row group 1


def table(rows: list[int]) -> pa.RecordBatch:
    """Of these rows of the input, what two models might say."""
    left, right = LEFT[rows], RIGHT[rows]
    apart = left != right
    probs = np.stack([left, left, left], axis=1)
    other = probs.copy()
    other[:, 1] = right
    texts = [f"class {row % 2}" for row in rows]
    return pa.record_batch(
        {
            "id": pa.array(rows, pa.int64()),
            "who": pa.array([f"n{row}" for row in rows]),
            "champion.score": left,
            "challenger.score": right,
            "champion.probs": pa.FixedShapeTensorArray.from_numpy_ndarray(probs),
            "challenger.probs": pa.FixedShapeTensorArray.from_numpy_ndarray(other),
            "champion.digit": pa.array(rows, pa.int64()),
            "challenger.digit": pa.array(np.array(rows) + apart.astype(np.int64)),
            "champion.label": pa.array(texts),
            "challenger.label": pa.array(np.where(apart, "class 9", texts).tolist()),
        }
    )


def write(output: Output, shards: int = 3, planned: Plan = PLAN, without: int | None = None) -> None:
    """The first shards of it, all rows numbered through; without: a row that is rejected."""
    directory = OutputDirectory(output, planned.id, len(planned.shards))
    claim, receipts, first = directory.claim(planned), {}, 0
    for shard in range(shards):
        rows = [row for row in range(first, first + planned.shards[shard].rows) if row != without]
        first += planned.shards[shard].rows
        losses = _losses(without - 4) if without is not None and len(rows) < planned.shards[shard].rows else None
        tried = attempt(planned, planned.shards[shard], 1, 1, f"{shard:012x}")
        with directory.open_part(tried, table(rows).schema, "digest", "worker-1") as part:
            for row in rows:  # a row group is made of several batches
                part.write(table([row]))
            receipts[shard] = directory.record(Success(part.publish(losses)), [])
    if shards == len(planned.shards):
        directory.finish(planned, receipts, claim.epoch)


def _losses(row: int) -> Losses:
    one = {"file": "/in/a", "row_group": 1, "row": row, "column": None, "code": "ROW_NULL", "message": "found null"}
    return Losses(PLACE, [pa.RecordBatch.from_pylist([one], PLACE)], {"ROW_NULL": 1})


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tfrecord"])
def test_columns_of_each_format_are_compared_and_rows_are_found_again(kind: Any, tmp_path: Path) -> None:
    out = Output(url=str(tmp_path / "out"), format=kind)
    write(out, without=REJECTED)
    found = diff(out, "champion.score", "challenger.score", rows=2)
    assert (found.rows, found.equal, found.shards, found.shards_done, found.finished) == (14, 11, 3, 3, True)
    assert found.measure is not None
    assert (found.measure.rows, found.measure.zeros, found.measure.largest) == (14, 11, 4.0)
    assert found.measure.mean == pytest.approx((0.25 - 4 + 1) / 14)
    assert found.measure.mean_absolute == pytest.approx(5.25 / 14)
    assert found.measure.quantiles == pytest.approx({"p50": 0, "p90": 1, "p99": 4, "p99.9": 4}, rel=1e-3)
    written = np.delete(np.arange(15), REJECTED)
    assert found.measure.correlation == pytest.approx(np.corrcoef(LEFT[written], RIGHT[written])[0, 1])
    worst, second = found.most
    assert (worst.file, worst.row_group, worst.row) == ("/in/a", 1, 4), "although the row before it is in no part"
    assert (worst.left, worst.right, worst.difference) == (8.0, 4.0, -4.0)
    assert (worst.kept["id"], second.kept["id"]) == (8, 14)
    assert (second.file, second.row_group, second.row, second.difference) == ("/in/b", 0, 5, 1.0)

    lists = diff(out, "champion.probs", "challenger.probs", rows=1)
    assert lists.kind == "numbers"
    assert lists.measure is not None
    assert (lists.equal, lists.measure.mean, lists.measure.largest) == (11, None, 4.0)
    assert (lists.most[0].right, lists.most[0].at) == ([8.0, 4.0, 8.0], 1)

    digits = diff(out, "champion.digit", "challenger.digit")
    assert {(one.left, one.right, one.rows) for one in digits.pairs} == {(3, 4, 1), (8, 9, 1), (14, 15, 1)}
    labels = diff(out, "champion.label", "challenger.label")
    assert labels.measure is None
    assert [one.rows for one in labels.pairs] == [2, 1]
    assert [one.row for one in labels.most] == [3, 4, 5]


def test_columns_of_csv_are_compared_in_the_types_of_the_plan(tmp_path: Path) -> None:
    outputs = {name: {"column": name, "dtype": "float32", "row": []} for name in ("left", "right")}
    columns = {"keep": ["id", {"who": "name"}], "outputs": outputs}
    planned = plan_of({"columns": columns, "input": {"format": "csv", "schema": {"name": "int32", "id": "string"}}})
    out, rows = Output(url=str(tmp_path / "out"), format="csv"), np.arange(planned.shards[0].rows)
    made = {"id": [f"0{row}" for row in rows], "who": rows.astype(np.int32), "left": rows * 1.0, "right": rows + 0.5}
    directory = OutputDirectory(out, planned.id, len(planned.shards))
    directory.claim(planned)
    batch = pa.record_batch(made)
    tried = attempt(planned, planned.shards[0], 1, 1, "0" * 12)
    with directory.open_part(tried, batch.schema, "digest", "worker-1") as part:
        part.write(batch)
        directory.record(Success(part.publish(None)), [])
    found = diff(out, "left", "right", rows=1)
    assert found.measure is not None
    assert (found.rows, found.measure.mean, found.measure.largest) == (len(rows), 0.5, 0.5)
    assert (found.most[0].left, found.most[0].kept) == (0.0, {"id": "00", "who": 0})
    with pytest.raises(JobError, match="one holds text, the other"):
        diff(out, "id", "left")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_rows_of_later_row_groups_are_found_again(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_GROUP_ROWS", 2)
    out = Output(url=str(tmp_path / "out"), format=kind)
    write(out)
    found = diff(out, "champion.score", "challenger.score")
    assert [(one.kept["id"], one.row) for one in found.most] == [(8, 4), (14, 5), (3, 3)]


def test_an_output_is_compared_on_each_store(place: Any) -> None:
    out = Output(url=f"{place.url}/out", options=place.options)
    write(out)
    assert diff(out, "champion.score", "challenger.score").equal == 12


def test_what_is_done_so_far_is_compared_and_said(tmp_path: Path) -> None:
    out = Output(url=str(tmp_path / "out"))
    with pytest.raises(OutputError, match="there is no whole '_run/'"):
        diff(out, "a", "b")
    begun = Output(url=str(tmp_path / "begun"))
    write(begun, shards=0)
    with pytest.raises(OutputError, match=r"none of its 3 shards is done yet"):
        diff(begun, "champion.score", "challenger.score")
    write(out, shards=2)
    found = diff(out, "champion.score", "challenger.score")
    assert (found.rows, found.finished) == (9, False)
    assert found.facts()["so far"] == "2 of 3 shards"
    assert "so far: 2 of 3 shards" in repr(found)


def test_a_part_without_rows_has_columns_and_nothing_to_compare(tmp_path: Path) -> None:
    planned = plan([InputFile("/in/a", 1, "v", (RowGroup(1, 1),))], Limits(), {"columns": {"keep": []}})
    out = Output(url=str(tmp_path / "out"))
    directory = OutputDirectory(out, planned.id, 1)
    directory.claim(planned)
    with directory.open_part(attempt(planned, planned.shards[0], 1, 1, "0" * 12), table([0]).schema, "d", "w") as part:
        part.publish(_losses(0))
    found = runner.diff(tmp_path / "out", left="champion.score", right="challenger.score")
    assert (found.rows, found.share, found.measure, found.most) == (0, 1.0, None, ())
    assert json.loads(json.dumps(found.document()))["measure"] is None
    assert "0 rows" in found._repr_html_()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diff") / "out"
    write(Output(url=str(folder)))
    return folder


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ("champion.score", "chalenger.score", "there is no column 'chalenger.score'; it has 'challenger.score', "),
        ("a", "b", "there is no column 'b'; it has 'id'"),
        ("id", "id", "cannot compare column 'id' of 'OUT' with itself: name another one, of 'who', 'champion.score'"),
        ("champion.score", "champion.label", "one holds floats, the other text; expected two of whole numbers, of"),
        ("champion.digit", "champion.score", "one holds whole numbers, the other floats; expected"),
    ],
)
def test_columns_that_cannot_be_compared_are_named_with_the_choices(
    written: Path, left: str, right: str, said: str
) -> None:
    with pytest.raises(JobError) as refused:
        runner.diff(written, left=left, right=right)
    assert said in refused.value.message.replace(str(written), "OUT")
    assert refused.value.exit_code == 2
    assert "--" not in refused.value.message


def test_a_part_that_has_gone_is_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Output(url=str(tmp_path / "out")))
    (part,) = (tmp_path / "out").glob("part-00001-*")
    published = OutputDirectory.published

    def then_lost(self: OutputDirectory, planned: Plan) -> Any:
        receipts = published(self, planned)
        part.unlink()
        return receipts

    monkeypatch.setattr(OutputDirectory, "published", then_lost)
    with pytest.raises(OutputError, match=r"part-00001-.*it is gone; see"):
        runner.diff(tmp_path / "out", left="champion.score", right="challenger.score")


def test_a_notebook_shows_figures_bars_and_the_rows_that_differ_most(written: Path) -> None:
    found = runner.diff(str(written), left="champion.score", right="challenger.score", rows=1)
    shown = found._repr_html_()
    for part in (
        "<b>Agreement</b>",
        "15 rows",
        "12 (80%)",
        "<svg",
        "n8",
        "challenger.score",
    ):
        assert part in shown
    document = json.loads(json.dumps(found.document()), parse_constant=lambda name: pytest.fail(name))
    assert (document["rows"], document["equal"], document["share"], document["finished"]) == (15, 12, 0.8, True)
    assert document["measure"]["decades"] == {"-1": 1, "0": 2}
    assert document["most"] == [
        {
            "file": "/in/a",
            "row_group": 1,
            "row": 4,
            "left": 8.0,
            "right": 4.0,
            "difference": -4.0,
            "at": None,
            "kept": {"id": 8, "who": "n8"},
        }
    ]


def test_what_json_has_no_number_for_is_a_text(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "RIGHT", np.array([math.nan, math.inf, 2, *LEFT[3:]], np.float32))
    out = written.parent / "odd"
    write(Output(url=str(out)))
    document = runner.diff(out, left="champion.score", right="challenger.score").document()
    assert [(one["right"], one["difference"]) for one in document["most"]] == [("NaN", None), ("Infinity", "Infinity")]
    assert (document["nan_right"], document["infinite"], document["measure"]["rows"]) == (1, 1, 13)
