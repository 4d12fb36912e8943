"""A client of a store that this code has never heard of: what fsspec asks of one, and no more."""

from __future__ import annotations

import datetime
import io
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from fsspec import AbstractFileSystem, register_implementation
from fsspec.registry import _registry

SCHEME = "plain"


class _Whole(io.BytesIO):
    """It is seen when it is closed, as on most stores."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            written = self._path.with_name(f".{uuid.uuid4().hex}")
            written.write_bytes(self.getvalue())
            written.rename(self._path)
        super().close()


class PlainFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A folder of this machine, as a store for which `plain://` stands. One thread at a time: it counts them."""

    protocol = SCHEME
    root: ClassVar[Path]
    inside: ClassVar[int] = 0

    def _here(self, path: str) -> Path:
        return self.root / self._strip_protocol(path).lstrip("/")

    def _entry(self, path: Path) -> dict[str, Any]:
        name, about = path.relative_to(self.root).as_posix(), path.stat()
        kind = "directory" if path.is_dir() else "file"
        return {"name": name, "size": about.st_size, "type": kind, "modify": str(about.st_mtime_ns)}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        here = self._here(path)
        if not here.exists():
            raise FileNotFoundError(path)
        entries = [self._entry(one) for one in (here.iterdir() if here.is_dir() else [here])]
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return self._entry(self._here(path))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self.inside += 1
        time.sleep(0.0001)  # another thread would come in
        assert self.inside == 1, "it is written for one thread"
        try:
            return _Whole(self._here(path)) if mode == "wb" else self._here(path).open(mode)
        finally:
            self.inside -= 1

    def modified(self, path: str) -> Any:
        return datetime.datetime.fromtimestamp(self._here(path).stat().st_mtime, datetime.UTC)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._here(path).mkdir(parents=True, exist_ok=exist_ok)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        shutil.copyfile(self._here(path1), self._here(path2))

    def rm_file(self, path: str) -> None:
        here = self._here(path)
        if here.is_dir():  # `rm` of fsspec's own comes by here, too
            here.rmdir()
        else:
            here.unlink()


@contextmanager
def registered(root: Path, cls: type[PlainFileSystem] = PlainFileSystem) -> Iterator[str]:
    """The url of an empty folder, for as long as fsspec knows its scheme."""
    root.mkdir()
    client = type(cls.__name__, (cls,), {"root": root})
    register_implementation(SCHEME, client, clobber=True)
    try:
        yield f"{SCHEME}://"
    finally:
        del _registry[SCHEME]
