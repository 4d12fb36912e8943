"""The formats of files, as far as a job speaks of them: their names, and what each allows in a job file.

Owns what is refused before a file is opened; refuses to know how a format is read and written: `connectors/formats/`
does. The invariant: a format has a name here exactly when it is registered there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FileFormat = Literal[  # that are read
    "parquet",
    "arrow",
    "tfrecord",
    "orc",
    "avro",
    "csv",
    "jsonl",
    "npy",
    "npz",
    "webdataset",
    "images",
]
PartFormat = Literal[  # that are written
    "parquet",
    "arrow",
    "tfrecord",
    "csv",
    "jsonl",
]
Codec = Literal["zstd", "snappy", "lz4", "gzip", "none"]
StringKind = Literal["text", "binary"]

DEFAULT_FORMAT: PartFormat = "parquet"
TABLE_FORMAT: FileFormat = "parquet"  # of the files of Delta and Iceberg tables
EXAMPLES_FORMAT: FileFormat = "tfrecord"  # whose records may be tf.Examples
CSV_FORMAT: FileFormat = "csv"  # of which a job says how its files are written
DEFAULT_CODEC: Codec = "zstd"


@dataclass(frozen=True, slots=True)
class Rules:
    """codecs: of parts. default: where the job names none. otherwise: what is true of a codec that is none of them.
    strings: what strings of the model become where the job does not say."""

    codecs: tuple[Codec, ...] = get_args(Codec)
    default: Codec = DEFAULT_CODEC
    otherwise: str = ""
    strings: StringKind = "text"


RULES: dict[PartFormat, Rules] = {
    "parquet": Rules(),
    "arrow": Rules(("zstd", "lz4", "none"), otherwise="is not part of Arrow IPC"),
    # A feature of a tf.Example holds bytes, whatever is in them: there is no text to promise.
    "tfrecord": Rules(("gzip", "none"), "none", otherwise="is not read with TFRecord files", strings="binary"),
    "csv": Rules(("none", "gzip", "zstd"), "none", otherwise="is not read with CSV files"),
    "jsonl": Rules(("none", "gzip", "zstd"), "none", otherwise="is not read with JSON lines"),
}


def default_codec(name: object) -> Codec:
    """Of a format as a job file names it, which may be anything."""
    return next((rules.default for known, rules in RULES.items() if known == name), DEFAULT_CODEC)


def check_codec(name: PartFormat, codec: Codec) -> None:
    """raises: ValueError with the codecs that the format has."""
    rules = RULES[name]
    if codec not in rules.codecs:
        *others, last = rules.codecs
        raise ValueError(f"compression {codec!r} {rules.otherwise}; choose {', '.join(others)} or {last}")
