"""Every key of a job file as a table: `python -m jobs.reference` prints it, `--write` puts it into jobs/README.md.

Keys, types and defaults come from the schema of `jobs.job`, however deep they lie; the meanings stand here. The
invariant: a key without a meaning, or a meaning without a key, is an error, so that the table cannot be behind the
schema.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from jobs.job import Job
from jobs.section.base import under
from jobs.section.number import parse_budget, parse_bytes

PAGE = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- keys: made by `python -m jobs.reference --write` -->", "<!-- /keys -->"

# What these read is not what the schema says: a size may have a unit, a budget may be a share.
_KINDS = {parse_bytes: "size", parse_budget: "whole number or share"}
_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))

_ONE_OF_SEVERAL = "models.NAME."
_OPTIONS = "for the file system of the url; secrets only as `env:NAME`, `file:/path`, `profile:NAME` (S3)"

MEANINGS: dict[str, str] = {
    "model.url": "the SavedModel's folder, or the folder of its numbered versions",
    "model.options": _OPTIONS,
    "model.version": "which numbered version; `latest`: the highest one, resolved once and kept in the plan",
    "model.tags": "of the meta graph; left out: the one that is there, or `serve`",
    "model.signature": "which signature is called; left out: `serving_default`, or the only one",
    "model.engine": "`session`: TensorFlow's C API; `eager`: `tf.saved_model.load`",
    "model.xla": "compile the signature, for one batch size; changes numbers",
    "model.mixed_precision": "what float32 matrices are multiplied in; changes numbers",
    "model.op_libraries": "shared libraries that register ops of the model; paths that every worker sees",
    "model.op_packages": "installed packages that register ops of the model, by name; their ops are trusted",
    "model.batch": "rows of each call, short ones filled up; left out: as inputs or outputs declare; changes numbers",
    "model.trust": "load the model although its ops may touch files, the network, Python; `true`, or names of ops",
    "model.signatures": "several of the model, each called with every row in one pass; tensors are `NAME.tensor`",
    "models.NAME.inputs": "tensor: column, as under `columns.inputs`, of this model alone; the other keys are those of"
    " `model`",
    "input.url": "a file, a folder, a glob, or a list of them",
    "input.options": _OPTIONS,
    "input.format": "left out: by the suffix of the files, else by their first bytes",
    "input.examples": "of TFRecord: `infer`, or feature: type; left out: one binary column `record`",
    "input.only_rejects": "the output of a job: of the files above, only the rows that it rejected",
    "input.schema": "column: Arrow type, where files do not say it: CSV and JSON lines, folder names; left out: as the"
    " tensor wants it, else text in CSV, and what the first records show in JSON lines",
    "input.csv": "how CSV files are written, where not as RFC 4180 says: the keys below",
    "input.csv.delimiter": "between values; left out: a tab in files with `.tsv`, a comma in others",
    "input.csv.quote": "around values that hold delimiters; empty: there are none",
    "input.csv.escape": "before a quote between quotes; everywhere if `quote` is empty. Empty: a quote is doubled",
    "input.csv.header": "whether the first line names the columns; or their names, where no line does",
    "input.csv.nulls": "values without quotes that are null",
    "input.csv.newlines_in_values": "`false` promises that each line is a row: then planning is faster",
    "input.partitions": "`hive`: `NAME=VALUE/` folders are columns; or the names of columns, one for each folder",
    "input.delta": "a Delta table, in place of `url`",
    "input.version": "of the Delta table; `latest`: resolved once and kept in the plan",
    "input.iceberg": "an Iceberg table, `CATALOG.NAMESPACE.TABLE` or the url of its metadata, in place of `url`",
    "input.snapshot": "of the Iceberg table; `latest`: resolved once and kept in the plan",
    "input.catalog": "properties of the Iceberg catalog; secrets only as `env:NAME`, `file:/path`",
    "input.where": "only rows for which this is true, as in SQL: `dt = '2026-11-01' and age >= 18`",
    "input.limit": "only the first so many rows, of those that `where` and `sample` leave",
    "input.sample": "only about this share of the rows, the same ones in every run",
    "columns.inputs": "tensor: column, or the keys below; what is not named is fed by the column of its name",
    "columns.outputs": "tensor: column, or a list of tensors; only these are computed, and the others with `...: true`;"
    " left out: all",
    "columns.keep": "columns that are written beside the outputs, their values as they were read: names, patterns,"
    " `all`, `-NAME` (but for one), `{NEW: COLUMN}`",
    "columns.inputs.TENSOR.column": "the column that feeds the tensor; a field of a struct with dots",
    "columns.inputs.TENSOR.stack": "several columns into one tensor: names, or patterns such as `f*`",
    "columns.inputs.TENSOR.example": "the tensor is filled with serialized tf.Examples made of columns: the keys below",
    "columns.inputs.TENSOR.example.columns": "names or patterns of the columns, or feature: column",
    "columns.inputs.TENSOR.example.empty": "an empty list leaves its feature out, as a null does, or stays `empty`",
    "columns.inputs.TENSOR.constant": "the same value for every row, or a scalar the model wants",
    "columns.inputs.TENSOR.cast": "`nearest` rounds to a float; `unsafe` lets a cast lose digits and overflow",
    "columns.inputs.TENSOR.exact": "a value that would be rounded is a bad row",
    "columns.inputs.TENSOR.timestamp": "in which timestamps, dates, times and durations become numbers",
    "columns.inputs.TENSOR.null": "`error`: a null makes a bad row; `nan`: it becomes NaN; or the key below",
    "columns.inputs.TENSOR.null.fill": "what a null becomes: one value, or a list in the shape of a row",
    "columns.inputs.TENSOR.as": "ragged or sparse, filled from lists; left out: where nothing else can be meant",
    "columns.inputs.TENSOR.shape": "of one row of a sparse tensor; left out: as the signature or the lists say",
    "columns.inputs.TENSOR.pad": "lists of any length in a tensor of one width: `max`, or the keys below",
    "columns.inputs.TENSOR.pad.to": "to the longest list of a batch",
    "columns.inputs.TENSOR.pad.multiple_of": "to the next multiple",
    "columns.inputs.TENSOR.pad.buckets": "to the next of these widths",
    "columns.inputs.TENSOR.pad.value": "what is filled in; left out: 0, false or the empty string",
    "columns.inputs.TENSOR.decode": "the column holds pictures, which TensorFlow decodes: the keys below, or `{}`",
    "columns.inputs.TENSOR.decode.to": "height, width and channels (1, 3 or 4); left out: as the tensor says",
    "columns.inputs.TENSOR.decode.dtype": "left out: that of the tensor; `uint8` cuts fractions, as `tf.cast`",
    "columns.inputs.TENSOR.decode.alpha": "`drop` leaves transparency out, `error` makes such a picture a bad row",
    "columns.inputs.TENSOR.decode.cmyk": "colours of print: to RGB as TensorFlow does it, or a bad row",
    "columns.inputs.TENSOR.decode.orientation": "`exif` turns a picture as its header says; left out: as it is stored",
    "columns.inputs.TENSOR.decode.crop": "`center` cuts out the largest middle part of the shape of `to`; left out: all"
    " of it is stretched",
    "columns.inputs.TENSOR.decode.resize": "the method of `tf.image.resize`",
    "columns.inputs.TENSOR.decode.antialias": "that of `tf.image.resize`: where pictures become smaller",
    "columns.inputs.TENSOR.decode.scale": "numbers from 0 to 1: by `tf.image.convert_image_dtype` `before` resizing, or"
    " divided by 255 `after` it; left out: 0 to 255",
    "columns.outputs.TENSOR.column": "the name of the column; left out: that of the tensor",
    "columns.outputs.TENSOR.of": "the tensor, where the key is the column: `outputs: {p: {of: logits}}` says"
    " `outputs: {logits: p}`",
    "columns.outputs.TENSOR.argmax": "the place of the largest value of the last dimension; of equal ones the first",
    "columns.outputs.TENSOR.top_k": "a list of the largest values of the last dimension: `{index, value}`, with"
    " `labels` `{index, value, label}`",
    "columns.outputs.TENSOR.labels": "what places are called: a text file of a line each, in the folder of the model or"
    " by its path; or a list",
    "columns.outputs.TENSOR.at": "the value at this place of the last dimension, from 0; or at `[i, j]`, a place"
    " for each dimension of a row",
    "columns.outputs.TENSOR.cast": "the type of the numbers; a number that it cannot hold makes a bad row",
    "columns.outputs.TENSOR.round": "to so many decimal digits, half to even, before `cast`",
    "columns.outputs.TENSOR.above": "whether it is: true or false",
    "columns.outputs.TENSOR.decode": "text, where `output: {strings: binary}` says bytes",
    "columns.outputs.TENSOR.shape": "of one row, where the signature leaves it open (left out, a call shows the rank);"
    " `[1]` keeps a tensor of one value, `[]` says that a row is one value",
    "columns.outputs.TENSOR.cut": "the padded input that the second dimension follows: rows are cut to their length",
    "output.url": "the folder of the output",
    "output.options": _OPTIONS,
    "output.format": "of the parts",
    "output.compression": "of the parts; TFRecord: `none` (if left out) or `gzip`; Arrow: `zstd`, `lz4` or `none`",
    "output.tensor_encoding": "how rows that hold a tensor become a column; a row of exactly one value is that value",
    "output.strings": "what strings of the model become; text is UTF-8, and a value that is none makes a bad row; left"
    " out: `text`, in TFRecord `binary`",
    "workers.count": "how many workers; `auto`: one per GPU, or as many as the CPUs hold",
    "workers.min": "of an elastic run: how many there should be at least",
    "workers.max": "of an elastic run: as many as there is work and room for, up to this",
    "workers.gpus": "of each worker: a whole number, or a share below 1",
    "workers.cpus": "of each worker",
    "workers.readers": "threads of a worker that fetch and decode; `auto`: by its cpus, 4 at most",
    "workers.memory": "of each worker; above 90 % of it the worker is replaced between two shards (on Ray)",
    "workers.resources": "further resources of Ray, by name",
    "limits.shard_bytes": "of a shard, decoded, of the columns that are read",
    "limits.shard_rows": "rows of a shard",
    "limits.batch_rows": "rows of one call; `auto`: begins with 16 MiB of rows, and grows while that helps",
    "limits.max_attempts": "of a shard, until the run fails; unless set, 6 where a worker, node or device fails",
    "limits.stall_s": "seconds that an attempt may make no progress",
    "limits.on_bad_row": "`reject` sets bad rows aside",
    "limits.max_rejected_rows": "rows of the job that may be rejected; a share is one of those that are not left out",
    "limits.on_bad_file": "`skip` leaves out files that cannot be read",
    "limits.max_bad_files": "files of the job that may be bad",
    "limits.nonfinite": "NaN or infinity in an input: `reject` makes it a bad row, but where `null: nan` put it; left"
    " out, it passes",
    "limits.nan_output": "NaN in an output: `keep` writes the row and counts it, `reject` makes it a bad row, and asks"
    " for `nonfinite` where the model hides a NaN in an input",
    "limits.reject_input": "reject files hold the columns that were read: they may be personal data",
    "limits.max_row_bytes": "of one row as it is read, lists and strings included; beyond it the row is bad",
    "limits.max_row_group_bytes": "of a row group, decoded; a larger one is refused before it is decoded",
    "limits.reproducible": "the same bits in every run: fixed batches, rows in fixed places, one kind of machine",
    "limits.compare_uncompiled": "with `xla`: so many rows of each worker are scored without it too, and must agree",
}


def meaning(key: str) -> str:
    """What a key means. Of one of several models it is what it is of the only one."""
    if key in MEANINGS or not key.startswith(_ONE_OF_SEVERAL):
        return MEANINGS[key]
    name = key.removeprefix(_ONE_OF_SEVERAL)
    return MEANINGS[f"columns.{name}" if name.startswith("inputs.") else f"model.{name}"]


def table() -> str:
    """The table in Markdown. raises: KeyError for a key without a meaning, or a meaning without a key."""
    rows = [("key", "type", "default", "meaning"), ("---", "---", "---", "---"), *_rows()]
    if unknown := MEANINGS.keys() - {key for key, *_ in rows}:
        raise KeyError(f"meanings of keys that a job file does not have: {sorted(unknown)}")
    return "".join(f"| {' | '.join(_cells(row))} |\n" for row in rows)


def page(text: str) -> str:
    """`text` with the table between its marks. raises: ValueError where a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no marks: expected '{BEGIN}' and '{END}'")
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def _cells(row: tuple[str, str, str, str]) -> Iterator[str]:
    key, kind, default, meaning = row
    yield key if key in ("key", "---") else f"`{key}`"
    yield from (kind.replace("|", "or"), default, meaning)


