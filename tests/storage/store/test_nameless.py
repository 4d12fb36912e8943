"""Documents on a local file system get a name when they are whole: whoever is killed before leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from connectors.store.local import LocalFiles


def test_a_document_that_is_being_written_has_no_name_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(names(tmp_path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    LocalFiles(str(tmp_path)).replace(f"{tmp_path}/receipt.json", b"{}")
    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no nameless files")
    assert seen[0] == []
    assert names(tmp_path) == ["receipt.json"]
    assert (tmp_path / "receipt.json").stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_without_nameless_files_a_document_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    files = LocalFiles(str(tmp_path))
    files.replace(f"{tmp_path}/a", b"1")
    files.replace(f"{tmp_path}/a", b"2")
    assert (files.create(f"{tmp_path}/a", b"3"), files.create(f"{tmp_path}/b", b"4")) == (False, True)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == {"a": b"2", "b": b"4"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
