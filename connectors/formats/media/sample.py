"""Members of a tar file that make one row: those of one key that lie side by side, as the webdataset library has it.

Knows names, not values. The invariant: each member that has a key and an extension is in one sample, in the order of
the file; what holds a pickle is refused by name, whatever is read of the file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import unreadable
from connectors.formats.media.tar import Content, Member, members

KEY = "__key__"
_PICKLES = ("pkl", "pickle", "pt", "pth", "pyd", "joblib", "dill")  # what is read by running code that lies in it
_NPY_HEAD_BYTES = (2**10, 2**14)  # more than a header of numbers has; than any that numpy reads
_META = re.compile(r"__[^/]*__($|/)")  # webdataset's own notes


@dataclass(slots=True)
class Sample:
    """One row. parts: extension -> member. values: what is wanted of them. twice: an extension that came again."""

    key: str
    offset: int
    end: int = 0
    parts: dict[str, Member] = field(default_factory=dict)
    values: dict[str, bytes] = field(default_factory=dict)
    twice: str = ""


def split(name: str) -> tuple[str, str] | None:
    """Key and extension: the path up to the first dot of the base name, and what follows in small letters.

    None: the member is no part of a row.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or not extension or _META.match(name):
        return None
    return folder + slash + stem, extension.lower()


def samples(
    file: BufferedFile,
    content: Content,
    wanted: Callable[[str, int], bool],
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Sample]:
    """The rows that begin from `start` on. wanted: whether the bytes of an extension, so many, are to be taken.

    raises: as `tar.members`; InputError FILE_PICKLE, FILE_SCHEMA.
    """
    sample: Sample | None = None
    for member in members(file, content, start, stop):
        parts = split(member.name)
        if parts is None:
            continue
        key, extension = parts
        _refuse_pickle(file, content, member, extension)
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key, member.offset)
        if extension == KEY:
            raise unreadable(file, "FILE_SCHEMA", f"member {member.name!r} would be a column {KEY!r}: rename it")
        if extension in sample.parts:
            sample.twice = sample.twice or extension
        else:
            sample.parts[extension] = member
            if wanted(extension, member.size):
                sample.values[extension] = content.take(member.start, member.start + member.size)
        sample.end = member.end
    if sample is not None:
        yield sample


def _refuse_pickle(file: BufferedFile, content: Content, member: Member, extension: str) -> None:
    kind = extension.rpartition(".")[2]
    objects = kind == "npy" and _holds_objects(content, member)
    if kind in _PICKLES or objects:
        what = "an array of Python objects" if objects else "a pickle"
        raise unreadable(
            file,
            "FILE_PICKLE",
            f"member {member.name!r} is {what}, and to read one may run code that lies in it; take such members out"
            f" (`tar --delete --wildcards '*.{kind}' -f FILE`), or write them as .npy of numbers or .json",
        )


def _holds_objects(content: Content, member: Member) -> bool:
    for size in _NPY_HEAD_BYTES:
        header = npy_header(content.take(member.start, member.start + min(size, member.size)))
        if header is not None:
            return bool(header[1].hasobject)
    return False


def npy_header(head: bytes) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """The shape and the type of an array; None where the bytes are none."""
    file = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, SyntaxError, TypeError, EOFError):
        return None
    return shape, dtype
