"""`runner rejects` and `runner run --only-rejects`, as a user types them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_rejected_rows_are_shown_repaired_and_scored_into_a_new_output(
    command: Command, job_file: Callable[..., Path], tmp_path: Path
) -> None:
    job_file(files=1, limits={"on_bad_row": "reject", "max_rejected_rows": "1%"}, columns={"keep": ["id"]})
    path = tmp_path / "in" / "numbers-000.parquet"
    table = pq.read_table(path)
    x = table["x"].to_pylist()
    x[5], x[107] = None, None
    pq.write_table(table.set_column(1, "x", pa.array(x, pa.float32())), path, row_group_size=100)
    done = command("run", "job.yaml", "--in-process", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "rejected: 2 rows (2 ROW_NULL); see: runner rejects" in done.stdout

    shown = command("rejects", "out")
    assert shown.returncode == 0, shown.stderr
    assert "2 of 1,000 rows rejected in" in shown.stdout
    assert "        2  ROW_NULL" in shown.stdout
    assert shown.stdout.count("found null") == 1, "a message that rows share is told once"
    assert "ROW_NULL, 2 rows, column x" in shown.stdout
    (last,) = [line for line in shown.stdout.splitlines() if "107" in line]
    assert last.split() == ["numbers-000.parquet", "1", "7", "107"]
    wide = command("rejects", "out", "--wide").stdout
    (last,) = [line for line in wide.splitlines() if "107" in line]
    assert last.split()[:6] == ["ROW_NULL", "numbers-000.parquet", "1", "7", "x", "107"]
    assert last.rstrip().endswith("or a 'null:' rule in the job")
    assert "and 1 more" in command("rejects", "out", "--limit", "1", "--code", "ROW_NULL").stdout
    found = json.loads(command("rejects", "out", "--json").stdout)
    assert (found["rows_rejected"], found["codes"]) == (2, {"ROW_NULL": 2})
    assert [row["kept"]["id"] for row in found["rows"]] == [5, 107]
    by_job = command("rejects", "job.yaml", "--json")
    assert by_job.returncode == 0, by_job.stderr
    assert json.loads(by_job.stdout) == found
    odd = command("rejects", "out", "--option", "anon=true")  # a local folder takes none: `status` says so, too
    same = command("status", "out", "--option", "anon=true")
    assert (odd.returncode, odd.stderr) == (same.returncode, same.stderr)
    assert "No such option" not in odd.stderr
    refused = command("rejects", "out", "--code", "ROW_NUL")
    assert refused.returncode == 2
    assert "there is 'ROW_NULL'" in refused.stderr
    assert "2 rows (2 ROW_NULL)" in command("status", "out").stdout
    assert "998 of 1,000 rows in 1 of 1 part " in (verified := command("verify", "out", "--deep")).stdout
    assert "and 2 in reject files" in verified.stdout

    pq.write_table(table, path, row_group_size=100)  # as it was, without nulls
    again = command(
        "run", "job.yaml", "--only-rejects", "out", "--set", "output.url=again", "--in-process", "--quiet", "--json"
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows"] == 2
    (part,) = (tmp_path / "again").glob("part-*")
    assert pq.read_table(part).to_pydict() == {"id": [5, 107], "y": [4.5, 55.5]}
