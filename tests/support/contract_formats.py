"""Each format that is read, as the contract of formats wants it: rows made into a file by the format's own library.

To add one: a class with what `Format` has, and its name in `FORMATS`. What a format does in its own way is said by
attributes, so that a test asks and never knows a format by name.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
from example_messages import example
from PIL import Image

from connectors.formats.tfrecord.record import framed

Row = dict[str, Any]


def rows(count: int, first: int = 0) -> list[Row]:
    """Values that each format holds exactly; of one length, so that files of other rows are as long."""
    return [{"id": 10_000 + i, "x": (20_000 + i) / 4, "text": f"é, '{i:05}'"} for i in range(first, first + count)]


def table(some: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(some), pa.schema([("id", pa.int64()), ("x", pa.float64()), ("text", pa.string())]))


class Format:
    """A format, and what is particular to it.

    name:    of the job; `suffix`: of a file.
    columns: our name -> that of the format; empty: the same.
    section: further keys of the job's input.
    cut:     (module, attribute, value) that make its row groups small; none: `encoded` does.
    nothing: the code of a file of zero bytes; "": it has no rows.
    cut_off: the code of a file without its last bytes; "": that cannot be told.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    columns: ClassVar[Mapping[str, str]] = {}
    section: ClassVar[Mapping[str, Any]] = {}
    cut: ClassVar[Sequence[tuple[str, str, int]]] = ()
    nothing: ClassVar[str] = "FILE_EMPTY"
    cut_off: ClassVar[str] = "FILE_TRUNCATED"
    bad: ClassVar[tuple[str, str]] = ("", "")  # code and column of the row that `with_bad_row` makes

    def encoded(self, some: Sequence[Row]) -> bytes:
        """A file of these rows, of some row groups where there are 300 rows."""
        raise NotImplementedError

    def with_bad_row(self, some: Sequence[Row], at: int) -> bytes:
        """The same, with row `at` bad."""
        raise NotImplementedError

    def as_written(self, found: Row) -> Row:
        """A row as it was read, as a row of ours."""
        ours = {theirs: name for name, theirs in self.columns.items()}
        return {ours.get(name, name): value for name, value in found.items()}

    def wanted(self, names: Sequence[str]) -> list[str]:
        return [self.columns.get(name, name) for name in names]


