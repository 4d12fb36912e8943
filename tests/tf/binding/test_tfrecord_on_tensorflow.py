"""TFRecord files that TensorFlow wrote, through a model, into TFRecord files that TensorFlow reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.output.verification import verify
from jobs.errors import BindingError, DataError, OutputError
from jobs.job import Job
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight


@pytest.fixture
def given(tensorflow: Any, tmp_path: Path) -> Path:
    """Two files of 10 Examples with 'id', 'x' = id (left out of none) and words; the second one is packed."""
    tf = tensorflow
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (name, packed) in enumerate((("a.tfrecord", ""), ("b.tfrecord.gz", "GZIP"))):
        with tf.io.TFRecordWriter(str(folder / name), packed) as writer:
            for index in range(10 * number, 10 * number + 10):
                feature = {
                    "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[index])),
                    "x": tf.train.Feature(float_list=tf.train.FloatList(value=[index])),
                    "words": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"w"] * (index % 3))),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return folder


def job(model: Path, given: Path, **sections: Any) -> Job:
    document = {
        "model": {"url": str(model)},
        "input": {"url": str(given), "format": "tfrecord", "examples": "infer"},
        "columns": {"keep": ["id", "words"]},
        "output": {"url": str(given.parent / "out"), "format": "tfrecord"},
        "limits": {"batch_rows": 4},
    }
    return Job.model_validate(document | sections)


@pytest.mark.parametrize("packed", ["none", "gzip"])
def test_examples_go_through_a_model_and_come_out_as_examples(
    tensorflow: Any, half_plus_two: Path, given: Path, monkeypatch: pytest.MonkeyPatch, packed: str
) -> None:
    tf = tensorflow
    monkeypatch.setattr("connectors.formats.tfrecord.source._GROUP_RECORDS", 3)
    output = {"url": str(given.parent / "out"), "format": "tfrecord", "compression": packed}
    asked = job(half_plus_two, given, output=output, limits={"shard_rows": 6})
    warned: list[str] = []
    result = launch(asked, RunOptions(in_process=True), warn=warned.append)
    assert (result.rows, len(result.parts)) == (20, 4)
    assert "tfrecord files carry no commit header: parts are staged" in warned[0]
    records = tf.data.TFRecordDataset(list(result.parts), compression_type="GZIP" if packed == "gzip" else "")
    spec = {
        "id": tf.io.FixedLenFeature([], tf.int64),
        "y": tf.io.FixedLenFeature([], tf.float32),
        "words": tf.io.RaggedFeature(tf.string),
    }
    read = tf.io.parse_example(list(records), spec)
    assert read["id"].numpy().tolist() == list(range(20))
    assert read["y"].numpy().tolist() == [index / 2 + 2 for index in range(20)]
    assert read["words"].to_list() == [[b"w"] * (index % 3) for index in range(20)]
    again = launch(asked, RunOptions(in_process=True), warn=warned.append)
    assert (again.rows, again.rows_run) == (20, 0)
    with pytest.raises(OutputError, match="TFRecordDataset"):
        result.dataset()


def test_the_columns_may_be_named_and_only_those_are_read(half_plus_two: Path, given: Path) -> None:
    source = {"url": str(given), "examples": {"x": "float", "id": "int64", "nowhere": "list<bytes>"}}
    output = {"url": str(given.parent / "out")}
    asked = job(half_plus_two, given, input=source, columns={"keep": ["id", "nowhere"]}, output=output)
    result = launch(asked, RunOptions(in_process=True))
    table = pq.read_table(given.parent / "out")
    assert result.rows == 20
    assert table["id"].to_pylist() == list(range(20))
    assert table["y"].to_pylist() == [index / 2 + 2 for index in range(20)]
    assert table["nowhere"].to_pylist() == [None] * 20


def test_records_feed_a_signature_over_examples(tensorflow: Any, given: Path) -> None:
    tf = tensorflow

    class Parser(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def score(self, examples: Any) -> Any:
            return {"x": tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]}

    model, module = given.parent / "parser", Parser()
    tf.saved_model.save(module, str(model), signatures=module.score)
    columns = {"inputs": {"examples": "record"}, "keep": ["record"]}
    output = {"url": str(given.parent / "out")}
    launch(job(model, given, input={"url": str(given)}, columns=columns, output=output), RunOptions(in_process=True))
    table = pq.read_table(given.parent / "out")
    assert table["x"].to_pylist() == [float(index) for index in range(20)]
    assert tf.train.Example.FromString(table["record"][7].as_py()).features.feature["id"].int64_list.value == [7]


def test_what_does_not_fit_is_said_before_a_worker_starts(half_plus_two: Path, given: Path) -> None:
    with pytest.raises(BindingError, match=r"found no such column; the input has 'record'"):
        launch(job(half_plus_two, given, input={"url": str(given)}), RunOptions(in_process=True))
    assert not (given.parent / "out").exists()


def test_the_rejected_rows_of_a_tfrecord_output_are_shown_and_scored_again(
    half_plus_two: Path, given: Path, tmp_path: Path
) -> None:
    table = pa.table({"id": pa.array(range(20), pa.int64()), "x": pa.array([-1.0, *range(1, 20)], pa.float32())})
    (tmp_path / "rows").mkdir()
    pq.write_table(table, tmp_path / "rows" / "a.parquet", row_group_size=5)
    document = {
        "model": {"url": str(half_plus_two), "signature": "picky"},
        "input": {"url": str(tmp_path / "rows")},
        "columns": {"keep": ["id"]},
        "output": {"url": str(tmp_path / "scores"), "format": "tfrecord"},
        "limits": {"shard_rows": 5, "on_bad_row": "reject", "max_rejected_rows": 1},
    }
    result = launch(Job.model_validate(document), RunOptions(in_process=True), warn=lambda story: None)
    assert (result.rows, result.rejects().column("row").to_pylist()) == (19, [0])

    again = {**document, "input": {"url": str(tmp_path / "rows"), "only_rejects": str(tmp_path / "scores")}}
    again |= {"model": {"url": str(half_plus_two)}, "output": {"url": str(tmp_path / "again"), "format": "parquet"}}
    launch(Job.model_validate(again), RunOptions(in_process=True))
    assert pq.read_table(tmp_path / "again").to_pylist() == [{"id": 0, "y": 1.5}]


@pytest.fixture
def spoilt(tensorflow: Any, tmp_path: Path) -> Path:
    """20 Examples of 'id' and 'x' in two files, with four bad ones: two values, none, another kind, no Example."""
    tf = tensorflow
    bad = {3: [1.0, 2.0], 7: [], 12: b"another kind", 16: None}
    folder = tmp_path / "spoilt"
    folder.mkdir()
    for number in range(2):
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord")) as writer:
            for row in range(10 * number, 10 * number + 10):
                x = bad.get(row, [row])
                if x is None:
                    writer.write(b"no example")
                    continue
                kinds = {"bytes_list": tf.train.BytesList(value=[x])} if isinstance(x, bytes) else {}
                value = tf.train.Feature(**kinds or {"float_list": tf.train.FloatList(value=x)})
                feature = {"id": tf.train.Feature(int64_list=tf.train.Int64List(value=[row])), "x": value}
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return folder


def spoilt_job(model: Path, spoilt: Path, **limits: Any) -> Job:
    return Job.model_validate(
        {
            "model": {"url": str(model)},
            "input": {"url": str(spoilt), "examples": {"id": "int64", "x": "float"}},
            "columns": {"keep": ["id"]},
            "output": {"url": str(spoilt.parent / "out")},
            "limits": {"batch_rows": 4, "shard_rows": 10} | limits,
        }
    )


def test_bad_examples_are_set_aside_with_their_record_and_the_others_are_scored(
    half_plus_two: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.formats.tfrecord.source._GROUP_RECORDS", 5)
    asked = spoilt_job(half_plus_two, spoilt, on_bad_row="reject", max_rejected_rows=4)
    result = launch(asked, RunOptions(in_process=True))
    good = [row for row in range(20) if row not in (3, 7, 12, 16)]
    assert result.rows == 16
    table = pq.read_table(spoilt.parent / "out")
    assert table["id"].to_pylist() == good
    assert table["y"].to_pylist() == [row / 2 + 2 for row in good]
    rejects = result.rejects().to_pylist()
    assert [(one["row_group"], one["row"], one["code"], one["column"]) for one in rejects] == [
        (0, 3, "ROW_SHAPE", "x"),
        (1, 2, "ROW_SHAPE", "x"),
        (0, 2, "ROW_TYPE", "x"),
        (1, 1, "ROW_EXAMPLE", None),
    ]
    assert [one["kept"]["id"] for one in rejects] == [3, 7, 12, None]
    assert [one["message"].split(";")[0] for one in rejects] == [
        "record 3 of the file: found 2 values of feature 'x'",
        "record 7 of the file: found 0 values of feature 'x'",
        "record 2 of the file: found feature 'x' as bytes_list",
        "record 6 of the file: found bytes that are no tf.Example",
    ]
    assert verify(asked.output, deep=True).holds

    again = spoilt_job(half_plus_two, spoilt, on_bad_row="reject", max_rejected_rows=3)
    repaired = again.model_copy(
        update={
            "input": again.input.model_copy(update={"only_rejects": str(spoilt.parent / "out")}),
            "output": again.output.model_copy(update={"url": str(spoilt.parent / "again")}),
        }
    )
    with pytest.raises(DataError, match=r"4 rows (of one shard )?were rejected") as caught:
        launch(repaired, RunOptions(in_process=True))
    assert caught.value.facts["code"] == "MAX_REJECTED_ROWS"


def test_the_first_bad_example_ends_a_job_that_may_lose_nothing(half_plus_two: Path, spoilt: Path) -> None:
    (spoilt / "1.tfrecord").unlink()  # which has a bad record too, and may be read ahead
    place = r"ROW_SHAPE: record 3 of the file: found 2 values of feature 'x'.*0\.tfrecord' row group 0 row 3"
    with pytest.raises(DataError, match=place) as caught:
        launch(spoilt_job(half_plus_two, spoilt), RunOptions(in_process=True))
    facts = caught.value.facts
    assert (facts["code"], facts["row_group"], facts["row"]) == ("ROW_SHAPE", 0, 3)


def test_damaged_framing_is_the_fault_of_its_row_group(
    half_plus_two: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.formats.tfrecord.source._GROUP_RECORDS", 5)
    file = spoilt / "0.tfrecord"
    content = bytearray(file.read_bytes())
    content[20] ^= 1  # in the first record
    file.write_bytes(bytes(content))
    limits = {"on_bad_row": "reject", "max_rejected_rows": 3, "on_bad_file": "skip", "max_bad_files": 1}
    result = launch(spoilt_job(half_plus_two, spoilt, **limits), RunOptions(in_process=True))
    codes = [one["code"] for one in result.rejects().to_pylist()]
    assert codes == ["RECORD_CRC"] * 5 + ["ROW_SHAPE", "ROW_TYPE", "ROW_EXAMPLE"]
    assert result.rows == 12

    frame = 16 + int.from_bytes(content[:8], "little")  # of the first record
    content[frame + 8] ^= 1  # the CRC of the length of the second: where the others begin is not known
    file.write_bytes(bytes(content))
    ready = preflight(spoilt_job(half_plus_two, spoilt, **limits))
    assert {Path(url).name: code for url, code in ready.plan.skipped.items()} == {"0.tfrecord": "RECORD_CRC"}
