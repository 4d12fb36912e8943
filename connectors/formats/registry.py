"""The registry of formats: a name in a job file -> the file or folder here that reads and writes it.

A format is one module with a `SOURCE`, an `ENCODER`, or both, and one line here for each. Nothing else compares the
name or the suffix of a format: what is particular to one, its classes say. A module is imported on first use, so that
unused ones cost nothing: the suffixes of its files stand here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from connectors.store.listing import OTHER_SUFFIXES
from jobs.format import DEFAULT_FORMAT
from jobs.section.input import Input

if TYPE_CHECKING:
    from connectors.formats.base import Encoder, Source
    from connectors.store.store import FileStat, Store

SOURCES: dict[str, str] = {
    "parquet": "connectors.formats.parquet",
    "arrow": "connectors.formats.arrow",
    "tfrecord": "connectors.formats.tfrecord",
    "orc": "connectors.formats.typed.orc",
    "avro": "connectors.formats.typed.avro",
    "csv": "connectors.formats.text.csv_source",
    "jsonl": "connectors.formats.text.jsonl",
    "npy": "connectors.formats.typed.npy",
    "npz": "connectors.formats.typed.npz",
    "webdataset": "connectors.formats.media.webdataset",
    "images": "connectors.formats.media.images",  # the last one: previews lie beside data of all kinds
}
_PACKED = ("", ".gz", ".bz2", ".zst", ".lz4", ".br")
SUFFIXES: dict[str, tuple[str, ...]] = {  # of each source
    "parquet": (".parquet", ".pq", ".parq"),
    "arrow": (".arrow", ".feather", ".ipc", ".arrows"),
    "tfrecord": (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz"),
    "orc": (".orc",),
    "avro": (".avro",),
    "csv": tuple(name + packed for packed in _PACKED for name in (".csv", ".tsv")),
    "jsonl": tuple(name + packed for packed in _PACKED for name in (".jsonl", ".ndjson")),
    "npy": (".npy",),
    "npz": (".npz",),
    "webdataset": (*(".tar" + packed for packed in _PACKED), ".tgz"),
    "images": (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"),
}
ENCODERS: dict[str, str] = {
    "parquet": "connectors.formats.parquet",
    "arrow": "connectors.formats.arrow",
    "tfrecord": "connectors.formats.tfrecord",
    "csv": "connectors.formats.text.csv_encoder",
    "jsonl": "connectors.formats.text.jsonl_encoder",
}

HEAD_BYTES = 4096  # more than the header of a gzip file, which may hold a name
_LOOKED_INTO = 5  # files, of which the first may be a licence or the like


def make_encoder(name: str) -> Encoder:
    made: Encoder = import_module(ENCODERS[name]).ENCODER()
    return made


def make_source(name: str) -> Source:
    made: Source = import_module(SOURCES[name]).SOURCE()
    return made


def source_of(input: Input, max_row_group_bytes: int | None = None, max_row_bytes: int | None = None) -> Source:
    """The source of a job's input, whose format is resolved. The bounds: see `Source`; None: its own."""
    made: Source = import_module(SOURCES[input.format or ""]).SOURCE.of(input)
    if max_row_group_bytes is not None:
        made.max_row_group_bytes = max_row_group_bytes
    if max_row_bytes is not None:
        made.max_row_bytes = max_row_bytes
    return made


def is_verbatim(input: Input) -> bool:
    """Whether rows are files as they are, so that no library decodes anything when they are read."""
    return bool(getattr(import_module(SOURCES[input.format or ""]).SOURCE, "verbatim", False))


def packed_files(input: Input, urls: Sequence[str]) -> list[str]:
    """Which of these files are one row group each, because they are packed. input: with the format resolved."""
    packed = getattr(import_module(SOURCES[input.format or ""]).SOURCE, "packed", None)
    return [url for url in urls if packed(url)] if packed is not None else []


def infer_examples(name: str, store: Store, files: Sequence[FileStat]) -> dict[str, str]:
    """The features of tf.Examples and the types of their columns. raises: as `TFRecordSource.infer`."""
    made: dict[str, str] = import_module(SOURCES[name]).SOURCE().infer(store, files)
    return made


def part_suffix(name: str, compression: str) -> str:
    """What the names of parts end with."""
    encoder = make_encoder(name)
    return encoder.suffix + encoder.packed.get(compression, "")


def format_of(name: str) -> str | None:
    """The format whose suffix the part `name` has; None where it is none that parts are written in."""
    return next((kind for kind in ENCODERS if name.endswith(_part_suffixes(kind))), None)


def written_as(suffix: str) -> dict[str, str]:
    """The keys of `output` that decide what the names of parts end with. suffix: of parts that are there."""
    name = format_of(suffix) or DEFAULT_FORMAT
    packed = make_encoder(name).packed
    unpacked = {"compression": "none"} if packed else {}
    return {"format": name} | next(
        ({"compression": codec} for codec, behind in packed.items() if suffix.endswith(behind)), unpacked
    )


def _part_suffixes(name: str) -> tuple[str, ...]:
    encoder = make_encoder(name)
    return (encoder.suffix, *(encoder.suffix + behind for behind in encoder.packed.values()))


def format_by_suffix(url: str) -> str | None:
    """The format of an input, where its url ends as the files of one do, in capitals or not."""
    name = url.lower()
    return next((kind for kind, suffixes in SUFFIXES.items() if name.endswith(suffixes)), None)


def other_suffixes(name: str | None = None) -> tuple[str, ...]:
    """The suffixes by which a file is known to be of another format than `name`; None: of none that is read here."""
    others = [suffixes for kind, suffixes in SUFFIXES.items() if name not in (None, kind)]
    formats = [suffix for suffixes in others for suffix in suffixes]
    return (*formats, *OTHER_SUFFIXES)


def format_by_content(store: Store, files: Sequence[FileStat]) -> str | None:
    """The format of the first of `files` that has bytes and is of one; only a few are looked at.

    raises: as `Store.open`.
    """
    for file in [file for file in files if file.size][:_LOOKED_INTO]:
        with store.open(file.url) as opened:
            head = bytes(opened.read(min(HEAD_BYTES, file.size)))
        if kind := next((kind for kind in SOURCES if make_source(kind).begins(head)), None):
            return kind
    return None
