"""What an older version left on a store is continued by this one: same plan, same names, nothing computed again.

`tests/data/begun_by_faa9e72` holds a model, its input and an output directory as commit faa9e72 left it, interrupted
after the first of eight shards; `rejects_of_faa9e72` another input and output of that model, interrupted after two
shards with a rejected row each; `begun_by_ae23959` the same of the last commit that wrote rows of one value as tensors
and strings as bytes, after two. On an S3 server a file's version is its content, so the plan is the same anywhere.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from store_servers import moto_server, new_bucket

from jobs.versions import installed

DATA = Path(__file__).parents[1] / "data"
BEGUN, REJECTS = DATA / "begun_by_faa9e72", DATA / "rejects_of_faa9e72"
PLAN = "385fd042583615a6d7acb087eacbc0d7"
FIRST = "part-00000-of-00008-385fd042.parquet"
SINGLES = Path(__file__).parents[1] / "data" / "begun_by_ae23959"
SINGLES_PLAN = "958957143522423812181ae8358da534"
KEYS = {"KEY": "test", "SECRET": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def lake(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    begun, limits = getattr(request, "param", (BEGUN, {}))
    with left(begun, tmp_path, limits, signature="slow") as files:
        yield files


@pytest.fixture
def singles(tmp_path: Path) -> Iterator[Any]:
    with left(SINGLES, tmp_path, {}) as files:
        yield files


@contextmanager
def left(begun: Path, folder: Path, limits: dict[str, Any], **model: str) -> Iterator[Any]:
    """A file system with the bucket `lake` as it was left; `job.yaml` names it."""
    pytest.importorskip("moto", reason="the S3 server for tests is not installed: moto[server]")
    with moto_server(sys.executable) as endpoint:
        new_bucket(endpoint, "lake")
        files = fsspec.filesystem("s3", endpoint_url=endpoint, key="test", secret="test", skip_instance_cache=True)
        for path in sorted(
            path for name in ("input", "output") for path in (begun / name).rglob("*") if path.is_file()
        ):
            name = path.relative_to(begun).as_posix().replace("output/", "scores/", 1)
            files.pipe_file(f"lake/{name}", path.read_bytes())
        options = {"endpoint_url": endpoint, "key": "env:KEY", "secret": "env:SECRET"}
        job = {
            "model": {"url": str((begun if begun == SINGLES else BEGUN) / "model")} | model,
            "input": {"url": "s3://lake/input/*.parquet", "options": options},
            "columns": {"keep": ["id"]},
            "output": {"url": "s3://lake/scores", "options": options},
            "limits": {"shard_rows": 50, "batch_rows": 10} | limits,
        }
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        yield files


def test_a_run_begun_by_commit_faa9e72_is_continued_where_it_stopped(lake: Any, command: Callable[..., Any]) -> None:
    before = command("status", "job.yaml", "--json", **KEYS)
    assert json.loads(before.stdout)["state"] == "stopped", before.stderr

    ran = command("run", "job.yaml", "--in-process", "--json", **KEYS)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["plan_id"], result["rows"], result["rows_run"]) == (PLAN, 400, 350)

    assert lake.cat_file(f"lake/scores/{FIRST}") == (BEGUN / "output" / FIRST).read_bytes()
    parts = [pq.read_table(lake.open(name)) for name in sorted(lake.glob("lake/scores/part-*"))]
    table = pa.concat_tables(parts)
    assert table["id"].to_pylist() == list(range(400))
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(400, dtype=np.float32) / 2 + 2)

    success = json.loads(lake.cat_file("lake/scores/_SUCCESS"))
    manifest = json.loads(lake.cat_file(f"lake/scores/{success['manifest']}"))
    assert manifest["versions"] == [{}, installed().document()], "what the old version did not record stays unknown"
    assert [part.get("versions", 0) for part in manifest["parts"]] == [0] + [1] * 7
    report = json.loads(lake.cat_file(f"lake/scores/_run/{PLAN[:8]}/report.json"))
    assert (report["rows_run"], report["rows_before"]) == (350, 50)
    assert report["worker_versions"] == [installed().document() | {"workers": ["w1"]}]
    assert report["versions"] == installed().document()
    again = json.loads(lake.cat_file(f"lake/scores/_run/{PLAN[:8]}/epochs/000002.json"))
    assert again["versions"] == installed().document()

    proven = command("verify", "job.yaml", "--deep", "--json", **KEYS)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    again = command("run", "job.yaml", "--in-process", "--json", **KEYS)
    assert json.loads(again.stdout)["rows_run"] == 0, again.stderr


rejecting = pytest.mark.parametrize(
    "lake", [(REJECTS, {"on_bad_row": "reject", "max_rejected_rows": 8})], indirect=True
)
BAD = [shard * 50 + 7 for shard in range(8)]  # one row of each shard has no value


def _output_of(command: Callable[..., Any], *arguments: str) -> Any:
    done = command(*arguments, "--json", **KEYS)
    assert done.returncode in (0, 3, 4, 65), done.stdout + done.stderr
    return json.loads(done.stdout)


@rejecting
def test_what_commit_faa9e72_rejected_is_shown_verified_and_swept_around(
    lake: Any, command: Callable[..., Any]
) -> None:
    assert _output_of(command, "status", "job.yaml")["state"] == "stopped"
    rejected = _output_of(command, "rejects", "job.yaml")
    assert [(row["row"], row["kept"]["id"], row["code"]) for row in rejected["rows"]] == [
        (7, 7, "ROW_NULL"),
        (7, 57, "ROW_NULL"),
    ]
    proof = _output_of(command, "verify", "job.yaml", "--deep")
    assert (proof["rows_found"], proof["rows_rejected"], proof["parts_found"]) == (98, 2, 2)
    assert {problem["kind"] for problem in proof["problems"]} == {"unfinished", "missing"}
    before = lake.find("lake/scores")
    assert command("sweep", "job.yaml", **KEYS).returncode == 0
    lake.invalidate_cache()
    assert lake.find("lake/scores") == before


@rejecting
def test_rejects_of_two_versions_stand_in_one_output(lake: Any, command: Callable[..., Any]) -> None:
    result = _output_of(command, "run", "job.yaml", "--in-process")
    assert result["plan_id"] == json.loads(next((REJECTS / "output").rglob("plan.json")).read_text())["plan_id"]
    assert (result["rows"], result["rows_run"], result["codes"]) == (392, 300, {"ROW_NULL": 8})
    names = [name.rpartition(".")[2] for name in sorted(lake.glob("lake/scores/_run/161ef9a7/rejects/*"))]
    assert names == ["parquet"] * 2 + ["rejects"] * 6
    assert [row["kept"]["id"] for row in _output_of(command, "rejects", "job.yaml")["rows"]] == BAD

    success = json.loads(lake.cat_file("lake/scores/_SUCCESS"))
    manifest = lake.cat_file(f"lake/scores/{success['manifest']}")
    assert hashlib.sha256(manifest).hexdigest() == success["manifest_sha256"]
    assert success["rows_rejected"] == 8
    proof = _output_of(command, "verify", "job.yaml", "--deep")
    assert (proof["holds"], proof["rows_found"], proof["rows_rejected"]) == (True, 392, 8)
    assert _output_of(command, "status", "job.yaml")["state"] == "finished"

    scored = ("--set", "output.url=s3://lake/again", "--set", "columns.inputs.x={column: x, null: {fill: 0}}")
    again = command("run", "job.yaml", "--only-rejects", "s3://lake/scores", *scored, "--in-process", "--json", **KEYS)
    assert json.loads(again.stdout or "{}").get("rows") == 8, again.stderr
    lake.invalidate_cache()
    parts = [pq.read_table(lake.open(name)) for name in sorted(lake.glob("lake/again/part-*"))]
    assert pa.concat_tables(parts)["id"].to_pylist() == BAD


def written(lake: Any) -> pa.Table:
    """raises: ArrowInvalid where two parts are of two schemas."""
    lake.invalidate_cache()
    return pa.concat_tables([pq.read_table(lake.open(name)) for name in sorted(lake.glob("lake/scores/part-*"))])


def test_tensors_of_one_value_and_bytes_that_were_begun_go_on_as_they_were(
    singles: Any, command: Callable[..., Any]
) -> None:
    planned = json.loads(command("plan", "job.yaml", "--json", **KEYS).stdout)
    assert planned["plan_id"] == SINGLES_PLAN
    assert "binary" in planned["output_schema"]["label"]
    story = "an older version began this output, and it goes on by the rules of that version"
    assert [story in warning for warning in planned["warnings"]] == [True]

    ran = command("run", "job.yaml", "--in-process", "--json", **KEYS)
    assert ran.returncode == 0, ran.stderr
    assert "".join(ran.stderr.split()).count("".join(story.split())) == 1
    result = json.loads(ran.stdout)
    assert (result["plan_id"], result["rows"], result["rows_run"]) == (SINGLES_PLAN, 400, 300)
    table = written(singles)
    assert table.schema.types == [pa.int64(), pa.binary(), pa.fixed_shape_tensor(pa.float32(), (1,))]
    assert table["label"].to_pylist() == [b"row %d" % row for row in range(400)]
    assert command("verify", "job.yaml", "--deep", **KEYS).returncode == 0

    again = command("run", "job.yaml", "--in-process", **KEYS)
    assert "already done" in again.stdout
    assert story not in " ".join(again.stderr.split())


def test_overwriting_what_was_begun_takes_the_rules_of_today(singles: Any, command: Callable[..., Any]) -> None:
    ran = command("run", "job.yaml", "--in-process", "--overwrite", "--json", **KEYS)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["plan_id"] == SINGLES_PLAN, result["rows_run"]) == (False, 400)
    table = written(singles)
    assert table.schema.types == [pa.int64(), pa.string(), pa.float32()]
    assert table["y"].to_pylist() == [row / 2 + 2 for row in range(400)]
    planned = json.loads(command("plan", "job.yaml", "--json", **KEYS).stdout)
    assert (planned["plan_id"], planned["warnings"]) == (result["plan_id"], [])
