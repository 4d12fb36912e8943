"""A document below the output that is no such document ends a command with an error of ours, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from three_shards import PLAN, finish_all, killed, opened, snapshot, work

from connectors.formats.spool import HEADER_KEY
from connectors.output.look.sweep import sweep
from connectors.output.reject import read_rejected
from connectors.output.status import read_status
from connectors.output.verification import verify
from jobs.errors import RunnerError
from jobs.section.output import Output

LOOKS: list[Callable[[Output], Any]] = [verify, read_status, sweep, read_rejected]
NESTED = b"[" * 100_000 + b"]" * 100_000


def damages(content: bytes) -> Iterator[bytes]:
    """No object, one without keys, one cut off, and the document with one key that is of another kind."""
    yield from (
        NESTED,
        b'{"v": ' + NESTED + b"}",
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        content[: len(content) // 2],
    )
    document = json.loads(content)
    for key, value in document.items():
        for other in (None, [value], {"a": 1}):
            yield json.dumps(document | {key: other}).encode()


@pytest.mark.parametrize("ending", ["finished", "killed"])
def test_whatever_stands_in_a_document_no_command_ends_with_an_unforeseen_error(ending: str, tmp_path: Path) -> None:
    out = Output(url=str(tmp_path / "out"))
    directory = opened(out)
    if ending == "finished":
        finish_all(directory)
    else:
        directory.claim(PLAN)
        work(directory, 1)
        killed(directory)
    documents = [name for name, content in snapshot(directory).items() if content and content[:1] == b"{"]
    assert len(documents) >= (6 if ending == "finished" else 2)
    unforeseen = []
    for name in documents:
        path = tmp_path / "out" / name
        content = path.read_bytes()
        for damaged in damages(content):
            path.write_bytes(damaged)
            for look in (*LOOKS, lambda out: opened(out).claim(PLAN)):
                try:
                    look(out)
                except RunnerError:
                    pass
                except Exception as error:
                    unforeseen.append(f"{name} as {damaged[:60]!r}: {look.__name__}: {error!r}"[:300])
        path.write_bytes(content)
    assert not unforeseen, "\n".join(dict.fromkeys(unforeseen))


@pytest.mark.parametrize(
    "header", [NESTED, b"[]", b"{}", b"{", b"[[1, 2]]", b'{"shard": [], "rows_in": "x", "inputs": 3}']
)
def test_a_part_with_another_commit_header_is_named(header: bytes, tmp_path: Path) -> None:
    out = Output(url=str(tmp_path / "out"))
    directory = opened(out)
    finish_all(directory)
    part = tmp_path / "out" / directory.part_name(1)
    table = pq.read_table(part)
    with pq.ParquetWriter(part, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({HEADER_KEY: header})
    assert directory.part_name(1) in {problem.name for problem in verify(out).problems}
    with pytest.raises(RunnerError, match=directory.part_name(1)):
        opened(out).published(PLAN)
