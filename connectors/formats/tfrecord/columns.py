"""Serialized tf.Example messages -> columns, all rows at a time.

Reads the wire format of protobuf field by field for all messages at once: the first field of every message, then the
second of those that have one, and so on; there is no Python object per row. Fields in any order, unknown ones, packed
and unpacked numbers are all read; of a repeated feature the last one counts, as everywhere in protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.formats.tfrecord.example import Array, Kind, RowsError, binary

# Of a feature in a job file: the type of its column. 'list<...>': any number of values; otherwise one, or none.
COLUMN_TYPES: dict[str, pa.DataType] = {
    "float": pa.float32(),
    "int64": pa.int64(),
    "bytes": pa.binary(),
    "list<float>": pa.list_(pa.field("item", pa.float32(), nullable=False)),
    "list<int64>": pa.list_(pa.field("item", pa.int64(), nullable=False)),
    "list<bytes>": pa.list_(pa.field("item", pa.binary(), nullable=False)),
}
_KINDS: tuple[Kind, ...] = ("bytes_list", "float_list", "int64_list")  # the fields 1, 2, 3 of Feature
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types
_MAX_VARINT = 10  # bytes
_BLOCK_ROWS = 8192  # decoded at once, so that what is between fits into the cache: measured 1.5 times as fast


@dataclass(frozen=True)
class _Spans:
    """Pieces of `data`, in order of their owners. All arrays: (pieces,)"""

    data: Array  # (bytes,) of all messages
    owner: Array  # the row each belongs to
    start: Array
    stop: Array

    def chosen(self, which: Array) -> _Spans:
        """which: a mask or places."""
        return _Spans(self.data, self.owner[which], self.start[which], self.stop[which])

    def content(self) -> tuple[Array, Array]:
        """The bytes of all pieces, one after another, and how many each has."""
        lengths = self.stop - self.start
        ends = np.cumsum(lengths)
        place = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(self.start - (ends - lengths), lengths)
        return self.data[place], lengths


def decode(records: pa.Array, columns: Mapping[str, str]) -> tuple[list[pa.Array], list[RowsError]]:
    """The columns of serialized Examples, and what is wrong with some of them.

    records:  binary, without nulls.
    columns:  feature -> its type, see COLUMN_TYPES.
    returns:  a column for each, null where the feature is left out or bad; and ROW_EXAMPLE for what is no Example,
              ROW_TYPE for a feature of another kind, ROW_SHAPE for several values where one is expected.
    cost:     about 0.3 us of one core for a row and feature.
    """
    if len(records) <= _BLOCK_ROWS:
        return _decoded(records, columns, 0)
    blocks = [_decoded(records.slice(at, _BLOCK_ROWS), columns, at) for at in range(0, len(records), _BLOCK_ROWS)]
    arrays = [pa.concat_arrays(some) for some in zip(*(block for block, _ in blocks), strict=True)]
    return arrays, [fault for _, faults in blocks for fault in faults]


def _decoded(records: pa.Array, columns: Mapping[str, str], first_row: int) -> tuple[list[pa.Array], list[RowsError]]:
    features, faults = _readable(records)
    names = pc.index_in(features.keys, value_set=pa.array([name.encode() for name in columns], pa.large_binary()))
    which = pc.fill_null(names, -1).to_numpy()
    arrays = []
    for index, (name, kind) in enumerate(columns.items()):
        array, wrong = _readable_column(features, np.flatnonzero(which == index), len(records), kind, name)
        arrays.append(array)
        faults += wrong
    return arrays, [RowsError(one.code, one.holds, one.expected, one.at + first_row, one.column) for one in faults]


def _readable(records: pa.Array) -> tuple[_Features, list[RowsError]]:
    """The features of the records that are Examples, and which are none."""
    faults: list[RowsError] = []
    while True:
        try:
            return _features(records), faults
        except RowsError as error:  # each look finds those that are bad at the same place
            faults.append(error)
            bad = np.zeros(len(records), np.bool_)
            bad[error.at] = True
            records = pc.if_else(pa.array(bad), pa.scalar(b"", records.type), records)  # an Example without features


def _readable_column(
    features: _Features, at: Array, rows: int, kind: str, name: str
) -> tuple[pa.Array, list[RowsError]]:
    """at: the features of this name."""
    faults: list[RowsError] = []
    while True:
        try:
            return _column(features, at, rows, kind, name), faults
        except RowsError as error:
            faults.append(RowsError(error.code, error.holds, error.expected, error.at, name))
            at = _without(features, at, error.at)


def _without(features: _Features, at: Array, rows: Array) -> Array:
    """Those of the features `at` that are of other rows."""
    others: Array = at[~np.isin(features.spans.owner[at], rows)]
    return others


def infer(records: pa.Array) -> dict[str, str]:
    """The features of serialized Examples and the types of their columns, sorted by name.

    A feature that has one value wherever it is there becomes a plain column, any other one a list. Records that are no
    Examples say nothing, unless all are.
    raises: RowsError RECORD_EXAMPLE, COLUMN_TYPE where a feature is of two kinds.
    """
    features, faults = _readable(records)
    if len(records) and sum(len(fault.at) for fault in faults) == len(records):
        raise RowsError("RECORD_EXAMPLE", faults[0].found, faults[0].expected, np.arange(len(records)))
    columns = {}
    for key in sorted(pc.unique(features.keys).to_pylist()):
        at = np.flatnonzero(pc.equal(features.keys, pa.scalar(key, pa.large_binary())).to_numpy(zero_copy_only=False))
        kinds = np.unique(features.kind[at][features.kind[at] > 0])
        name = key.decode("utf-8", "surrogateescape")
        if len(kinds) > 1:
            other = at[(features.kind[at] > 0) & (features.kind[at] != features.kind[at][0])]
            expected = f"expected one kind in all records; or name the columns: `examples: {{{name}: ...}}`"
            raise RowsError(
                "COLUMN_TYPE", f"feature {key!r} as {_kind_text(int(kinds[1]))}", expected, features.spans.owner[other]
            )
        counts = _counts(features, at, int(kinds[0])) if len(kinds) else np.empty(0)
        if not len(counts):
            continue  # nothing is known of a feature without a value
        value = ("bytes", "float", "int64")[int(kinds[0]) - 1]
        columns[name] = value if (counts == 1).all() else f"list<{value}>"
    return columns


def _counts(features: _Features, at: Array, kind: int) -> Array:
    """(lists that can be read,) how many values each has."""
    while len(at):
        try:
            return _values(features.spans.chosen(at), kind)[0]
        except RowsError as error:
            at = _without(features, at, error.at)
    return np.empty(0)


@dataclass(frozen=True)
class _Features:
    """Every feature of every record. keys: large_binary. kind: 1 to 3 as in Feature, 0 none. spans: of the lists."""

    keys: pa.Array
    kind: Array
    spans: _Spans


def _features(records: pa.Array) -> _Features:
    examples = _spans_of(records)
    entries = _numbered(_numbered(examples, 1, _BYTES), 1, _BYTES)  # Example.features, Features.feature
    parts = [*_fields(entries)]
    keys, _ = _last(entries, parts, (1,), _BYTES)
    values, _ = _last(entries, parts, (2,), _BYTES)
    lists, kind = _last(values, [*_fields(values)], (1, 2, 3), _BYTES)
    content, lengths = keys.content()
    return _Features(binary(content, lengths), kind, lists)


def _spans_of(records: pa.Array) -> _Spans:
    large = records.cast(pa.large_binary())
    _, offsets, data = large.buffers()
    ends = np.frombuffer(offsets, np.int64, len(large) + 1, large.offset * 8)
    values = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    return _Spans(values, np.arange(len(large)), ends[:-1], ends[1:])


@dataclass(frozen=True)
class _Field:
    """One field of some messages: (messages that have it,)"""

    message: Array  # its index among the messages
    number: Array
    wire: Array
    start: Array  # of the content; of a varint, of its first byte
    stop: Array


def _fields(messages: _Spans) -> Iterator[_Field]:
    """The first field of all messages, the second, and so on."""
    data, message, at = messages.data, np.arange(len(messages.start)), messages.start
    active = at < messages.stop
    while active.any():
        message, at = message[active], at[active]
        stop, owner = messages.stop[message], messages.owner[message]
        tag, at = _read_varint(data, at, stop, owner)
        wire, number = tag & 7, tag >> 3
        start, end = at, at.copy()
        for kind, size in ((_EIGHT, 8), (_FOUR, 4)):
            end[wire == kind] += size
        if (varint := wire == _VARINT).any():
            _, end[varint] = _read_varint(data, at[varint], stop[varint], owner[varint])
        if (sized := wire == _BYTES).any():
            length, begin = _read_varint(data, at[sized], stop[sized], owner[sized])
            start = start.copy()
            start[sized], end[sized] = begin, begin + length
        bad = (number == 0) | ~_among(wire, (_VARINT, _EIGHT, _BYTES, _FOUR)) | (end > stop) | (end < start)
        _require(~bad, owner)
        yield _Field(message, number, wire, start, end)
        at = end
        active = at < stop


def _numbered(messages: _Spans, number: int, *wires: int) -> _Spans:
    """The fields of one number, in order of their owners. wires: of which they may be."""
    parts: list[tuple[Array, Array, Array]] = [(np.empty(0, np.int64),) * 3]
    for field in _fields(messages):
        here = field.number == number
        _require(_among(field.wire[here], wires), messages.owner[field.message[here]])
        parts.append((field.message[here], field.start[here], field.stop[here]))
    message, start, stop = (np.concatenate(some) for some in zip(*parts, strict=True))
    order = np.argsort(message, kind="stable")
    return _Spans(messages.data, messages.owner[message[order]], start[order], stop[order])


def _last(messages: _Spans, fields: Sequence[_Field], numbers: tuple[int, ...], wire: int) -> tuple[_Spans, Array]:
    """Of each message the last field with one of `numbers`, empty where there is none; and its number, or 0."""
    start, stop = np.zeros(len(messages.start), np.int64), np.zeros(len(messages.start), np.int64)
    number = np.zeros(len(messages.start), np.int64)
    for field in fields:
        here = _among(field.number, numbers)
        message = field.message[here]
        _require(field.wire[here] == wire, messages.owner[message])
        start[message], stop[message], number[message] = field.start[here], field.stop[here], field.number[here]
    return _Spans(messages.data, messages.owner, start, stop), number


def _column(features: _Features, at: Array, rows: int, kind: str, name: str) -> pa.Array:
    """at: the features of this name."""
    at = at[features.kind[at] > 0]  # one without a list is as good as none
    owner = features.spans.owner[at]
    if len(at) > 1:  # of several in one record, the last
        last = np.append(owner[1:] != owner[:-1], True)
        at, owner = at[last], owner[last]
    simple = kind.removeprefix("list<").removesuffix(">")
    wanted = ("bytes", "float", "int64").index(simple) + 1
    other = features.kind[at] != wanted
    if other.any():
        stored = _kind_text(int(features.kind[at][other][0]))
        raise RowsError("ROW_TYPE", f"feature {name!r} as {stored}", f"expected {_kind_text(wanted)}", owner[other])
    counts, values = _values(features.spans.chosen(at), wanted)
    missing = np.ones(rows, np.bool_)
    missing[owner] = False
    if kind == simple:
        if (counts != 1).any():
            found = [f"{count} values of feature {name!r}" for count in counts[counts != 1].tolist()]
            expected = f"expected one; 'list<{simple}>' holds any number"
            raise RowsError("ROW_SHAPE", found, expected, owner[counts != 1])
        if not missing.any():
            return values
        place = np.zeros(rows, np.int64)
        place[owner] = np.arange(len(owner))
        return values.take(pa.array(place, mask=missing))
    lengths = np.zeros(rows, np.int64)
    lengths[owner] = counts
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    mask = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(offsets, values, type=COLUMN_TYPES[kind], mask=mask)


def _values(lists: _Spans, kind: int) -> tuple[Array, pa.Array]:
    """How many values each list has, and all of them."""
    rows = _Spans(lists.data, np.arange(len(lists.start)), lists.start, lists.stop)  # owner: the list
    try:
        if kind == 1:
            spans = _numbered(rows, 1, _BYTES)
            content, lengths = spans.content()
            return np.bincount(spans.owner, minlength=len(rows.start)), binary(content, lengths).cast(pa.binary())
        return _floats(rows) if kind == 2 else _integers(rows)
    except RowsError as error:
        at = np.unique(lists.owner[error.at])
        raise RowsError(error.code, error.found, error.expected, at) from error


def _floats(rows: _Spans) -> tuple[Array, pa.Array]:
    spans = _numbered(rows, 1, _BYTES, _FOUR)  # packed, or each a field of its own
    content, lengths = spans.content()
    _require(lengths % 4 == 0, spans.owner)
    counts = np.bincount(spans.owner, lengths // 4, minlength=len(rows.start)).astype(np.int64)
    return counts, pa.array(content.view("<f4"))


def _integers(rows: _Spans) -> tuple[Array, pa.Array]:
    spans = _numbered(rows, 1, _BYTES, _VARINT)
    content, lengths = spans.content()
    last = content < 0x80  # last: (bytes,) the last one of its number
    ends = np.cumsum(lengths)
    _require(last[ends[lengths > 0] - 1], spans.owner[lengths > 0])
    stops = np.flatnonzero(last) + 1
    sizes = np.diff(stops, prepend=0)
    owner = np.repeat(spans.owner, lengths)[stops - 1]  # owner: (numbers,)
    _require(sizes <= _MAX_VARINT, owner)
    values = np.zeros(len(stops), np.uint64)
    for index in range(int(sizes.max(initial=0))):
        reaching = sizes > index
        digit = content[(stops - sizes)[reaching] + index] & np.uint8(0x7F)
        values[reaching] |= digit.astype(np.uint64) << np.uint64(7 * index)
    return np.bincount(owner, minlength=len(rows.start)), pa.array(values.view(np.int64))


def _read_varint(data: Array, at: Array, stop: Array, owner: Array) -> tuple[Array, Array]:
    """A varint at each place, and where it ends: all places at once, which no reader of one number could do."""
    _require(at < stop, owner)
    byte = data[at].astype(np.int64)
    value, end = byte & 0x7F, at + 1
    longer, index = np.flatnonzero(byte >= 0x80), 1  # nearly all tags and most lengths are one byte
    while len(longer):
        here = end[longer]
        _require((here < stop[longer]) & (index < _MAX_VARINT), owner[longer])
        byte = data[here].astype(np.int64)
        value[longer] |= (byte & 0x7F) << (7 * index)
        end[longer] += 1
        longer, index = longer[byte >= 0x80], index + 1
    return value, end


def _among(values: Array, choices: Sequence[int]) -> Array:
    """As numpy.isin, which takes several times as long for a few choices."""
    among: Array = values == choices[0]
    for choice in choices[1:]:
        among |= values == choice
    return among


def _require(good: Array, owner: Array) -> None:
    if not good.all():
        at = np.unique(owner[~good])
        raise RowsError("ROW_EXAMPLE", "bytes that are no tf.Example", "expected a serialized tf.train.Example", at)


def _kind_text(kind: int) -> str:
    return _KINDS[kind - 1]