def _rows() -> Iterator[tuple[str, str, str, str]]:
    for section, model in sections(Job):
        schema = model.model_json_schema()
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        for name, described in sorted(schema["properties"].items(), key=lambda item: item[0] == "options"):
            key = f"{section}.{name}"
            if key.startswith(_ONE_OF_SEVERAL) and key not in MEANINGS:
                continue  # as of the only one
            read = [kind for function, kind in _KINDS.items() if reads(function, fields[name])]
            required = name in schema.get("required", ())
            default = "required" if required else _default(described, in_bytes="size" in read)
            yield key, read[0] if read else _kind(described), default, MEANINGS[key]


def sections(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of a job file with its keys' prefix, the nested ones behind the one that they are in."""
    for name, field in model.model_fields.items():
        for inner, named in _models(field.annotation):
            section = f"{above}{field.alias or name}{under(name) if named else ''}"
            yield section, inner
            yield from sections(inner, f"{section}.")


def _models(annotation: Any) -> Iterator[tuple[type[BaseModel], bool]]:
    """The models that an annotation allows, and whether they stand in a map, under the names of tensors."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, False
    for inner in get_args(annotation):
        yield from ((model, named or get_origin(annotation) is dict) for model, named in _models(inner))


def reads(function: object, field: Any) -> bool:
    """Whether `function` reads what a job file says under the key."""
    within = [*getattr(field, "metadata", ()), *get_args(getattr(field, "annotation", field))]
    return any(one.func is function if isinstance(one, BeforeValidator) else reads(function, one) for one in within)


def _kind(schema: Mapping[str, Any]) -> str:
    """What may be written, in words."""
    if "anyOf" in schema:
        kinds = dict.fromkeys(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
        return " or ".join(kinds)
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    names = {"integer": "whole number", "string": "text", "boolean": "true or false", "array": "list", "object": "map"}
    kind = str(schema.get("type", "map" if "$ref" in schema else "any value"))
    return names.get(kind, kind)


def _default(schema: Mapping[str, Any], *, in_bytes: bool) -> str:
    value = schema.get("default")
    if value is None or value in ({}, []):
        return "-"
    if in_bytes:
        return f"`{size(value)}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def size(count: int) -> str:
    """A number of bytes as a job file may say it, without loss: '128MiB'."""
    return next((f"{count // unit}{name}" for name, unit in _UNITS if count and count % unit == 0), str(count))


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(table())
