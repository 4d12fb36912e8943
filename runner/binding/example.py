"""An input of serialized tf.Examples made of columns; the bytes are `connectors.formats.tfrecord.example`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.formats.tfrecord.example import RowsError, Rule, encode, kind_of
from connectors.formats.widening import common_type
from jobs.section.columns import InputColumn
from runner.binding.blame import Blame
from runner.binding.cast.agreement import advice
from runner.binding.cast.cast import as_type, unheld
from runner.binding.cast.reading import rule_key
from runner.binding.constant import mismatch
from runner.binding.nesting import peel, plain
from runner.binding.source import typed_column
from runner.model.signature import TensorSpec
from runner.tensor import Strings, type_text


@dataclass(frozen=True)
class ExampleSource:
    """features: name -> column and its type."""

    name: str  # of the input
    features: dict[str, tuple[str, pa.DataType]]
    rule: Rule = "safe"  # of numbers, see `encode`
    without_empty: bool = True  # an empty list leaves its feature out

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column for column, _ in self.features.values()))

    def describe(self) -> dict[str, str]:
        named = ", ".join(self.columns[:3]) + (", ..." if len(self.columns) > 3 else "")
        types = ", ".join(dict.fromkeys(type_text(kind) for _, kind in self.features.values()))
        rounded = "; rounded to float32" if self.rounds else ""
        return {"column": named, "type": types, "note": f"tf.Example of {len(self.features)} features{rounded}"}

    def checked(self) -> ExampleSource | None:
        """The same, failing for the rows in which `cast: unsafe` changes a value; None where it is not said."""
        return replace(self, rule="exact") if self.rule == "unsafe" else None

    @property
    def rounds(self) -> bool:
        """Whether a value may be rounded: floats of a tf.Example are float32."""
        leaves = [peel(common_type(kind))[1] for _, kind in self.features.values()]
        return self.rule == "safe" and any(leaf is not None and pa.types.is_float64(leaf) for leaf in leaves)

    def document(self) -> dict[str, Any]:
        features = [[name, column, kind_of(common_type(kind))] for name, (column, kind) in self.features.items()]
        more: dict[str, Any] = {} if self.without_empty else {"empty": "empty"}
        more |= {"exact": True} if self.rule == "exact" else {}
        return {"example": features, "cast": "unsafe" if self.rule == "unsafe" else "safe"} | more

    def feed(self, batch: pa.RecordBatch) -> Strings:
        """(rows,) serialized Examples. raises: DataError ROW_NULL, ROW_OVERFLOW, ROW_INEXACT naming column and row."""
        made = {name: self._values(batch, column, kind) for name, (column, kind) in self.features.items()}
        try:
            messages = encode([*made.items()], batch.num_rows, self.rule, self.without_empty)
            return Strings(messages, (batch.num_rows,))
        except RowsError:
            for name, values in made.items():  # once more, to say which column it is
                self._check(name, values)
            raise

    def _values(self, batch: pa.RecordBatch, column: str, kind: pa.DataType) -> pa.Array:
        """Of what is mixed in `kind` always the same list of a feature: that of the type over all files."""
        values, common = plain(typed_column(batch, column, kind, self.name)), common_type(kind)
        if common == kind:
            return values
        if self.rule != "unsafe" and (failed := unheld(values, common)):
            holds = f"a value that {type_text(common)}, its type over all files, cannot hold"
            at, expected = np.array(failed), f"expected one that fits, or `{rule_key(self.name)}.cast: unsafe`"
            raise Blame(self.name, column).row_error("ROW_INEXACT", [holds] * len(at), expected, at)
        return as_type(values, common, safe=self.rule != "unsafe")

    def _check(self, name: str, values: pa.Array) -> None:
        try:
            encode([(name, values)], len(values), self.rule)
        except RowsError as error:
            advice = "" if error.code == "ROW_NULL" else f", or `{rule_key(self.name)}.cast: unsafe`"
            expected = error.expected + advice
            column, _ = self.features[name]
            holds = [error.found] * len(error.at)
            raise Blame(self.name, column).row_error(error.code, holds, expected, error.at) from error


def example_source(spec: TensorSpec, rule: InputColumn, fields: Mapping[str, pa.Field]) -> ExampleSource:
    """Agree on the features of an input that takes serialized Examples.

    fields:  feature name -> the column it is made of.
    raises:  BindingError saying what was found and expected.
    """
    if spec.dtype != "string" or spec.shape not in (None, (None,)):
        raise mismatch("found 'example'", f"expected an input string[?], which takes serialized Examples, not {spec}")
    if rule.null != "error":
        raise mismatch("found a 'null:' rule", "expected none: the feature of a null row is left out of its Example")
    for field in fields.values():
        if kind_of(_plain(common_type(field.type))) is None:
            leaf = peel(field.type)[1]
            column = f"found {type_text(field.type)} in column {field.name!r}"
            nested = leaf is None or pa.types.is_nested(leaf) or kind_of(leaf) is not None
            expected = "expected values, or lists of them; only the outermost may differ in length"
            raise mismatch(column, expected if leaf is None or nested else advice(leaf, "int64"))
    features = {name: (field.name, field.type) for name, field in fields.items()}
    assert rule.example is not None  # it is why this is called
    numbers: Rule = "exact" if rule.exact else "unsafe" if rule.cast == "unsafe" else "safe"
    return ExampleSource(spec.name, features, numbers, rule.example.empty == "missing")


def _plain(kind: pa.DataType) -> pa.DataType:
    encoded = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return kind.value_type if encoded else kind
