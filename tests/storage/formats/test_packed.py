"""The bytes of packed text files, in bounded blocks."""

from __future__ import annotations

import tracemalloc
from itertools import chain

import pyarrow as pa
import pytest

from connectors.formats.buffered import BufferedFile
from connectors.formats.text import packed
from connectors.formats.text.packed import BLOCK_BYTES, CODECS, blocks, codec_of, with_packed
from jobs.errors import InputError

ROWS = b"".join(b"%d,%d\n" % (n, n * n) for n in range(100_000))
SUFFIXES = sorted(CODECS)


def packed_as(suffix: str, content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, CODECS[suffix]) as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def file_of(path, content: bytes) -> BufferedFile:
    path.write_bytes(content)
    return BufferedFile(path.open("rb"), str(path), len(content))


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_a_part_of_a_file_is_the_same_packed_or_not(tmp_path, suffix):
    content = packed_as(suffix, ROWS) if suffix else ROWS
    with file_of(tmp_path / f"a.CSV{suffix.upper()}", content) as file:
        assert b"".join(blocks(file)) == ROWS
        for start, stop in ((0, 5), (7, BLOCK_BYTES + 9), (BLOCK_BYTES, 3 * BLOCK_BYTES), (len(ROWS) - 2, None)):
            parts = list(blocks(file, start, stop))
            assert b"".join(parts) == ROWS[start:stop]
            assert all(0 < len(part) <= BLOCK_BYTES for part in parts)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".br"])
def test_packed_files_may_be_joined(tmp_path, suffix):
    with file_of(tmp_path / f"a.csv{suffix}", packed_as(suffix, b"1\n") + packed_as(suffix, b"2\n")) as file:
        assert b"".join(blocks(file)) == b"1\n2\n"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("damage", "code"), [("cut", "FILE_TRUNCATED"), ("other", "FILE_CORRUPT")])
def test_a_damaged_file_is_told_with_its_name(tmp_path, suffix, damage, code):
    whole = packed_as(suffix, ROWS)
    content = whole[:-5] if damage == "cut" else b"a,b\n1,2\n" * 100
    with file_of(tmp_path / f"a.csv{suffix}", content) as file, pytest.raises(InputError) as caught:
        list(blocks(file))
    assert caught.value.facts["code"] == code
    assert "a.csv" in str(caught.value)


def test_a_small_file_that_unpacks_far_comes_in_blocks(tmp_path):
    with file_of(tmp_path / "a.csv.gz", packed_as(".gz", bytes(64 * 2**20))) as file:
        tracemalloc.start()
        total = sum(map(len, blocks(file)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total == 64 * 2**20
    assert peak < 4 * 2**20


def test_bytes_are_fetched_in_few_large_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_AHEAD_BYTES", 2**17)
    content = packed_as(".bz2", bytes(chain.from_iterable(n.to_bytes(3) for n in range(300_000))))
    reads = []
    with file_of(tmp_path / "a.csv.bz2", content) as file:
        fetch = file._read_into
        monkeypatch.setattr(file, "_read_into", lambda start, to: reads.append(len(to)) or fetch(start, to))
        list(blocks(file))
    assert len(reads) == -(-len(content) // 2**17)


def test_suffixes_of_packed_files_stand_behind_those_of_the_format():
    assert with_packed([".csv", ".tsv"])[:2] == (".csv", ".tsv")
    assert {".csv.gz", ".tsv.zst"} < set(with_packed([".csv", ".tsv"]))
    assert codec_of("s3://bucket/A.CSV.GZ") == "gzip"
    assert codec_of("a.csv") is None
