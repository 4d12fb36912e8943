"""Ragged and sparse tensors: which inputs of a signature together are one, and how one column fills it.

TensorFlow writes such an input as several tensors. Where the signature itself says what they are (TF1), nothing is to
be read off; exported functions (TF2) only have names, and these are the ones it gives:

    sparse  q, q_1, q_2               indices int64[?, rank], values [?], dense shape int64[rank]
    sparse  q_indices, q_values, q_dense_shape (or q_shape), the same three
    ragged  r, r_1, ... r_k           values [?, ...], then the row splits int64[?] or int32[?], the outermost first
    ragged  r_component_0, ... _k     the same

They are taken for one tensor where the job says so (`r: {column: tags, as: ragged}`), or where nothing else can be
meant: no column and no line of the job feeds any of the others, they have no default, the tensors fit one kind only,
and for r, r_1, ... the column has as many list levels as the tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from jobs.errors import one_of
from jobs.section.columns import Columns, InputColumn, OutputColumn
from runner.binding.constant import mismatch
from runner.binding.feeding import input_source
from runner.binding.fetching import Rules, Target, output_target
from runner.binding.naming import count
from runner.binding.nesting import peel
from runner.binding.padding import PadSource, cut_target, pad_source
from runner.binding.picture.source import picture_source
from runner.binding.ragged import RaggedSource, ragged_source, ragged_target
from runner.binding.shaping.agreement import shaped_target
from runner.binding.source import InputSource
from runner.binding.sparse import SparseSource, sparse_source, sparse_target
from runner.model.signature import Signature, TensorSpec

Specs = dict[str, TensorSpec]
PartsSource = RaggedSource | SparseSource  # where an input of several tensors comes from


def grouped(columns: Columns, schema: pa.Schema, signature: Signature) -> Signature:
    """The signature with one ragged or sparse input in the place of the tensors it is made of."""
    inputs = dict(signature.inputs)
    for whole in candidates(signature.inputs):
        names = [part.name for part in whole.parts]
        taken = all(name in inputs and not inputs[name].parts for name in names)
        if taken and _meant(whole, columns, schema, signature):
            for name in names:
                del inputs[name]
            inputs[whole.name] = whole
    return (
        signature if len(inputs) == len(signature.inputs) else replace(signature, inputs=dict(sorted(inputs.items())))
    )


def source_of(spec: TensorSpec, rule: InputColumn, fields: Sequence[pa.Field]) -> InputSource | PartsSource:
    """See `runner.binding.feeding.input_source`; also of ragged and sparse inputs."""
    if rule.as_ is not None and rule.as_ != spec.encoding:
        known = {"ragged": f"{spec.name}, {spec.name}_1, ...", "sparse": f"{spec.name}, {spec.name}_1, {spec.name}_2"}
        expected = f"the tensors of a {rule.as_} one, such as {known[rule.as_]}"
        raise mismatch(f"found 'as: {rule.as_}' for a {spec.encoding} input", f"expected {expected}", "MODEL_SIGNATURE")
    if rule.shape is not None and spec.encoding != "sparse":
        raise mismatch(f"found 'shape' for a {spec.encoding} input", "only a sparse one has a shape to give")
    if rule.pad is not None and (spec.encoding != "dense" or rule.column is None or not fields):
        raise mismatch("found 'pad'", "only a list column in a dense tensor of numbers or strings is padded")
    if rule.decode is not None:
        return picture_source(spec, rule, fields)
    if spec.encoding not in ("ragged", "sparse"):
        return input_source(spec, rule, fields) if rule.pad is None else pad_source(spec, rule, fields[0])
    if rule.column is None:
        expected = f"expected one column of lists: `inputs: {{{spec.name}: COLUMN}}`"
        raise mismatch(f"found a {spec.encoding} input", expected, "MODEL_SIGNATURE")
    if not fields:  # its dtype cannot be fed
        raise mismatch(f"found dtype {spec.dtype}", "expected numbers, booleans or strings", "MODEL_SIGNATURE")
    return (ragged_source if spec.encoding == "ragged" else sparse_source)(spec, rule, fields[0])


def target_of(
    spec: TensorSpec,
    rule: OutputColumn,
    batch_rows: int | None,
    tensor_encoding: str,
    padded: Mapping[str, PadSource],
    rules: Rules,
) -> Target:
    """See `fetching.output_target`; also of ragged and sparse outputs, those that follow a padded input, and what is
    computed of one."""
    if rule.shapes:
        return shaped_target(spec, rule, batch_rows, tensor_encoding, rules)
    if rule.cut is not None:
        if rule.cut not in padded:
            expected = f"expected an input with 'pad'; there is {one_of(list(padded), rule.cut)}"
            raise mismatch(f"found 'cut: {rule.cut}'", expected, "MODEL_SIGNATURE")
        return cut_target(spec, rule, padded[rule.cut], rules)
    if spec.encoding == "ragged":
        return ragged_target(spec, rule, rules)
    if spec.encoding == "sparse":
        return sparse_target(spec, rule, rules)
    return output_target(spec, rule, batch_rows, tensor_encoding, rules)


def _meant(whole: TensorSpec, columns: Columns, schema: pa.Schema, signature: Signature) -> bool:
    inputs, own = signature.inputs, signature.own
    rule = columns.inputs.get(whole.name)
    if rule is not None and rule.as_ is not None:
        return rule.as_ == whole.encoding
    others = [part for part in whole.parts if part.name != whole.name]
    if any(part.name in columns.inputs or count(own(part.name), schema) or part.default is not None for part in others):
        return False
    kinds = {one.encoding for one in candidates(inputs) if one.name == whole.name}
    if len(kinds) > 1 or (rule is not None and rule.column is None):
        return False
    if whole.encoding == "sparse" or whole.name not in inputs:
        return True
    column = own(whole.name) if rule is None else rule.column
    if column is None or count(column, schema) != 1:
        return False
    (levels, leaf), wanted = peel(schema.field(column).type), len(whole.shape or ()) - 1
    missing = leaf is not None and pa.types.is_null(leaf)  # in all rows: it may have any further level
    return len(levels) == wanted or (missing and len(levels) < wanted)


def candidates(inputs: Specs) -> Iterator[TensorSpec]:
    """What inputs may be parts of, by their names and types."""
    for name in inputs:
        run = _run(inputs, name, [name])
        sparse = _sparse(name, run[:3])
        if sparse:
            yield sparse
        # A dense shape of known size is no row splits, and leaves no doubt.
        if not (sparse and sparse.shape) and (ragged := _ragged(name, run)):
            yield ragged
        if named := re.fullmatch(r"(.+)_indices", name):
            base = named[1]
            sizes = next((end for end in ("dense_shape", "shape") if f"{base}_{end}" in inputs), "")
            parts = [inputs[part] for part in (name, f"{base}_values", f"{base}_{sizes}") if part in inputs]
            if sparse := _sparse(base, parts):
                yield sparse
        if (named := re.fullmatch(r"(.+)_component_0", name)) and (
            ragged := _ragged(named[1], _run(inputs, f"{named[1]}_component", [name]))
        ):
            yield ragged


def _run(inputs: Specs, base: str, names: list[str]) -> list[TensorSpec]:
    """The inputs `names`, and those called base_1, base_2, ... as far as they go."""
    while f"{base}_{len(names)}" in inputs:
        names = [*names, f"{base}_{len(names)}"]
    return [inputs[name] for name in names]


def _sparse(name: str, parts: Sequence[TensorSpec]) -> TensorSpec | None:
    if len(parts) != 3 or any(part.shape is None for part in parts):
        return None
    indices, values, sizes = parts
    rank = (sizes.shape or (None,))[0]
    if (indices.dtype, sizes.dtype) != ("int64", "int64") or [len(part.shape or ()) for part in parts] != [2, 1, 1]:
        return None
    if (indices.shape or ())[1:] != (rank,) or rank == 0:
        return None
    shape = None if rank is None else (None,) * rank
    return TensorSpec(name, values.dtype, shape, "", "sparse", (indices, values, sizes))


def _ragged(name: str, parts: Sequence[TensorSpec]) -> TensorSpec | None:
    """The longest ragged tensor that `parts` begin with."""
    splits = []
    for part in parts[1:]:
        if part.dtype not in ("int32", "int64") or part.shape != (None,) or part.dtype != parts[1].dtype:
            break
        splits.append(part)
    values = parts[0]
    if not splits or not values.shape or values.shape[0] is not None:
        return None
    shape = (None,) * (1 + len(splits)) + values.shape[1:]
    return TensorSpec(name, values.dtype, shape, "", "ragged", (values, *splits))
