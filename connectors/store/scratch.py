"""Scratch folders on the disk of this machine, and the end of those whose process died.

Every process has one folder below `<temporary folder>/.savedmodel-runner-<user>`, and a lock that the operating system
lets go of when the process ends, however it ends. Its name is hidden, so that what lies there is never taken for input.
Refuses to know what is kept there. The invariant: a folder whose
owner lives is never removed, and one whose owner is gone goes when the next process of this user needs scratch space.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from jobs.errors import JobError

_LOCK_S = 10.0  # renaming and making folders takes milliseconds: a process that holds the lock for longer is stopped
_DEAD = "dead-"


def scratch_folder(name: str) -> Path:
    """A fresh folder that only this user can read (0700). name: the beginning of its own name, for people."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_home(tempfile.gettempdir())))


def lasting_folder(name: str) -> Path | None:
    """A folder of this user alone in the temporary folder, which outlives this process.

    name:    what is kept there.
    returns: None where another user has put something there.
    """
    folder = Path(tempfile.gettempdir()) / f"savedmodel-runner-{name}-{os.getuid()}"
    return folder if _ours(folder) else None


def expanded(path: str) -> Path:
    """With the home folder for `~`. raises: JobError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise JobError(
            f"cannot use {path!r}: this user has no home folder here; set HOME, or name the path from '/'"
        ) from None


def scratch_home() -> Path:
    """Where scratch folders are made, if there are any."""
    return _above(tempfile.gettempdir())


@lru_cache
def _home(temporary: str) -> Path:
    """The folder of this process, made and locked; those of dead processes are removed first."""
    above = _above(temporary)
    if not _ours(above):
        return Path(tempfile.mkdtemp(prefix=".savedmodel-runner-"))
    try:
        with FileLock(above / "lock", timeout=_LOCK_S):
            dead = [_renamed(folder) for folder in above.iterdir() if folder.is_dir() and _ownerless(folder)]
            home = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=above))
            lock = FileLock(_lock_of(home), timeout=0)
            lock.acquire()
            _held.append(lock)
            atexit.register(_leave, home)
    except Timeout:
        return Path(tempfile.mkdtemp(prefix=".savedmodel-runner-"))
    for folder in dead:  # outside the lock: it may be gigabytes
        shutil.rmtree(folder, ignore_errors=True)
    return home


def _above(temporary: str) -> Path:
    return Path(temporary) / f".savedmodel-runner-{os.getuid()}"


_held: list[FileLock] = []  # for as long as this process lives


def _leave(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    _lock_of(home).unlink(missing_ok=True)


def _ours(above: Path) -> bool:
    """Whether `above` is a folder of this user alone: in a temporary folder for all, others may have put it there."""
    with suppress(FileExistsError):
        above.mkdir(mode=0o700)
    about = above.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _ownerless(folder: Path) -> bool:
    if folder.name.startswith(_DEAD):
        return True  # the process that was to remove it died
    lock = FileLock(_lock_of(folder), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return False
    lock.release()
    return True


def _renamed(folder: Path) -> Path:
    """Out of the way, so that no other process removes it too."""
    if folder.name.startswith(_DEAD):
        return folder
    _lock_of(folder).unlink(missing_ok=True)
    return folder.rename(folder.with_name(_DEAD + folder.name))
