"""The disk on which a worker makes its parts: a part of its least size must have room."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from jobs.errors import FullError
from jobs.section.output import Output
from runner.worker.room import require_room, row_bytes
from runner.worker.spec import WorkerSpec

SCHEMA = pa.schema(
    [
        *[("id", pa.int64()), ("name", pa.string()), ("tags", pa.list_(pa.int32())), ("yes", pa.bool_())],
        *[("y", pa.fixed_shape_tensor(pa.float32(), (2, 5))), ("at", pa.struct([("x", pa.float64())]))],
    ]
)


def spec(url: Path | str, rows: int = 8000) -> WorkerSpec:
    binding = SimpleNamespace(output_schema=SCHEMA)
    return cast(WorkerSpec, SimpleNamespace(output=Output(url=str(url)), binding=binding, part_rows=rows))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Folder -> the bytes that are free there."""
    places: dict[str, int] = {}
    usage: Any = lambda folder: SimpleNamespace(free=places[str(folder)], total=10**9)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    return places


def test_the_least_width_of_a_row_leaves_out_what_only_values_tell() -> None:
    assert row_bytes(SCHEMA) == 8 + 0 + 0 + 0 + 40 + 8


def test_a_disk_that_holds_the_least_part_will_do_and_one_that_does_not_is_told(
    tmp_path: Path, free: dict[str, int]
) -> None:
    free[str(tmp_path)] = 56_000
    require_room(spec(tmp_path / "out" / "deep"))
    free[str(tmp_path)] = 55_999
    with pytest.raises(FullError, match="55,999 bytes are free there, and the largest part, of 8,000 rows") as caught:
        require_room(spec(tmp_path / "out" / "deep"))
    assert caught.value.facts["code"] == "DISK_FULL"
    assert "shard_rows" in caught.value.message


def test_parts_for_a_store_are_made_in_the_temporary_folder(tmp_path: Path, free: dict[str, int]) -> None:
    free[tempfile.gettempdir()] = free[str(Path(tempfile.gettempdir()) / ".savedmodel-runner-0")] = 0
    with pytest.raises(FullError, match="set TMPDIR to a folder with more"):
        require_room(spec("s3://bucket/out", rows=1))
