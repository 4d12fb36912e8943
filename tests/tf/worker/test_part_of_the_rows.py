"""A job wants a part of the rows: what is left out is counted, proven, and the same in every run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from connectors.formats import footer
from connectors.output.reject import read_rejected
from connectors.output.status import read_status
from connectors.output.verification import verify
from jobs.errors import BindingError, DataError
from jobs.job import Job
from jobs.section.output import Output
from runner.cli.view.plan import plan_document, render_plan
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

IN_PROCESS = RunOptions(in_process=True)
FEW_ROWS = {"shard_rows": 100, "batch_rows": 32}
REJECT = FEW_ROWS | {"on_bad_row": "reject", "max_rejected_rows": "50%"}
ROWS = 400  # in files of 200 rows, and row groups of 50


@pytest.fixture
def job(tmp_path: Path, half_plus_two: Path) -> Callable[..., Job]:
    """job(where=..., ...): two files; ids and x count on, `group` is their hundred, `odd` is null or text."""
    folder = tmp_path / "in"
    folder.mkdir()
    ids = np.arange(ROWS)
    odd = [None if row % 4 == 0 else "yes" if row % 2 else "no" for row in range(ROWS)]
    x = pa.array([None if row in (5, 250) else float(row) for row in range(ROWS)])
    table = pa.table({"id": ids, "x": x, "group": ids // 100, "odd": odd})
    for number in range(2):
        part = table.slice(number * 200, 200)
        pq.write_table(part, folder / f"numbers-{number}.parquet", row_group_size=50)

    def make(limits: Any = REJECT, only_rejects: str | None = None, output: str = "out", **rows: Any) -> Job:
        more = {"only_rejects": only_rejects} if only_rejects else {}
        document: dict[str, Any] = {
            "model": {"url": str(half_plus_two)},
            "input": {"url": str(folder), **rows, **more},
            "columns": {"keep": ["id"]},
            "output": {"url": str(tmp_path / output)},
            "limits": limits,
        }
        return Job.model_validate(document)

    return make


def scored(folder: Path) -> list[int]:
    table = pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*")))
    assert table.schema.names == ["id", "y"]
    assert np.allclose(table["y"].to_numpy(), table["id"].to_numpy() * 0.5 + 2)
    ids: list[int] = table["id"].to_pylist()
    return ids


def test_only_the_rows_that_are_wanted_are_scored_and_the_others_are_counted(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    result = launch(job(where="odd = 'yes' and id < 390"), IN_PROCESS)
    wanted = [row for row in range(ROWS) if row % 2 and row < 390]
    assert scored(tmp_path / "out") == [row for row in wanted if row != 5]
    assert (result.rows, result.rows_rejected, result.rows_left_out) == (len(wanted) - 1, 1, ROWS - len(wanted))
    assert f"left out: {ROWS - len(wanted)} rows" in result.summary()
    proof = verify(Output(url=str(tmp_path / "out")), deep=True)
    assert (proof.problems, proof.rows, proof.rows_found) == ((), ROWS, result.rows)
    assert (proof.rows_rejected, proof.rows_left_out) == (1, result.rows_left_out)
    assert read_status(Output(url=str(tmp_path / "out"))).rows_left_out == result.rows_left_out
    (manifest,) = (tmp_path / "out").glob("_run/*/manifest-*.json")
    assert json.loads(manifest.read_text())["totals"]["rows_left_out"] == result.rows_left_out
    again = launch(job(where="odd='yes'  AND id<390"), IN_PROCESS)
    assert (again.rows_run, again.rows_left_out) == (0, result.rows_left_out), "the same job in another spelling"


def test_a_row_that_where_leaves_out_is_never_a_bad_row(job: Callable[..., Job], tmp_path: Path) -> None:
    result = launch(job(FEW_ROWS, where="x is not null and group in (0, 2)"), IN_PROCESS)
    assert (result.rows, result.rows_rejected) == (198, 0)
    assert scored(tmp_path / "out") == [row for row in range(ROWS) if row // 100 in (0, 2) and row not in (5, 250)]


def test_a_sample_is_the_same_rows_after_parts_are_computed_again(job: Callable[..., Job], tmp_path: Path) -> None:
    sampled = job(sample=0.3, where="id != 7")
    result = launch(sampled, IN_PROCESS)
    first = scored(tmp_path / "out")
    assert 80 < len(first) < 160
    assert result.rows + result.rows_rejected + result.rows_left_out == ROWS
    (tmp_path / "out" / "_SUCCESS").unlink()
    lost = sorted((tmp_path / "out").glob("part-*"))[1]
    shard = lost.name.split("-")[1]
    lost.unlink()
    next((tmp_path / "out").glob(f"_run/*/receipts/{shard}.json")).unlink()
    resumed = launch(sampled, IN_PROCESS)
    assert 0 < resumed.rows_run < ROWS
    assert scored(tmp_path / "out") == first
    assert launch(sampled, RunOptions(in_process=True, overwrite=True)).rows_run == ROWS
    assert scored(tmp_path / "out") == first
    assert not verify(Output(url=str(tmp_path / "out"))).problems


def test_where_nothing_is_left_the_parts_are_empty_and_nothing_failed(job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no row is read"):
        result = launch(job(where="odd = 'maybe' and id > 120"), IN_PROCESS)
    assert (result.rows, result.rows_rejected) == (0, 0)
    assert scored(tmp_path / "out") == []
    assert not verify(Output(url=str(tmp_path / "out"))).problems


def test_where_all_rows_that_are_left_are_bad_the_job_failed(job: Callable[..., Job]) -> None:
    with pytest.raises(DataError, match="all 2 rows were rejected") as failed:
        launch(job(where="id = 5 or id = 250", limits=REJECT | {"max_rejected_rows": "100%"}), IN_PROCESS)
    assert failed.value.facts["code"] == "ALL_REJECTED"


def test_of_the_rows_that_were_rejected_some_are_wanted(job: Callable[..., Job], tmp_path: Path) -> None:
    launch(job(), IN_PROCESS)
    before = str(tmp_path / "out")
    assert read_rejected(Output(url=before)).rows == 2
    for number in range(2):  # repaired
        path = tmp_path / "in" / f"numbers-{number}.parquet"
        table = pq.read_table(path)
        repaired = table.set_column(1, "x", table["id"].cast(pa.float64()))
        pq.write_table(repaired, path, row_group_size=50)
    result = launch(job(only_rejects=before, where="id > 100", output="again"), IN_PROCESS)
    assert (result.rows, result.rows_rejected) == (1, 0)
    assert scored(tmp_path / "again") == [250]


def test_parts_that_carry_no_header_say_in_their_receipts_what_was_left_out(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    wanted = job(where="group != 1").model_copy(
        update={"output": Output(url=str(tmp_path / "records"), format="tfrecord")}
    )
    result = launch(wanted, IN_PROCESS, warn=lambda story: None)
    proof = verify(Output(url=str(tmp_path / "records")))
    assert (proof.problems, proof.rows_left_out) == ((), result.rows_left_out)


@pytest.mark.parametrize(
    ("where", "code"), [("agee > 1", "COLUMN_MISSING"), ("odd = 1", "COLUMN_TYPE"), ("id = '1'", "COLUMN_TYPE")]
)
def test_a_where_that_does_not_fit_is_refused_with_its_place_and_nothing_is_written(
    job: Callable[..., Job], tmp_path: Path, where: str, code: str
) -> None:
    with pytest.raises(BindingError, match=r"at character \d+:\n    ") as refused:
        launch(job(where=where), IN_PROCESS)
    assert (refused.value.facts["code"], refused.value.exit_code) == (code, 2)
    assert not (tmp_path / "out").exists()


def test_a_job_without_where_says_nothing_of_rows_left_out(job: Callable[..., Job], tmp_path: Path) -> None:
    result = launch(job(), IN_PROCESS)
    assert "left out" not in result.summary()
    written = [path.read_text() for path in (tmp_path / "out").rglob("*.json") if "report" not in str(path)[-30:]]
    assert written
    assert not [text for text in written if "rows_left_out" in text]
    assert preflight(job()).plan.identity["input"] == {"format": "parquet"}
    shutil.rmtree(tmp_path / "out")


def test_row_groups_and_files_that_cannot_match_are_not_read(job: Callable[..., Job], tmp_path: Path) -> None:
    ready = preflight(job(where="id >= 120 and id < 210 and not group = 0"))
    groups = [group.rows for file in ready.plan.files for group in file.row_groups]
    assert groups == [0, 0, 50, 50, 50, 0, 0, 0]
    assert ready.dropped.document()["by_statistics"] == {"row_groups": 5, "rows": 250}
    result = launch(job(where="id >= 120 and id < 210 and not group = 0"), IN_PROCESS)
    assert scored(tmp_path / "out") == list(range(120, 210))
    assert (result.rows, result.rows_left_out) == (90, 60)
    assert not verify(Output(url=str(tmp_path / "out")), deep=True).problems


def test_where_every_row_group_is_ruled_out_there_is_still_a_part(job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="none can match `where`: id > 1000"):
        result = launch(job(where="id > 1000"), IN_PROCESS)
    assert (result.rows, result.rows_left_out, result.parts[0][-8:]) == (0, 0, ".parquet")
    assert scored(tmp_path / "out") == []


def test_where_reads_other_fields_of_what_feeds_a_model(tmp_path: Path, half_plus_two: Path) -> None:
    """Of JSON lines, whose structs are read for the fields alone that somebody needs."""
    rows = [{"u": {"x": float(row), "lang": "de" if row % 2 else "fr", "more": row}} for row in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def wanted(where: str) -> Job:
        return Job.model_validate(
            {
                "model": {"url": str(half_plus_two)},
                "input": {"url": str(tmp_path / "a.jsonl"), "where": where},
                "columns": {"inputs": {"x": "u.x"}},
                "output": {"url": str(tmp_path / "out")},
            }
        )

    assert launch(wanted("u.lang = 'de' and u.x > 2"), IN_PROCESS).rows == 3
    with pytest.raises(BindingError, match="the fields there are 'lang', 'x', 'more'"):
        launch(wanted("u.long = 'de'"), IN_PROCESS)
    with pytest.raises(BindingError, match=r"declare one that comes later: `input\.schema: \{email: string\}`"):
        launch(wanted("email is null"), IN_PROCESS)


def test_a_limit_ends_at_the_same_row_and_what_lies_behind_is_no_part_of_the_plan(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    ready = preflight(job(limit=70))
    assert [group.rows for file in ready.plan.files for group in file.row_groups] == [50, 20, 0, 0]
    assert ready.dropped.document()["by_limit"] == {"files": 1, "rows": 330}
    launch(job(limit=70), IN_PROCESS)
    assert scored(tmp_path / "out") == [row for row in range(70) if row != 5]


def test_a_limit_counts_the_rows_that_where_and_sample_leave(job: Callable[..., Job], tmp_path: Path) -> None:
    result = launch(job(limit=130, where="odd = 'yes' and x is not null"), IN_PROCESS)
    assert scored(tmp_path / "out") == [row for row in range(ROWS) if row % 2 and row != 5][:130]
    assert result.rows == 130
    launch(job(sample=0.5, where="x is not null", output="all"), IN_PROCESS)
    launch(job(limit=60, sample=0.5, where="x is not null", output="first"), IN_PROCESS)
    assert scored(tmp_path / "first") == scored(tmp_path / "all")[:60]
    assert preflight(job(limit=1000)).plan.rows == ROWS, "more than there are"


def test_of_a_limit_without_where_nothing_is_decoded(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.formats.parquet.ParquetReader.read", lambda *_: pytest.fail("it reads"))
    assert preflight(job(limit=10, sample=0.5)).plan.rows < 40


def test_a_plan_tells_what_is_read_and_why_the_rest_is_not(job: Callable[..., Job]) -> None:
    ready = preflight(job(where="id >= 120 and odd = 'no'", limit=30, sample=0.5))
    told = plan_document(ready)["selection"]
    assert told["read"]["rows"] == ready.plan.rows
    assert told["read"]["files"] == 2
    assert 0 < told["read"]["decoded_bytes"] < 200 * 50
    assert told["not_read"]["by_statistics"] == {"row_groups": 2, "rows": 100}
    assert told["not_read"]["by_limit"]["rows"] == 300 - ready.plan.rows
    with (console := Console(width=200)).capture() as shown:
        console.print(render_plan(ready))
    assert "2 row groups with 100 rows not read, by statistics" in shown.get()
    assert "`limit`: up to 30 rows of these" in shown.get()
    assert plan_document(preflight(job()))["selection"] is None


def test_files_of_partitions_that_cannot_match_are_not_even_opened(
    job: Callable[..., Job], tmp_path: Path, half_plus_two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(1, 9):
        folder = tmp_path / "lake" / f"dt=2026-11-0{day}" / "country=DE"
        folder.mkdir(parents=True)
        pq.write_table(
            pa.table({"id": np.arange(4) + day * 10, "x": (np.arange(4) + day * 10) * 1.0}), folder / "a.parquet"
        )
    rows = {
        "url": str(tmp_path / "lake"),
        "partitions": "hive",
        "schema": {"dt": "date32"},
        "where": "dt between '2026-11-03' and '2026-11-04' and country = 'DE' and id != 41",
    }
    wanted = Job.model_validate(
        {
            "model": {"url": str(half_plus_two)},
            "input": rows,
            "columns": {"keep": ["id"]},
            "output": {"url": str(tmp_path / "out")},
        }
    )
    opened, read = list[str](), footer.read_footer

    def counted(file: Any, known: Any = None) -> Any:
        opened.append(file.url.split("dt=")[-1][:10])
        return read(file, known)

    monkeypatch.setattr("connectors.formats.parquet.read_footer", counted)
    ready = preflight(wanted)
    assert set(opened) == {"2026-11-01", "2026-11-03", "2026-11-04"}, "the first file tells the columns"
    assert ready.dropped.document()["by_partition"] == {"files": 6}
    assert ready.plan.rows == 8
    result = launch(wanted, IN_PROCESS)
    assert scored(tmp_path / "out") == [30, 31, 32, 33, 40, 42, 43]
    assert (result.rows, result.rows_left_out) == (7, 1)
    none = wanted.model_copy(update={"input": wanted.input.model_copy(update={"where": "dt > '2027-01-01'"})})
    assert preflight(none).plan.rows == 0
