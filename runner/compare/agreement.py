"""What came out of comparing two columns of an output, as a value: for people, for notebooks and for scripts.

Refuses to know how it was computed. The invariant: each number says of how many rows it speaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs import notebook
from jobs.words import counted
from runner.compare.distance import Kind, flat
from runner.compare.picture import picture

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_MOST_PAIRS = 10  # that are told
_LETTERS = 60  # of a value in a table


@dataclass(frozen=True, slots=True)
class Taken:
    """rows: in which the left column says one thing and the right one another."""

    left: Any
    right: Any
    rows: int


@dataclass(frozen=True, slots=True)
class Differing:
    """A row that differs. file, row_group, row: of the input, as in a reject file. difference: right minus left, of
    lists their largest; None where there is no measure. at: the element of lists that differs most, counted through
    from 0. kept: the columns that the job keeps."""

    file: str
    row_group: int
    row: int
    left: Any
    right: Any
    difference: float | None
    at: int | None
    kept: Mapping[str, Any]

    @property
    def cells(self) -> tuple[str, str]:
        """What both columns hold, short: of lists the element that differs most."""
        if self.at is None:
            return short(self.left), short(self.right)
        left, right = (f"[{self.at}] {short(flat(side)[self.at])}" for side in (self.left, self.right))
        return left, right


@dataclass(frozen=True, slots=True)
class Measure:
    """How far numbers lie apart, over `rows` rows. Of lists, the largest difference of each row, without a sign.

    mean:      of right minus left; None of lists.
    quantiles: of the absolute difference, at most 0.1 % below. decades: power of ten -> rows that differ by as much, or
               by up to ten times; rows without a difference are in `zeros`.
    correlation: of two columns of numbers of which neither is constant.
    """

    rows: int
    mean: float | None
    mean_absolute: float
    largest: float
    quantiles: Mapping[str, float]
    zeros: int
    decades: Mapping[int, int]
    correlation: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Agreement:
    """Two columns of an output, compared row by row.

    shards_done: of `shards`; all of them where the job has finished.
    equal:       rows of the same bits; NaN equals NaN. Columns of two widths: of the same number.
    nan_left, nan_right, nan_both: rows with a NaN on one side only, or on both; in no measure.
    infinite:    rows that are infinitely far apart. unmatched: rows with a null on one side, or lists of two lengths.
    measure:     of numbers and lists of numbers; None where no row has one.
    pairs:       what is taken for what, the most frequent first: of labels and whole numbers. different_pairs: how many
                 there are; None: more than 100,000, and none is told.
    most:        the rows that differ most, the first of those that differ as much.
    """

    output: str
    plan_id: str
    left: str
    right: str
    kind: Kind
    shards: int
    shards_done: int
    rows: int
    equal: int
    nan_left: int = 0
    nan_right: int = 0
    nan_both: int = 0
    infinite: int = 0
    unmatched: int = 0
    measure: Measure | None = None
    pairs: tuple[Taken, ...] = ()
    different_pairs: int | None = 0
    most: tuple[Differing, ...] = field(default=())

    @property
    def share(self) -> float:
        """Of rows that are equal; 1 where there are none."""
        return self.equal / self.rows if self.rows else 1.0

    @property
    def finished(self) -> bool:
        return self.shards_done == self.shards

    @property
    def odd(self) -> dict[str, int]:
        """Rows that no measure speaks of, in words."""
        named = {
            f"NaN in '{self.left}' only": self.nan_left,
            f"NaN in '{self.right}' only": self.nan_right,
            "NaN in both": self.nan_both,
            "infinitely far apart": self.infinite,
            "null or of another length on one side": self.unmatched,
        }
        return {words: rows for words, rows in named.items() if rows}

    def facts(self) -> dict[str, str]:
        """The figures as what: ..., for people."""
        told = {
            "output": self.output,
            "so far": "" if self.finished else f"{self.shards_done:,} of {counted(self.shards, 'shard')}",
            "compared": f"'{self.left}' with '{self.right}' in {counted(self.rows, 'row')}",
            "equal": f"{self.equal:,} ({percent(self.equal, self.rows)})",
        }
        if self.measure is not None:
            told |= self._measured(self.measure)
        told["not measured"] = ", ".join(f"{rows:,} {words}" for words, rows in self.odd.items())
        return {name: words for name, words in told.items() if words}

    def _measured(self, measure: Measure) -> dict[str, str]:
        what = "largest of each row" if self.kind == "numbers" else f"'{self.right}' minus '{self.left}'"
        mean = "" if measure.mean is None else f"mean {number(measure.mean)}, "
        absolute = f"{mean}mean absolute {number(measure.mean_absolute)}, maximum {number(measure.largest)}"
        quantiles = ", ".join(f"{name} {number(value)}" for name, value in measure.quantiles.items())
        told = {"difference": f"{absolute} ({what})", "absolute": quantiles}
        if measure.correlation is not None:
            told["correlation"] = _nearly(measure.correlation)
        return told

    def document(self) -> dict[str, Any]:
        """As plain JSON values. What JSON has no number for is a text: 'NaN', 'Infinity', '-Infinity'."""
        measure = self.measure
        document = {
            **{name: getattr(self, name) for name in _PLAIN},
            "finished": self.finished,
            "share": self.share,
            "measure": None if measure is None else {name: getattr(measure, name) for name in _MEASURED},
            "pairs": [{"left": one.left, "right": one.right, "rows": one.rows} for one in self.pairs],
            "most": [{name: getattr(one, name) for name in _DIFFERING} for one in self.most],
        }
        made: dict[str, Any] = _json(document)
        return made

    def __repr__(self) -> str:
        told = "; ".join(f"{name}: {words}" for name, words in self.facts().items() if name != "output")
        return f"<Agreement in '{self.output}': {told}>"

    def _repr_html_(self) -> str:
        drawn = picture(self.measure.zeros, self.measure.decades) if self.measure is not None else ""
        pairs = ((short(one.left), short(one.right), one.rows) for one in self.pairs)
        taken = notebook.table((self.left, self.right, "rows"), pairs) if self.pairs else ""
        return notebook.facts("Agreement", self.facts(), share=self.share, below=f"{drawn}{taken}{self._table()}")

    def _table(self) -> str:
        if not self.most:
            return ""
        kept = list(self.most[0].kept)
        heads = (*kept, self.left, self.right, "difference", "file", "row group", "row")
        rows = (
            (
                *(short(one.kept.get(name)) for name in kept),
                *(*one.cells, number(one.difference)),
                *(one.file.rpartition("/")[2], one.row_group, one.row),
            )
            for one in self.most
        )
        return f"<p>rows that differ most</p>{notebook.table(heads, rows)}"


_PLAIN = (
    *("output", "plan_id", "left", "right", "kind", "shards", "shards_done", "rows", "equal"),
    *("nan_left", "nan_right", "nan_both", "infinite", "unmatched", "different_pairs"),
)
_MEASURED = tuple(Measure.__dataclass_fields__)
_DIFFERING = tuple(Differing.__dataclass_fields__)


def _nearly(correlation: float) -> str:
    """Six digits; 1 only where it is 1."""
    text = f"{correlation:.6f}"
    return text if abs(correlation) == 1 or not text.endswith("1.000000") else f"beyond {text[:-8]}0.999999"


def percent(part: int, whole: int) -> str:
    """`99.98%`; 100% only where it is all, and 0% only where it is none."""
    if part in (0, whole):
        return "100%" if part == whole else "0%"
    return f"{min(max(round(100 * part / whole, 2), 0.01), 99.99):g}%"


def number(value: float | None) -> str:
    """A few digits; nothing where there is no measure."""
    return "" if value is None else f"{value:.4g}"


def short(value: Any) -> str:
    """As a cell of a table."""
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}..."


def _json(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(name): _json(one) for name, one in value.items()}
        case list() | tuple():
            return [_json(one) for one in value]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case None | bool() | int() | float() | str():
            return value
    return str(value)
