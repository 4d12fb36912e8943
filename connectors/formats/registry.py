"""The registry of formats: a name in a job file -> the class that reads or writes it.

Two plain dicts; a new format is a new file and a line in one of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from jobs.job import Input

SOURCES: dict[str, str] = {
    "parquet": "connectors.formats.parquet:ParquetSource",
    "arrow": "connectors.formats.arrow_ipc:ArrowSource",
    "tfrecord": "connectors.formats.tfrecord:TFRecordSource",
}

ENCODERS: dict[str, str] = {
    "parquet": "connectors.formats.parquet:ParquetEncoder",
    "arrow": "connectors.formats.arrow_ipc:ArrowEncoder",
    "tfrecord": "connectors.formats.tfrecord:TFRecordEncoder",
}


def source_of(input: Input) -> Any:
    """The source of a job's input, whose format is resolved."""
    made = load_class(SOURCES, input.format or "")
    return made() if input.examples is None else made(input.examples)


def format_of(name: str) -> str | None:
    """The format whose suffix the file `name` has; None where it is none that parts are written in."""
    return next((kind for kind in ENCODERS if name.endswith(load_class(ENCODERS, kind).suffix)), None)


def load_class(registry: dict[str, str], name: str) -> Any:
    """The class registered under `name`; imported on first use, so that unused formats cost nothing."""
    module, _, attribute = registry[name].partition(":")
    return getattr(import_module(module), attribute)
