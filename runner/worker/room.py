"""What room there is: how much memory a process really holds, and whether that is too much for it to go on; and whether
the disk on which a worker makes its parts can hold one.

The invariant: no job is refused that a disk could have carried.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from connectors.store.connect import absolute, scheme_of
from connectors.store.scratch import scratch_home
from jobs.errors import FullError, MemoryLimitError
from runner.worker.spec import WorkerSpec

_PAGE = os.sysconf("SC_PAGE_SIZE")
# Above this share of its memory a worker is replaced between two shards: what one more shard takes must fit too.
_FULL = 0.9
_COMPRESSED = 8  # numbers seldom get smaller than this part of what they were; scores hardly get smaller at all


def resident_bytes(pid: int | str = "self") -> int:
    """Of a process, in RAM; 0 where the system does not tell (it is Linux that does), or there is no such process."""
    return _pages(pid, 1) * _PAGE


def address_space_bytes() -> int:
    """Of this process, used or not; 0 where the system does not tell."""
    return _pages("self", 0) * _PAGE


def _pages(pid: int | str, field: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[field])
    except (OSError, ValueError, IndexError):
        return 0


def available_bytes() -> int:
    """What this machine, or the container that we are in, has to give; 0 where the system does not tell."""
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    with suppress(OSError, ValueError):  # "max" where there is no limit
        used, most = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("current", "max"))
        free.append(max(0, most - used))
    return min(free, default=0)


class MemoryLimit:
    """What one worker may hold. limit: bytes; None: as much as there is."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit

    def check_start(self) -> None:
        """raises: MemoryLimitError where the loaded model alone is too much: no shard would ever fit."""
        held = resident_bytes()
        if self._limit is not None and held > _FULL * self._limit:
            raise MemoryLimitError(
                f"a worker holds {mebibytes(held)} with nothing but the model loaded; `workers.memory` allows"
                f" {mebibytes(self._limit)}; raise it"
            )

    def excess(self) -> str:
        """Why this process should be replaced now; "" where it need not."""
        held = resident_bytes()
        if self._limit is None or held <= _FULL * self._limit:
            return ""
        return f"it held {mebibytes(held)} of {mebibytes(self._limit)}"


def mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def require_room(spec: WorkerSpec) -> None:
    """raises: FullError where not even a part of its least size has room."""
    local = scheme_of(spec.output.url) == "file"
    folder = Path(absolute(spec.output.url).removeprefix("file://")) if local else scratch_home()
    place = next(there for there in (folder, *folder.parents) if there.is_dir())
    free = shutil.disk_usage(place).free
    least = spec.part_rows * row_bytes(spec.binding.output_schema) // _COMPRESSED
    if free >= max(1, least):
        return
    way = "free some" if local else "free some, or set TMPDIR to a folder with more"
    raise FullError(
        f"cannot make parts in '{place}' on host '{os.uname().nodename}': {free:,} bytes are free there, and the"
        f" largest part, of {spec.part_rows:,} rows, takes {least:,} at least; {way}, or make parts smaller:"
        " 'limits: {shard_rows: ...}'",
        code="DISK_FULL",
    )


def row_bytes(schema: pa.Schema) -> int:
    """The bytes of one row before compression, without those that only its values tell."""
    return sum(_width(field.type) for field in schema)


def _width(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _width(kind.storage_type)
    if pa.types.is_struct(kind):
        return sum(_width(field.type) for field in kind)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    try:
        return int(kind.bit_width) // 8
    except ValueError:  # texts, lists
        return 0
