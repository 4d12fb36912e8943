"""What a plan says of the batches to come: rows to warm up with, and the sizes that batches will have."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from connectors.formats.registry import packed_files
from connectors.secret import redact
from jobs.attempt import InputSlice, input_slice
from jobs.plan import InputFile, Plan, Slice
from jobs.section.input import Input
from jobs.words import counted
from runner.model.signature import Signature

_MOST_SIZES = 4  # of batches; the others are rare


_MOST_GROUPS = 10_000  # that are counted


# Row groups of a plan, and their rows on average, from which and up to which a row group costs more than its rows: half
# a millisecond, and in each worker some 7 kB of footer for 8 columns (pyarrow 26.0).
_MANY_GROUPS, _FEW_ROWS = 10_000, 1_000


def small_row_groups(plan: Plan) -> list[str]:
    """A warning where reading is mostly looking at footers."""
    groups = sum(len(file.row_groups) for file in plan.files)
    rows = sum(group.rows for file in plan.files for group in file.row_groups)
    if groups < max(_MANY_GROUPS, 2 * len(plan.files)) or rows / groups > _FEW_ROWS:
        return []
    return [
        f"the input has {groups:,} row groups of {rows / groups:,.0f} rows on average: looking at them takes longer"
        " than reading them, and each worker holds their footers in memory; write the files with larger row groups"
    ]


def uncut(input: Input, files: Sequence[InputFile]) -> list[str]:
    """A note where packed files are one row group each. input: with the format resolved."""
    urls = [file.url for file in files]
    packed = packed_files(input, urls)
    if not packed:
        return []
    which = f"{len(packed):,} of {counted(len(files), 'file')} ('{redact(packed[0])}'{', ...' * (len(packed) > 1)})"
    are = "are one row group each" if len(packed) > 1 else "is one row group"
    return [f"packed: {which} {are}, which one worker reads; to share the work write more files, or plain ones"]


def batch_sizes(plan: Plan, batch_rows: int, exact: bool) -> tuple[int, ...]:
    """The sizes of batches that the plan comes to, the frequent ones first. exact: all have `batch_rows`."""
    if exact:
        return (batch_rows,)
    sizes: Counter[int] = Counter()
    for group in islice((group for file in plan.files for group in file.row_groups), _MOST_GROUPS):
        whole, rest = divmod(group.rows, batch_rows)
        sizes[batch_rows] += whole
        sizes[rest] += 1
    return tuple(size for size, count in sizes.most_common() if size and count)[:_MOST_SIZES]


# What is decoded for a sample, at most. Numbers can be made up as well; text that a model can parse cannot.
_NUMBER_BYTES, _STRING_BYTES = 8 * 2**20, 64 * 2**20


_MOST_FILES = 1000  # that are looked through for a small row group


def sample_slice(files: Sequence[InputFile], signature: Signature) -> InputSlice | None:
    """The smallest row group that has rows, None where even that is large."""
    groups = (
        (group.decoded_bytes, index, number)
        for index, file in enumerate(files[:_MOST_FILES])
        for number, group in enumerate(file.row_groups)
        if group.rows
    )
    size, index, number = min(groups, default=(math.inf, 0, 0))
    return None if size > _most_bytes(signature) else _slice(files, index, number)


def slices_elsewhere(files: Sequence[InputFile], signature: Signature) -> tuple[InputSlice, ...]:
    """The first row group with rows of the first, the middle and the last file, and the last one of that file, as far
    as they are not large."""
    found: dict[tuple[int, int], InputSlice] = {}
    for index in (0, len(files) // 2, len(files) - 1):
        groups = [number for number, group in enumerate(files[index].row_groups) if group.rows]
        for number in (*groups[:1], *groups[-1:]):
            if files[index].row_groups[number].decoded_bytes <= _most_bytes(signature):
                found[index, number] = _slice(files, index, number)
    return tuple(found.values())


def _slice(files: Sequence[InputFile], index: int, number: int) -> InputSlice:
    return input_slice(files, Slice(index, number, number + 1))


def _most_bytes(signature: Signature) -> int:
    strings = any(spec.dtype == "string" for spec in signature.inputs.values())
    return _STRING_BYTES if strings else _NUMBER_BYTES
