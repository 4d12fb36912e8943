"""Pictures -> what a decoder takes: the bytes of a column as they are, agreed with the tensor that they become.

Refuses to know how pictures are decoded: `runner/engine/picture.py` does it in front of the signature. The invariant:
the shape and the dtype that a rule leaves open are those of the tensor, and none is left open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.section.columns import Decode, InputColumn
from runner.binding.blame import Blame
from runner.binding.constant import mismatch
from runner.binding.nesting import plain
from runner.binding.source import nulls, text, typed_column
from runner.model.signature import TensorSpec
from runner.tensor import Strings, tensor_text, type_text

_DTYPES = ("uint8", "float32")


@dataclass(frozen=True, eq=False)
class PictureSource:
    """One column of pictures as they are stored. decode: with its shape and dtype."""

    name: str  # of the input
    column: str
    type: pa.DataType
    decode: Decode

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def describe(self) -> dict[str, str]:
        return {"column": self.column, "type": type_text(self.type), "note": _note(self.decode)}

    def document(self) -> dict[str, Any]:
        return {"column": self.column, "decode": self.decode.model_dump(mode="json")}

    @property
    def decoded_bytes(self) -> int:
        """Of a row."""
        return int(np.prod(self.decode.to or ())) * np.dtype(self.decode.dtype or "uint8").itemsize

    @cached_property
    def blame(self) -> Blame:
        return Blame(self.name, self.column)

    def feed(self, batch: pa.RecordBatch) -> Strings:
        """(rows,) of bytes. raises: RowError ROW_NULL."""
        values = plain(typed_column(batch, self.column, self.type, self.name))
        if (empty := nulls(values)) is not None:
            self.blame.refuse("ROW_NULL", "null", "expected a picture in every row", empty)
        return Strings(text(values), (len(values),))


def picture_source(spec: TensorSpec, rule: InputColumn, fields: Sequence[pa.Field]) -> PictureSource:
    """Agree on a column of pictures. raises: BindingError saying what was found and expected.

    fields: as of `runner.binding.feeding.input_source`.
    """
    assert rule.decode is not None
    decode = rule.decode
    if spec.encoding != "dense" or spec.dtype not in _DTYPES or not fields:
        raise mismatch("found 'decode'", f"pictures become dense tensors of uint8 or float32, not {spec}")
    if decode.dtype not in (None, spec.dtype):
        raise mismatch(f"found 'decode: {{dtype: {decode.dtype}}}'", f"the tensor is of {spec.dtype}")
    if decode.scale is not None and spec.dtype == "uint8":
        raise mismatch("found 'decode: {scale: ...}'", "numbers from 0 to 1 want a tensor of float32, not of uint8")
    types, kind = pa.types, fields[0].type
    if not (types.is_binary(kind) or types.is_large_binary(kind)):
        raise mismatch(f"found 'decode' for {type_text(kind)}", "expected a column of binary, which holds pictures")
    row = (None, None, None) if spec.shape is None else spec.shape[1:]
    wanted = row if decode.to is None else decode.to
    if len(row) != 3 or any(size not in (None, want) for size, want in zip(row, wanted, strict=True)):
        shape = tensor_text("", row)
        expected = f"the tensor has rows of the shape {shape}, and pictures are [height, width, channels]"
        raise mismatch(f"found 'decode: {{to: {list(decode.to)}}}'" if decode.to else "found 'decode'", expected)
    if None in wanted:
        expected = f"`{spec.name}: {{decode: {{to: [HEIGHT, WIDTH, CHANNELS]}}}}`: the tensor leaves its shape open"
        raise mismatch("found 'decode' without 'to'", f"expected {expected}")
    if wanted[2] not in (1, 3, 4):
        raise mismatch(f"found 'decode' for {wanted[2]} channels", "expected 1, 3 or 4, the last dimension of a row")
    settled = decode.model_copy(update={"to": tuple(wanted), "dtype": spec.dtype})
    return PictureSource(spec.name, fields[0].name, kind, settled)


def _note(decode: Decode) -> str:
    height, width, channels = decode.to or (0, 0, 0)
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}[channels]
    means = f"{'the center' if decode.crop else 'all'} of a picture to {height} x {width} {colours}"
    how = f"{decode.resize}{', antialiased' if decode.antialias else ''}"
    turned = "turned as EXIF says" if decode.orientation else "not turned"
    kinds = [
        *(["alpha is dropped" if decode.alpha == "drop" else "alpha is an error"] if channels != 4 else []),
        f"CMYK is {'converted' if decode.cmyk == 'convert' else 'an error'}",
        "of a GIF the first frame, of 16 bits the upper 8",
    ]
    scale = {"before": "0 to 1", "after": "0 to 1", None: "0 to 255"}[decode.scale]
    return f"{means}, {how}, {turned}, {scale}; {'; '.join(kinds)}"
