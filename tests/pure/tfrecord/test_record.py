"""Records as TFRecord files frame them, read without their checksums."""

from __future__ import annotations

import io

import pytest

from connectors.formats.tfrecord.record import CutError, unchecked


def frame(record: bytes, length: int | None = None) -> bytes:
    """A record whose checksums are wrong."""
    return (len(record) if length is None else length).to_bytes(8, "little") + b"none" + record + b"none"


def test_records_are_read_one_by_one_whatever_their_checksums() -> None:
    file = io.BytesIO(frame(b"one") + frame(b"") + frame(b"three" * 100))
    found = unchecked(file, 2**31)
    assert next(found) == b"one"
    assert file.tell() == len(frame(b"one"))
    assert [*found] == [b"", b"three" * 100]
    assert [*unchecked(io.BytesIO(b""), 2**31)] == []


@pytest.mark.parametrize(
    "end",
    [b"\x05", frame(b"five")[:11], frame(b"five")[:12], frame(b"five")[:14], frame(b"five")[:-1], frame(b"", 2**63)],
    ids=["length", "its checksum", "no record", "half a record", "last checksum", "any length"],
)
def test_what_is_cut_off_comes_as_an_error_behind_the_whole_records(end: bytes) -> None:
    found = unchecked(io.BytesIO(frame(b"whole") + end), 2**31)
    assert next(found) == b"whole"
    with pytest.raises(CutError):
        next(found)


def test_a_record_of_the_most_bytes_is_not_read() -> None:
    assert [*unchecked(io.BytesIO(frame(b"four")), 5)] == [b"four"]
    with pytest.raises(CutError):
        next(unchecked(io.BytesIO(frame(b"four")), 4))
