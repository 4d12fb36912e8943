"""Jobs on CSV files, whole: planned, run, stopped and continued, rejected by line, verified."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import runner
from connectors.models.cache import CacheSettings
from jobs.errors import BindingError, DataError, InputError, JobError
from jobs.job import Job
from runner.preflight.draft import draft

pytestmark = pytest.mark.filterwarnings("ignore:.* files carry no commit header")
ROWS = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files with the columns `id`, `x` and `note`, the second one packed and in another order."""
    folder = tmp_path / "in"
    folder.mkdir()
    first = "".join(f'{n:04},{n}.5,"a ""note"", of\n{n}"\n' for n in range(ROWS))
    second = "".join(f",{n},{n:04}\n" for n in range(ROWS, 2 * ROWS))
    (folder / "a.csv").write_text(f"id,x,note\n{first}", encoding="utf-8", newline="")
    (folder / "b.csv.gz").write_bytes(gzip.compress(f"note,x,id\n{second}".encode()))
    return folder


def job(model: Path, source: Path, out: Path, **more: Any) -> dict[str, Any]:
    made = {
        "model": model,
        "input": {"url": str(source)},
        "output": {"url": str(out)},
        "columns": {"keep": ["id", "note"]},
    }
    return made | more


def run(given: dict[str, Any], *settings: str) -> runner.Result:
    return runner.run(given, *settings, in_process=True, progress=False)


def test_rows_of_csv_are_scored_into_parquet(half_plus_two: Path, folder: Path, tmp_path: Path) -> None:
    result = run(job(half_plus_two, folder, tmp_path / "out"))
    table = result.dataset().to_table()
    assert table["id"].to_pylist() == [f"{n:04}" for n in range(2 * ROWS)]
    assert table["y"].to_pylist() == [0.5 * (n + 0.5 * (n < ROWS)) + 2 for n in range(2 * ROWS)]
    assert table["note"][7].as_py() == 'a "note", of\n7'
    assert table["note"][ROWS].as_py() is None
    assert runner.verify(tmp_path / "out", deep=True).holds


@pytest.mark.parametrize("output", [{"format": "csv"}, {"format": "jsonl"}, {"format": "csv", "compression": "gzip"}])
def test_rows_of_csv_are_scored_into_text(
    half_plus_two: Path, folder: Path, tmp_path: Path, output: dict[str, str]
) -> None:
    given = job(half_plus_two, folder, tmp_path / "out", output={"url": str(tmp_path / "out"), **output})
    result = run(given)
    (part,) = map(Path, result.parts)
    text = (gzip.decompress(part.read_bytes()) if part.suffix == ".gz" else part.read_bytes()).decode()
    if output["format"] == "csv":
        rows = list(csv.DictReader(text.splitlines(keepends=True)))
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    assert [row["id"] for row in rows] == [f"{n:04}" for n in range(2 * ROWS)]
    assert [float(row["y"]) for row in rows] == [0.5 * (n + 0.5 * (n < ROWS)) + 2 for n in range(2 * ROWS)]
    assert rows[7]["note"] == 'a "note", of\n7'
    assert result.dataset().count_rows() == 2 * ROWS
    assert runner.verify(tmp_path / "out", deep=True).holds
    assert run(given).rows_run == 0
    part.write_bytes(part.read_bytes()[:-3])
    assert not runner.verify(tmp_path / "out").holds


def test_bad_lines_are_rejected_with_their_numbers_and_the_others_scored(
    half_plus_two: Path, folder: Path, tmp_path: Path
) -> None:
    lines = (folder / "a.csv").read_text(encoding="utf-8").split("\n")
    lines[501] = "0250,many," + lines[501].partition(",")[2].partition(",")[2]
    lines[1001] = "0500,1"
    lines[1002] = "0500,2,3,4"
    (folder / "a.csv").write_text("\n".join(lines), encoding="utf-8", newline="")
    given = job(half_plus_two, folder, tmp_path / "out", output={"url": str(tmp_path / "out"), "format": "csv"})
    with pytest.raises(DataError, match="line 502 of the file: 'many' in column 'x' is no float"):
        run(given)
    result = run(given, "limits.on_bad_row=reject", "limits.max_rejected_rows=3")
    assert (result.rows, result.rows_rejected, result.codes) == (2 * ROWS - 2, 3, {"ROW_LINE": 2, "ROW_VALUE": 1})
    rejected = result.rejects().to_pylist()
    assert [(row["code"], row["column"], row["message"]) for row in rejected] == [
        ("ROW_VALUE", "x", "line 502 of the file: 'many' in column 'x' is no float"),
        ("ROW_LINE", None, "line 1002 of the file: 2 fields in '0500,1'; expected 3"),
        ("ROW_LINE", None, "line 1003 of the file: 4 fields in '0500,2,3,4'; expected 3"),
    ]
    assert rejected[0]["kept"]["id"] == "0250"
    assert runner.verify(tmp_path / "out", deep=True).holds


def test_a_run_that_was_stopped_goes_on_behind_what_is_done(half_plus_two: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "c.csv").write_text("id,x,note\n2000,bad,\n2001,1,\n", encoding="utf-8")
    given = job(half_plus_two, folder, tmp_path / "out", limits={"shard_rows": ROWS, "on_bad_row": "reject"})
    with pytest.raises(DataError, match="MAX_REJECTED_ROWS"):
        run(given)
    result = run(given, "limits.max_rejected_rows=1")
    assert (result.rows, result.rows_rejected, result.rows_run) == (2 * ROWS + 1, 1, 2)
    assert result.dataset().to_table()["id"].to_pylist() == [*(f"{n:04}" for n in range(2 * ROWS)), "2001"]
    (folder / "c.csv").write_text("id,x,note\n2000,3,\n2001,1,\n", encoding="utf-8")
    with pytest.raises(JobError):
        run(given)  # another content is another plan


def test_lists_are_refused_in_csv_by_the_plan_with_the_way_out(
    half_plus_two: Path, folder: Path, tmp_path: Path
) -> None:
    given = job(half_plus_two, folder, tmp_path / "out", output={"url": str(tmp_path / "out"), "format": "csv"})
    given["input"]["schema"] = {"note": "binary"}
    with pytest.raises(JobError, match=r"kept column 'note' \(binary\).*CSV holds texts") as caught:
        runner.plan(given)
    assert "`output: {format: parquet}`" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_missing_and_a_type_that_does_not_fit_are_refused_by_the_plan(
    half_plus_two: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "c.csv").write_text("id,X,note\n1,2,3\n", encoding="utf-8")
    with pytest.raises((BindingError, InputError), match="COLUMN_MISSING: column 'x' is in 2 of 3 files"):
        runner.plan(job(half_plus_two, folder, tmp_path / "out"))
    given = job(half_plus_two, folder / "a.csv", tmp_path / "out")
    given["input"]["schema"] = {"x": "string"}
    with pytest.raises(BindingError, match="string"):
        runner.plan(given)


def test_a_draft_of_a_job_on_csv_binds(half_plus_two: Path, folder: Path, tmp_path: Path) -> None:
    given = Job(**job(str(half_plus_two), folder, tmp_path / "out", columns={}))
    made = draft(given, CacheSettings())
    assert made.complete
    assert [(fed.spec.name, fed.rule.column) for fed in made.fed if fed.rule] == [("x", "x")]
    assert made.free == ["id", "note"]
