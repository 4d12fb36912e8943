"""Rows that tell where they came from, and the check that each of them is in an output exactly once.

Every row carries (file, row), and x = 1000 * file + row, so that y = x / 2 + 2 tells loss, duplication, misalignment
and reordering apart: a row that is missing, twice, in another place, or next to the answer of another row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.output.layout import SUCCESS, Layout, decode
from connectors.store.store import Store
from jobs.plan import Plan

ROWS = 1000  # of a file, at most: then every x is different, and exact as a float32


def write_rows(folder: Path, files: int = 2, rows: int = 400, row_group: int = 50) -> Path:
    """`files` Parquet files of `rows` rows."""
    assert rows <= ROWS
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        write_file(folder / f"rows-{number:03d}.parquet", number, rows, row_group)
    return folder


def write_file(path: Path, number: int, rows: int, row_group: int = 50, column: str = "x") -> None:
    index = np.arange(rows, dtype=np.int32)
    file = np.full(rows, number, dtype=np.int32)
    table = pa.table({"file": file, "row": index, column: (ROWS * file + index).astype(np.float32)})
    pq.write_table(table, path, row_group_size=row_group)


def require_exactly_once(
    url: str, files: int, rows: int, options: Mapping[str, Any] | None = None, first: int = 0
) -> dict[int, dict[str, Any]]:
    """What storage alone shows of the output is right: I1 to I6, the rows, and no leftovers; returns the headers.

    first: the number of the first file.
    """
    store = Store(url, options)
    top = store.sizes("")
    success = decode(store.read(SUCCESS))
    assert success is not None, f"no {SUCCESS} in {url}: {sorted(top)}"
    names = Layout(success["plan_id"])
    plan = Plan.from_document(decode(store.read(names.plan)) or {})
    manifest = decode(store.read(success["manifest"]))
    assert manifest is not None, "I4: the manifest that _SUCCESS names is there"

    parts = sorted(name for name in top if name != SUCCESS)
    expected = [Layout(plan.id, len(plan.shards), ".parquet").part(shard.index) for shard in plan.shards]
    assert parts == expected, "I3, I5: one part for each shard, and nothing else outside _run"
    assert set(store.names("")) == {*parts, SUCCESS, "_run/"}
    assert [entry["name"] for entry in manifest["parts"]] == parts, "I4: the manifest lists the parts"
    assert {entry["name"]: entry["size"] for entry in manifest["parts"]} == {name: top[name] for name in parts}

    tables, headers = [], {}
    for shard, name in zip(plan.shards, parts, strict=True):
        file = pq.ParquetFile(pa.BufferReader(store.read(name)))
        table, header = file.read(), json.loads(file.metadata.metadata[b"runner.commit"])
        wanted = [{"i": cut.file, "row_groups": [cut.first, cut.stop]} for cut in shard.slices]
        found = [{"i": cut["i"], "row_groups": list(cut["row_groups"])} for cut in header["inputs"]]
        assert (header["plan_id"], header["shard"], found) == (plan.id, shard.index, wanted), f"I2: header of {name}"
        assert header["rows_in"] == shard.rows == header["rows_out"] == table.num_rows, f"I2: rows of {name}"
        assert header["reject_file"] is None, "I6: nothing was rejected"
        headers[shard.index] = header
        tables.append(table.replace_schema_metadata(None))
    require_rows(pa.concat_tables(tables), files, rows, first)
    require_no_leftovers(store, names)
    return headers


def require_rows(table: pa.Table, files: int, rows: int, first: int = 0) -> None:
    """Every (file, row) once, in the order of the input, each with its own answer."""
    places = ROWS * table["file"].to_numpy().astype(np.int64) + table["row"].to_numpy()
    wanted = np.concatenate([ROWS * number + np.arange(rows) for number in range(first, first + files)])
    missing, foreign = np.setdiff1d(wanted, places), np.setdiff1d(places, wanted)
    assert not missing.size, f"{missing.size} rows lost, the first is {missing[0]}"
    assert not foreign.size, f"{foreign.size} rows that were never there, the first is {foreign[0]}"
    assert places.size == wanted.size, f"{places.size - wanted.size} rows are there twice"
    assert (places == wanted).all(), f"reordered from place {int(np.argmax(places != wanted))} on"
    answers = places.astype(np.float32) / 2 + 2
    wrong = np.flatnonzero(table["y"].to_numpy() != answers)
    assert not wrong.size, f"{wrong.size} rows have the answer of another row, the first is {places[wrong[0]]}"


def require_no_leftovers(store: Store, names: Layout) -> None:
    """No spool, no staging, no temporary file of any attempt or document."""
    assert not store.names(names.staging), f"left over: {store.names(names.staging)}"
    for folder in ("", names.folder, names.epochs, names.receipts):
        hidden = [name for name in store.names(folder) if name.startswith(".")]
        assert not hidden, f"temporary files left in '{folder}': {hidden}"


def snapshot(output: Path, below_run: bool = False) -> dict[str, tuple[int, int, bytes]]:
    """Name -> (inode, time of change, content) of every file; `_run/` only where asked."""
    found = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if path.is_file() and (below_run or not name.startswith("_run")):
            stat = path.stat()
            found[name] = (stat.st_ino, stat.st_mtime_ns, path.read_bytes())
    return found