class Parquet(Format):
    name, suffix = "parquet", ".parquet"

    def encoded(self, some: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        pq.write_table(table(some), file, row_group_size=100, compression="none", use_dictionary=False)
        return file.getvalue()


class Arrow(Format):
    name, suffix = "arrow", ".arrow"
    make: ClassVar[Any] = staticmethod(pa.ipc.new_file)

    def encoded(self, some: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        with self.make(file, table([]).schema) as writer:
            writer.write_table(table(some), max_chunksize=100)
        return file.getvalue()


class ArrowStream(Arrow):
    suffix = ".arrows"
    make = staticmethod(pa.ipc.new_stream)


class TFRecord(Format):
    name, suffix = "tfrecord", ".tfrecord"
    section: ClassVar[Mapping[str, Any]] = {"examples": {"id": "int64", "x": "float", "text": "bytes"}}
    cut = (("connectors.formats.tfrecord.source", "_GROUP_RECORDS", 100),)
    nothing = ""
    bad = ("ROW_TYPE", "id")

    def encoded(self, some: Sequence[Row]) -> bytes:
        return self._framed(self._example(row, ("int64_list", [row["id"]])) for row in some)

    def with_bad_row(self, some: Sequence[Row], at: int) -> bytes:
        ids = [("bytes_list", [b"x"]) if i == at else ("int64_list", [row["id"]]) for i, row in enumerate(some)]
        return self._framed(self._example(row, kind) for row, kind in zip(some, ids, strict=True))

    def _framed(self, records: Iterable[bytes]) -> bytes:
        content: bytes = framed(pa.array(records, pa.large_binary())).to_pybytes()
        return content

    def _example(self, row: Row, number: Any) -> bytes:
        return example({"id": number, "x": ("float_list", [row["x"]]), "text": ("bytes_list", [row["text"].encode()])})

    def as_written(self, found: Row) -> Row:
        return {name: value.decode() if name == "text" else value for name, value in found.items()}


class ORC(Format):
    name, suffix = "orc", ".orc"

    def encoded(self, some: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        with orc.ORCWriter(file, stripe_size=1, batch_size=100) as writer:
            for start in range(0, max(1, len(some)), 100):
                writer.write(table(some[start : start + 100]))
        return file.getvalue()


class Avro(Format):
    name, suffix = "avro", ".avro"
    cut = (("connectors.formats.typed.avro", "_GROUP_BYTES", 2000),)

    def encoded(self, some: Sequence[Row]) -> bytes:
        kinds = {"id": "long", "x": "double", "text": "string"}
        schema = {"type": "record", "name": "R", "fields": [{"name": n, "type": kind} for n, kind in kinds.items()]}
        file = io.BytesIO()
        fastavro.writer(file, schema, some, sync_interval=1000, sync_marker=b"0123456789abcdef")
        return file.getvalue()


class CSV(Format):
    name, suffix = "csv", ".csv"
    section: ClassVar[Mapping[str, Any]] = {"schema": {"id": "int64", "x": "float64", "text": "string"}}
    cut = (("connectors.formats.text.cut", "GROUP_ROWS", 100), ("connectors.formats.text.packed", "BLOCK_BYTES", 1000))
    cut_off = ""
    bad = ("ROW_VALUE", "id")

    def encoded(self, some: Sequence[Row]) -> bytes:
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, ["id", "x", "text"])
        writer.writeheader()
        writer.writerows(some)
        return file.getvalue().encode()

    def with_bad_row(self, some: Sequence[Row], at: int) -> bytes:
        return self.encoded([{**row, "id": "ten"} if i == at else row for i, row in enumerate(some)])


class JSONLines(Format):
    name, suffix = "jsonl", ".jsonl"
    section: ClassVar[Mapping[str, Any]] = CSV.section
    cut = CSV.cut
    cut_off = ""
    nothing = ""
    bad = ("ROW_TYPE", "id")

    def encoded(self, some: Sequence[Row]) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in some).encode()

    def with_bad_row(self, some: Sequence[Row], at: int) -> bytes:
        return self.encoded([{**row, "id": "ten"} if i == at else row for i, row in enumerate(some)])


class Npy(Format):
    name, suffix = "npy", ".npy"
    cut = (("connectors.formats.typed.array_source", "_GROUP_ROWS", 100),)

    def encoded(self, some: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        fields = [("id", "i8"), ("x", "f8"), ("text", "U16")]
        np.save(file, np.array([(row["id"], row["x"], row["text"]) for row in some], fields))
        return file.getvalue()


class Npz(Format):
    name, suffix = "npz", ".npz"
    cut = Npy.cut

    def encoded(self, some: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        kinds = {"id": "i8", "x": "f8", "text": "U16"}
        np.savez(file, **{name: np.array([row[name] for row in some], kind) for name, kind in kinds.items()})
        return file.getvalue()


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 3), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


class Webdataset(Format):
    name, suffix = "webdataset", ".tar"
    columns: ClassVar[Mapping[str, str]] = {"id": "cls", "x": "json", "text": "txt"}
    section: ClassVar[Mapping[str, Any]] = {
        "schema": {"cls": "int64", "json": "struct<x: float64>", "txt": "string"},
    }
    cut = (("connectors.formats.media.webdataset", "_GROUP_ROWS", 100),)
    bad = ("ROW_TYPE", "id")

    def encoded(self, some: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as made:
            for index, row in enumerate(some):
                parts = {"cls": str(row["id"]), "json": json.dumps({"x": row["x"]}), "txt": row["text"]}
                for extension, text in parts.items():
                    member = tarfile.TarInfo(f"{index:05}.{extension}")
                    member.size = len(text.encode())
                    made.addfile(member, io.BytesIO(text.encode()))
        return file.getvalue()

    def with_bad_row(self, some: Sequence[Row], at: int) -> bytes:
        return self.encoded([{**row, "id": "ten"} if i == at else row for i, row in enumerate(some)])

    def as_written(self, found: Row) -> Row:
        unwrapped = {name: value["x"] if name == "json" else value for name, value in found.items()}
        return super().as_written(unwrapped)


FORMATS: dict[str, Format] = {
    type(made).__name__: made
    for made in (
        *(Parquet(), Arrow(), ArrowStream(), TFRecord(), ORC(), Avro()),
        *(CSV(), JSONLines(), Npy(), Npz(), Webdataset()),
    )
}
OF_ONE_ROW = ("images",)  # whose files are a row each
