"""Local files: what the operating system gives, used so that a name appears whole, once, and survives a crash.

Knows nothing of URLs or formats. The invariant: content is complete and on disk before it gets its final name, and
a name that exists is never replaced except by `replace`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar, cast

import pyarrow.fs as pa_fs

from connectors.store.files import Fetch, Files, OpenFile
from connectors.store.listing import Child, FileStat, Parts, Pattern, hidden, placeholder, refuse_changed, walk
from jobs.errors import InputError, OutputError

T = TypeVar("T")

# What file systems answer that know no hard links (exFAT, some FUSE and network mounts).
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}
NO_REFUSING_RENAME = "NO_REFUSING_RENAME"
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


class LocalFile(FileIO):
    """An `OpenFile`. It stays open whatever gets its name meanwhile: only what is written into itself changes it.

    Unbuffered: readers ask for large pieces here, and hold them themselves.
    """

    def __init__(self, path: str) -> None:
        """raises: InputError FILE_SPECIAL for what is no file, such as a pipe."""
        if kind := _special(Path(path).stat().st_mode):  # looked at first: who opens a pipe waits for its other end
            raise InputError(f"cannot read '{path}': it is {kind}, no regular file", code="FILE_SPECIAL", file=path)
        super().__init__(path)
        self.path, self.seen = path, _status(path, os.fstat(self.fileno()))

    def settle(self) -> None:
        with suppress(OSError):
            os.close(os.open(self.path, os.O_RDONLY))  # NFS asks its server about a file that is opened, at once
        refuse_changed(self.seen, _status(self.path, os.fstat(self.fileno())), "while it was read")


class LocalFiles(Files):
    """The file system of this machine. root: absolute; nothing is written outside it."""

    local = True

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def using(self, call: Callable[[], T]) -> T:
        return call()

    def arrow(self) -> pa_fs.FileSystem:
        return pa_fs.LocalFileSystem()

    def key(self, path: str) -> str:
        return os.path.realpath(path)

    # reading

    def is_folder(self, path: str) -> bool:
        return Path(path).is_dir()

    def stat(self, path: str) -> FileStat | None:
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if stat.S_ISDIR(status.st_mode) else _status(path, status)

    def modified(self, path: str) -> float | None:
        return Path(path).stat().st_mtime

    def children(self, path: str) -> Sequence[Child]:
        try:
            return [*_entries(path)]
        except FileNotFoundError:
            return []

    def tree(self, pattern: Pattern) -> Iterator[tuple[Parts, FileStat]]:
        return walk(pattern, _inputs) if Path(pattern.folder or "/").is_dir() else iter(())

    def open(self, path: str, fetch: Fetch, look: Callable[[], FileStat | None]) -> OpenFile:
        return cast(OpenFile, LocalFile(path))

    def fetch(self, path: str, start: int, stop: int, pin: str = "") -> bytes:
        with FileIO(path) as file:
            file.seek(start)
            return file.read(stop - start)

    def read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None

    # writing

    def create(self, path: str, content: bytes) -> bool:
        temporary = self._temporary(path, content)
        try:
            return _place(temporary, Path(path))
        finally:
            temporary.unlink(missing_ok=True)

    def replace(self, path: str, content: bytes) -> None:
        temporary = self._temporary(path, content)
        try:
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def publish(self, spool: Path, path: str, staged: str, part_bytes: int | None = None) -> bool:
        self._folder(Path(path))
        _sync_file(spool)
        return _place(spool, Path(path))

    def upload(self, spool: Path, path: str) -> None:
        """Move the spool, which is on the file system of the output already, to `path` if it is not there."""
        _sync_file(spool)
        if spool != Path(path):
            self._folder(Path(path))
            spool.replace(path)
        _sync_folder(Path(path).parent)

    def promote(self, staged: str, path: str) -> bool:
        self._folder(Path(path))
        try:
            return _place(Path(staged), Path(path))
        except OutputError as error:
            if error.facts.get("code") != NO_REFUSING_RENAME:
                raise
        if Path(path).exists():  # staged mode has one driver at a time
            return False
        Path(staged).rename(path)
        _sync_folder(Path(path).parent)
        return True

    def spool(self, path: str) -> Path | None:
        """On the file system of the output, so that a link can publish from it."""
        folder = self._folder(Path(path)) / Path(path).name
        folder.mkdir(mode=0o700)
        return folder

    def remove(self, path: str) -> None:
        Path(path).unlink()

    def sweep(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def _folder(self, path: Path) -> Path:
        """Create the folder of `path`. raises: OutputError if a link below the root leads elsewhere."""
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = Path(os.path.realpath(self._root), path.parent.relative_to(self._root))
        if Path(os.path.realpath(path.parent)) != expected:
            raise OutputError(
                f"cannot write '{path}': its folder is a symbolic link; links below an output are not followed"
            )
        return path.parent

    def _temporary(self, path: str, content: bytes) -> Path:
        # Not `tempfile`: its files are private (0600), and these become documents that others may read.
        folder = self._folder(Path(path))
        temporary = folder / f".{Path(path).name}.{uuid.uuid4().hex[:12]}"
        if _write_nameless(content, folder, temporary):
            return temporary
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _special(mode: int) -> str:
    """What there is at a name instead of a file or a folder, in words; ""."""
    return _SPECIAL.get(stat.S_IFMT(mode), "")


def _status(path: str, status: os.stat_result) -> FileStat:
    return FileStat(path, status.st_size, str(status.st_mtime_ns))


def _entries(path: str) -> Iterator[Child]:
    with os.scandir(path or "/") as entries:
        for entry in entries:
            if entry.is_dir():
                yield Child(entry.name, folder=True)
                continue
            try:
                status = entry.stat()  # of what is no file too, such as a pipe: whoever opens it says so
            except FileNotFoundError:
                if entry.is_symlink():
                    yield Child(entry.name, False)
            else:
                yield Child(entry.name, False, status.st_size, str(status.st_mtime_ns))


def _inputs(path: str) -> Iterator[Child]:
    """The entries, without links back to a folder above: they would never end.

    raises: InputError for a link that leads nowhere: leaving it out would be a file less.
    """
    above = os.path.realpath(path or "/")
    for child in _entries(path):
        if child.folder and Path(path, child.name).is_symlink():
            target = os.path.realpath(Path(path, child.name))
            if above == target or above.startswith(target.rstrip("/") + "/"):
                continue
        if not child.folder and child.version and placeholder(child.name, child.size):
            continue
        if not (child.folder or child.version or hidden((child.name,))):
            raise InputError(f"cannot read '{path}/{child.name}': it is a symbolic link that leads nowhere")
        yield child


def _write_nameless(content: bytes, folder: Path, name: Path) -> bool:
    """Write a file that gets its name when it is on disk: a process that is killed before leaves nothing.

    returns: False where the system or the file system does not know such files, and nothing was done.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except (AttributeError, OSError):
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        try:
            # A folder's descriptor makes this `linkat`, which follows the link in /proc to the file itself.
            os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor, follow_symlinks=True)
        except OSError:
            return False
    return True


def _place(source: Path, final: Path) -> bool:
    """Give a finished file its final name, unless the name is taken. False: it was taken; `source` is still there."""
    try:
        os.link(source, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _rename_new(source, final):
            return False
    _sync_folder(final.parent)
    source.unlink(missing_ok=True)
    return True


def _rename_new(source: Path, final: Path) -> bool:
    """Rename without replacing, for file systems without hard links. Linux only; elsewhere the output is refused."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE) == 0:
            return True
        if ctypes.get_errno() == errno.EEXIST:
            return False
    raise OutputError(
        f"cannot write '{final}': its file system has neither hard links nor a rename that refuses to replace, so that "
        "two workers could overwrite each other; choose another output",
        code=NO_REFUSING_RENAME,
    )


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut; file systems that cannot are left as they are."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
