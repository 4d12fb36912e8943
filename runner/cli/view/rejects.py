"""How rejected rows look, on a terminal and to scripts. Words only: `connectors.output.reject` finds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow.compute as pc
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from connectors.output.reject import Rejected
from connectors.secret import redact
from jobs.errors import JobError, one_of
from jobs.words import counted
from runner.report.console import printable

_SHOWN = 20  # rows where no limit is given
_MOST_CAUSES = 1_000  # messages that are told apart
_OTHERS = "other messages: see --wide or --json"
_NARROW = ("file", "row group", "row")
_WIDE = ("code", *_NARROW, "column", "message")
_LETTERS = 60  # of a kept value


def document(rejected: Rejected, code: str | None = None, limit: int | None = None) -> dict[str, Any]:
    """For scripts; every row with all that its reject file says. raises: JobError for a code that no row has."""
    _check(rejected, code)
    return {
        "output": rejected.output,
        "plan_id": rejected.plan.id,
        "rows_rejected": rejected.rows,
        "codes": dict(rejected.codes().most_common()),
        "files_skipped": rejected.skipped,
        "rows": [*rows(rejected, code, limit)],
    }


def rows(rejected: Rejected, code: str | None = None, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The rejected rows, in the order of the input."""
    left = rejected.rows if limit is None else limit
    for table in rejected.tables():
        if left <= 0:
            return
        chosen = table if code is None else table.filter(pc.equal(table["code"], code))
        some = chosen.slice(0, left).to_pylist()
        left -= len(some)
        yield from some


def render(rejected: Rejected, code: str | None = None, limit: int | None = None, wide: bool = False) -> Group:
    """Counts by code, and the first rows: below the message that they share, or with `wide` each with its own.

    raises: JobError for a code that no row has.
    """
    _check(rejected, code)
    limit = _SHOWN if limit is None else limit
    codes = rejected.codes()
    head = Text(f"{rejected.rows:,} of {counted(rejected.plan.rows, 'row')} rejected in {rejected.output}")
    counts = [Text(f"  {count:>9,}  {name}") for name, count in codes.most_common()]
    skipped = [
        Text(printable(f"  skipped    {redact(url)}: {why}"), style="yellow") for url, why in rejected.skipped.items()
    ]
    if not limit or not codes:
        return Group(head, *counts, *skipped)
    many = codes[code] if code is not None else rejected.rows
    groups = [_Causes(1, [*rows(rejected, code, limit)])] if wide else grouped(rows(rejected, code), limit)
    shown = sum(len(group.first) for group in groups)
    more = [Text(f"and {many - shown:,} more: --limit N, or --json")] if many > shown else []
    tables = [_table(groups[0].first, _WIDE)] if wide else [part for group in groups for part in _told(group)]
    return Group(head, *counts, *skipped, Text(), *tables, *more)


@dataclass
class _Causes:
    """Rows that share code, column and message: how many, and the first of them."""

    count: int
    first: list[dict[str, Any]]


def grouped(found: Iterable[dict[str, Any]], limit: int) -> list[_Causes]:
    """Rows by what is said of them, the most frequent first, with `limit` rows in all: each cause has one at least, as
    far as that goes.

    cost: at most so many causes are held, and `limit` rows of each; those that come later are counted by their code.
    """
    causes: dict[tuple[str, str, str], _Causes] = {}
    for row in found:
        key = row["code"], row["column"] or "", row["message"]
        if key not in causes and len(causes) >= _MOST_CAUSES:
            key = row["code"], "", _OTHERS
            row = row | {"column": "", "message": _OTHERS}
        cause = causes.setdefault(key, _Causes(0, []))
        cause.count += 1
        if len(cause.first) < limit:
            cause.first.append(row)
    ordered = sorted(causes.values(), key=lambda cause: -cause.count)[:limit]
    left = limit - len(ordered)
    for cause in ordered:
        given = min(left, len(cause.first) - 1)
        del cause.first[1 + given :]
        left -= given
    return ordered


def _told(cause: _Causes) -> list[Any]:
    row = cause.first[0]
    column = f", column {row['column']}" if row["column"] else ""
    head = Text(printable(f"{row['code']}, {counted(cause.count, 'row')}{column}"), style="bold")
    return [head, Text(printable(f"  {row['message']}")), Padding.indent(_table(cause.first, _NARROW), 2), Text()]


def _table(shown: list[dict[str, Any]], columns: Sequence[str]) -> Table:
    """columns: of the row; the columns that were kept stand before its message."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    kept = list(next((row["kept"] for row in shown if row.get("kept")), {}))
    names = [name for name in columns if name != "message"], [name for name in columns if name == "message"]
    for name in (*names[0], *kept, *names[1]):
        table.add_column(name, justify="right" if name in ("row group", "row") else "left", no_wrap=name in names[0])
    for row in shown:
        file = PurePosixPath(redact(row["file"])).name
        cells = {"code": row["code"], "file": file, "column": row["column"] or "", "message": row["message"]}
        cells |= {"row group": str(row["row_group"]), "row": str(row["row"])}
        values = [_short((row.get("kept") or {}).get(name)) for name in kept]
        told = [*(cells[name] for name in names[0]), *values, *(cells[name] for name in names[1])]
        table.add_row(*(Text(printable(cell)) for cell in told))
    return table


def _short(value: Any) -> str:
    text = "" if value is None else str(value) if isinstance(value, str | int | float) else repr(value)
    return text if len(text) <= _LETTERS else text[: _LETTERS - 3] + "..."


def _check(rejected: Rejected, code: str | None) -> None:
    codes = rejected.codes()
    if code is not None and code not in codes:
        present = one_of([*codes], code)
        raise JobError(f"no row of '{redact(rejected.output)}' was rejected with code '{code}': there is {present}")


def plain(value: Any) -> str:
    """What JSON has no word for, as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
