"""What an older version left on a store is continued by this one: same plan, same names, nothing computed again.

`tests/data/begun_by_faa9e72` holds a model, its input and an output directory as commit faa9e72 left it, interrupted
after the first of eight shards. On an S3 server a file's version is its content, so the plan is the same anywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from store_servers import moto_server, new_bucket

BEGUN = Path(__file__).parents[1] / "data" / "begun_by_faa9e72"
PLAN = "385fd042583615a6d7acb087eacbc0d7"
FIRST = "part-00000-of-00008-385fd042.parquet"
KEYS = {"KEY": "test", "SECRET": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Any]:
    """A file system with the bucket `lake` as it was left; `job.yaml` names it."""
    pytest.importorskip("moto", reason="the S3 server for tests is not installed: moto[server]")
    with moto_server(sys.executable) as endpoint:
        new_bucket(endpoint, "lake")
        files = fsspec.filesystem("s3", endpoint_url=endpoint, key="test", secret="test", skip_instance_cache=True)
        for path in sorted(
            path for name in ("input", "output") for path in (BEGUN / name).rglob("*") if path.is_file()
        ):
            name = path.relative_to(BEGUN).as_posix().replace("output/", "scores/", 1)
            files.pipe_file(f"lake/{name}", path.read_bytes())
        options = {"endpoint_url": endpoint, "key": "env:KEY", "secret": "env:SECRET"}
        job = {
            "model": {"url": str(BEGUN / "model"), "signature": "slow"},
            "input": {"url": "s3://lake/input/*.parquet", "options": options},
            "columns": {"keep": ["id"]},
            "output": {"url": "s3://lake/scores", "options": options},
            "limits": {"shard_rows": 50, "batch_rows": 10},
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
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

    proven = command("verify", "job.yaml", "--deep", "--json", **KEYS)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    again = command("run", "job.yaml", "--in-process", "--json", **KEYS)
    assert json.loads(again.stdout)["rows_run"] == 0, again.stderr
