"""Disks with no room: no second try, a code, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.formats.registry import make_encoder
from connectors.store.client_error import meaning, no_room
from jobs.errors import FullError, OutputError
from jobs.schedule.policy import RETRIED

CODES = {errno.ENOSPC: "DISK_FULL", errno.EDQUOT: "DISK_QUOTA", errno.EROFS: "DISK_READ_ONLY"}


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_what_no_second_try_mends_is_not_tried_again(tmp_path: Path, number: int, code: str) -> None:
    error = OSError(number, os.strerror(number))
    cls, cause, text = meaning(error, OutputError)
    assert (cls, cause) == (FullError, "full")
    assert text.endswith("then run the same command again")
    told = no_room("write to", tmp_path / "spool", error)
    assert told is not None
    assert told.facts["code"] == code
    assert "bytes are free, on host" in told.message
    assert told.failure_class not in RETRIED


def test_another_error_is_none_of_these(tmp_path: Path) -> None:
    assert no_room("write to", tmp_path / "spool", OSError(errno.EIO, "input/output error")) is None


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tfrecord"])
def test_every_format_says_that_its_spool_is_full(tmp_path: Path, kind: str) -> None:
    """Linux' device that is always full; the link alone is removed with the spool."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full")
    spool = tmp_path / "spool"
    spool.symlink_to("/dev/full")
    with pytest.raises(FullError, match="no space is left: free some there") as caught:
        fill(spool, kind)
    assert caught.value.facts["code"] == "DISK_FULL"


def fill(spool: Path, kind: str) -> None:
    schema = pa.schema([("x", pa.int64())])
    writer = make_encoder(kind).open(spool, schema, "none")
    try:
        for start in range(0, 400_000, 100_000):
            writer.write(pa.record_batch([pa.array(range(start, start + 100_000))], schema))
        writer.close({})
    finally:
        writer.abort()
