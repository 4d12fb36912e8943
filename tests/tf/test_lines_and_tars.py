"""Whole jobs on JSON lines and on tar files of webdataset: a bad row in the middle, and a run that goes on."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import runner
from connectors.formats.media import webdataset
from connectors.formats.text import cut, packed
from jobs.errors import DataError, InputError

REJECT = ("limits.on_bad_row=reject", "limits.max_rejected_rows=1")
BAD = 120  # the row that is


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "GROUP_ROWS", 50)
    monkeypatch.setattr(packed, "BLOCK_BYTES", 512)
    monkeypatch.setattr(webdataset, "_GROUP_ROWS", 50)


@pytest.fixture
def run(half_plus_two: Path, tmp_path: Path) -> Callable[..., Any]:
    """run(columns, *overrides): the job that scores what lies in `in`, in shards of 100 rows."""

    def score(columns: dict[str, Any], *overrides: str, **input: Any) -> Any:
        job = {
            "model": {"url": half_plus_two},
            "input": {"url": str(tmp_path / "in")} | input,
            "columns": columns,
            "output": tmp_path / "out",
            "limits": {"shard_rows": 100},
        }
        return runner.run(job, *overrides, in_process=True, progress=False)

    return score


def lines(folder: Path, rows: int = 200) -> None:
    """What is beside `x` in `user` is of another kind in each row, and of no matter."""
    folder.mkdir()
    texts = [json.dumps({"id": row, "user": {"x": row, "other": [1, "x", {}][row % 3]}}) for row in range(rows)]
    if rows > BAD:
        texts[BAD] = texts[BAD].replace('"x": ', '"x": "')
    (folder / "a.jsonl").write_text("\n".join(texts))


def tars(folder: Path, rows: int = 200) -> None:
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as archive:
        for row in range(rows):
            document = json.dumps({"x": row, "other": [1, "x", {}][row % 3]})
            for extension, text in (("cls", str(row) if row != BAD else "many"), ("json", document)):
                info = tarfile.TarInfo(f"d/{row:04}.{extension}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))


@pytest.mark.parametrize(
    ("write", "columns", "told"),
    [
        (lines, {"inputs": {"x": "user.x"}, "keep": ["id"]}, "line 121: no JSON, at column"),
        (tars, {"inputs": {"x": "json.x"}, "keep": [{"id": "cls"}]}, "key 'd/0120', row 120 of the file: found many"),
    ],
)
def test_a_run_stops_at_a_bad_row_and_goes_on_without_it(
    run: Callable[..., Any], write: Callable[[Path], None], columns: dict[str, Any], told: str, tmp_path: Path
) -> None:
    write(tmp_path / "in")
    with pytest.raises(DataError, match=told):
        run(columns, "limits.on_bad_row=reject")
    result = run(columns, *REJECT)
    assert (result.rows, result.rows_rejected) == (199, 1)
    assert 0 < result.rows_run < 150, "the other shards were done"
    scored = result.dataset().to_table().sort_by("id")
    expected = [row for row in range(200) if row != BAD]
    assert scored["id"].to_pylist() == expected
    assert scored["y"].to_pylist() == [row / 2 + 2 for row in expected]
    assert runner.verify(str(tmp_path / "out"), deep=True).holds
    assert run(columns, *REJECT).rows_run == 0


def test_files_without_a_row_show_no_column_and_the_others_do(run: Callable[..., Any], tmp_path: Path) -> None:
    lines(tmp_path / "in", 100)
    for name, content in (("0.jsonl", b""), ("1.jsonl", b"\n\n")):
        (tmp_path / "in" / name).write_bytes(content)
    assert run({"inputs": {"x": "user.x"}}).rows == 100


def test_input_without_a_row_is_told(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "a.tar", "w"):
        pass
    with pytest.raises(InputError, match="cannot tell the columns: 1 input file shows none") as caught:
        run({"inputs": {"x": "cls"}})
    assert caught.value.facts["code"] == "NO_INPUT"


def test_a_tar_with_a_pickle_writes_nothing(run: Callable[..., Any], tmp_path: Path) -> None:
    tars(tmp_path / "in", 2)
    with tarfile.open(tmp_path / "in" / "a.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("e.pkl"))
    with pytest.raises(InputError, match=r"member 'e\.pkl' is a pickle") as caught:
        run({"inputs": {"x": "cls"}})
    assert (caught.value.exit_code, caught.value.facts["code"]) == (2, "FILE_PICKLE")
    assert not (tmp_path / "out").exists()


def test_a_declared_type_is_that_of_the_tensor_or_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    lines(tmp_path / "in", 100)
    result = run({"inputs": {"x": "user.x"}, "keep": ["id"]}, schema={"id": "decimal(5, 1)"})
    assert result.dataset().to_table().schema.field("id").type == pa.decimal128(5, 1)
    with pytest.raises(InputError, match="cannot read column 'id' as time64"):
        run({"inputs": {"x": "user.x"}}, schema={"id": "time64[us]"})
