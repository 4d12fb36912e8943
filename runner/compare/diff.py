"""Read two columns of an output, and say in what they differ.

Refuses to know what a difference is. The invariant: the columns that came along are read for the rows that are told,
and for no other.
"""

from __future__ import annotations

import pyarrow as pa

from connectors.output.look.rows import Rows, read_rows
from connectors.secret import redact
from jobs.errors import JobError, offenders, one_of
from jobs.section.output import Output
from runner.compare.agreement import QUANTILES, Agreement, Differing, Measure, Taken
from runner.compare.distance import comparable, farthest, kind_of, spoken
from runner.compare.tally import Tally

ROWS = 10  # that differ most, where nobody says how many
_PAIRS = 10


def diff(output: Output, left: str, right: str, rows: int = ROWS) -> Agreement:
    """Compare two columns of what a job has written, or has written so far.

    output: only its url and options are used.
    rows:   that differ most, to be told.
    raises: JobError for a column that is not there, two of different kinds, or one and the same; as `read_rows`.
    cost:   one pass over the two columns, a row group at a time; 20 MiB, and what so many rows and labels take.
    """
    found = read_rows(output)
    kind = _check(found, left, right)
    tally = Tally(kind_of(kind), rows)
    for shard, first, table in found.tables([left, right]):
        for batch in table.to_batches():
            tally.add(batch.column(0), batch.column(1), shard, first)
            first += batch.num_rows
    pairs = tally.pairs.most_common(_PAIRS) if tally.pairs else []
    return Agreement(
        output=found.store.url,
        plan_id=found.plan.id,
        left=left,
        right=right,
        kind=tally.kind,
        shards=len(found.plan.shards),
        shards_done=len(found.receipts),
        rows=tally.rows,
        equal=tally.equal,
        nan_left=tally.nan_left,
        nan_right=tally.nan_right,
        nan_both=tally.nan_both,
        infinite=tally.infinite,
        unmatched=tally.unmatched,
        measure=_measure(tally),
        pairs=tuple(Taken(*pair, count) for pair, count in pairs),
        different_pairs=None if tally.pairs is None else len(tally.pairs),
        most=_most(found, tally),
    )


def _check(found: Rows, left: str, right: str) -> pa.DataType:
    """The type of the left column. raises: JobError with all that is wrong."""
    place = redact(found.store.url)
    schema = found.schema()
    names = list(schema.names)
    absent = [
        f"there is no column '{name}'; it has {one_of(names, name)}"
        for name in dict.fromkeys((left, right))
        if not schema.get_all_field_indices(name)
    ]
    if absent:
        told = f" {absent[0]}" if len(absent) == 1 else f"\n{offenders(absent)}"
        raise JobError(f"cannot compare columns of '{place}':{told}")
    if left == right:
        others = one_of([name for name in names if name != left])
        raise JobError(f"cannot compare column '{left}' of '{place}' with itself: name another one, of {others}")
    types = [schema.field(name).type for name in (left, right)]
    if not comparable(*types):
        raise JobError(
            f"cannot compare columns '{left}' and '{right}' of '{place}': one holds {spoken(types[0])}, the other"
            f" {spoken(types[1])};"
            " expected two of whole numbers, of floats, of booleans, of text, of bytes, or lists or structs of such"
        )
    return types[0]


def _measure(tally: Tally) -> Measure | None:
    """None where no row has a number on both sides."""
    if not tally.measured:
        return None
    scalar = tally.kind == "number"
    return Measure(
        rows=tally.measured,
        mean=tally.total / tally.measured if scalar else None,
        mean_absolute=tally.total_absolute / tally.measured,
        largest=tally.sketch.largest,
        quantiles={name: tally.sketch.quantile(share) for name, share in QUANTILES.items()},
        zeros=tally.sketch.zeros,
        decades=tally.sketch.decades(),
        correlation=tally.moments.correlation if scalar else None,
    )


def _most(found: Rows, tally: Tally) -> tuple[Differing, ...]:
    places = [(far.shard, far.row) for far in tally.far]
    kept, origins = found.kept_of(places), found.origins(places)
    return tuple(
        Differing(
            origin.file,
            origin.row_group,
            origin.row,
            far.left,
            far.right,
            far.difference,
            farthest(far.left, far.right) if tally.kind == "numbers" else None,
            beside,
        )
        for far, beside, origin in zip(tally.far, kept, origins, strict=True)
    )
