"""One call of a signature by hand: inputs from files, expressions or examples; outputs as arrays.

Knows neither jobs nor columns. The invariant: nothing that is given is run as code, unless a pickle is allowed.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.formats.tfrecord.example import encode
from jobs.errors import JobError, OutputError, one_of
from runner.cli import expression
from runner.engine import EngineOptions, ModelOptions, load
from runner.engine.quiet import NativeNotes
from runner.model.signature import ModelSpec, Signature, TensorSpec
from runner.tensor import (
    AS_BITS,
    DTYPES,
    Feeds,
    Outputs,
    Strings,
    Tensor,
    bits_of,
    carrier,
    natural,
    tensor_text,
    values_of,
)

Arrays = dict[str, npt.NDArray[Any]]

_FILE = re.compile(r"([^\[\]]+?)(?:\[([^\[\]]+)\])?")  # PATH or PATH[NAME]
_INT64 = range(-(2**63), 2**63)


def inputs_of(inputs: Sequence[str], exprs: Sequence[str], examples: Sequence[str], allow_pickle: bool) -> Arrays:
    """The arrays of all three forms, each 'KEY=VALUE', several in one separated by ';'.

    inputs:   'x=file.npy', 'x=file.npz[name]', or a pickle.
    exprs:    'x=np.ones((2, 3))': see `expression`.
    examples: 'x=[{"age": [22], "education": ["BS"]}]': a serialized tf.Example for each dict.
    raises:   JobError naming the key.
    """
    arrays: Arrays = {}
    for text in inputs:
        for key, value in _pairs(text.split(";"), "key=file"):
            _add(arrays, key, _file(key, value, allow_pickle))
    for text in exprs:
        for key, value in _pairs(_parts(text), "key=expression"):
            _add(arrays, key, expression.array(value))
    for text in examples:
        for key, value in _pairs(_parts(text), "key=[{...}]"):
            _add(arrays, key, _examples(key, value))
    return arrays


def call(
    model: ModelSpec,
    tags: Sequence[str],
    signature: Signature,
    given: Mapping[str, npt.NDArray[Any]],
    options: ModelOptions,
) -> Outputs:
    """Load the model here, call the signature once, and give back all of its dense outputs that are values.

    raises: JobError where the arrays do not fit the signature; whatever the engine raises.
    """
    if unknown := [key for key in given if key not in signature.inputs]:
        raise JobError(
            f"no input {unknown[0]!r} in signature {signature.name!r}: it has"
            f" {one_of(list(signature.inputs), unknown[0])}"
        )
    missing = [str(key) for key, spec in signature.inputs.items() if key not in given and spec.default is None]
    if missing:
        raise JobError(
            f"no value for {one_of(missing)} of signature {signature};"
            " give one by --inputs, --exprs, --examples or --rows"
        )
    feeds = {key: tensor_of(value, signature.inputs[key]) for key, value in given.items()}
    return run(model, tags, signature, feeds, options)


def run(model: ModelSpec, tags: Sequence[str], signature: Signature, feeds: Feeds, options: ModelOptions) -> Outputs:
    """As `call`, with the tensors themselves."""
    outputs = signature.outputs.values()
    fetches = [spec.name for spec in outputs if spec.encoding == "dense" and spec.dtype in DTYPES]
    with NativeNotes("loaded the model"):
        engine = load("session", model.path, tags, signature, EngineOptions(threads=1, model=options))
    try:
        return engine.run(feeds, fetches)
    finally:
        engine.close()


def tensor_of(value: npt.NDArray[Any], spec: TensorSpec) -> Tensor:
    """An array as the tensor of an input. Rounding to a shorter float is fine, any other loss is not.

    raises: JobError naming the input.
    """
    if spec.encoding != "dense" or spec.dtype not in DTYPES:
        raise JobError(f"cannot feed input {spec.name!r}: it is {spec}; only dense tensors can be given by hand")
    if spec.dtype == "string":
        return Strings(pa.array([_bytes(each, spec) for each in value.reshape(-1)], pa.large_binary()), value.shape)
    wanted, carried, as_bits = natural(spec.dtype), carrier(spec.dtype), spec.dtype in AS_BITS
    if as_bits and value.dtype.kind == "V" and value.dtype.itemsize == carried.itemsize:
        return (
            np.ascontiguousarray(value).reshape(value.shape).view(carried)
        )  # NumPy's name of it is lost in a .npy file
    if value.dtype.kind in "biufc" and _fits(value, wanted):
        converted = np.ascontiguousarray(value.astype(wanted)).reshape(value.shape)  # the former makes () to (1,)
        tensor = np.asarray(bits_of(converted, spec.dtype))
        if not as_bits or _fits_bits(value, values_of(tensor, spec.dtype)):
            return tensor
    given = tensor_text(str(value.dtype), value.shape)
    raise JobError(f"cannot feed input {spec.name!r}: {given} does not fit {spec} without loss; give that dtype")


def as_array(tensor: Tensor, dtype: str) -> npt.NDArray[Any]:
    """An output as NumPy users expect it: bfloat16 and float8 as float32, int4 as int8, strings as bytes."""
    if isinstance(tensor, Strings):
        values = tensor.values.to_pylist()
        # NumPy's own bytes lose zeros at the end; objects keep them, at the price of a pickle in the file.
        kind = object if any(value.endswith(b"\0") for value in values) else np.bytes_
        return np.array([*values, b""], kind)[:-1].reshape(tensor.shape)
    return values_of(tensor, dtype)


def output_files(signature: Signature, folder: Path, overwrite: bool) -> dict[str, Path]:
    """Output -> the file that it is written to. raises: OutputError where one is there and may not be replaced."""
    # Names may hold anything; what a file name may not is written as %XX.
    names = {
        name: re.sub(r"[/\\%\x00-\x1f]|^\.", lambda odd: f"%{ord(odd[0]):02X}", name) for name in signature.outputs
    }
    files = {name: folder / f"{safe}.npy" for name, safe in names.items()}
    if not overwrite and (present := [str(path) for path in files.values() if path.exists()]):
        raise OutputError(
            f"cannot write to '{folder}': it has {one_of(present)}; choose another folder, or --overwrite"
        )
    return files


def example_bytes(features: Mapping[str, Sequence[Any]]) -> bytes:
    """A serialized tf.Example. features: name -> integers, floats, or text and bytes, all of one kind.

    raises: JobError naming a feature of another kind.
    """
    return bytes(encode([(name, _feature(name, values)) for name, values in features.items()], 1)[0].as_py())


def _feature(name: str, values: Sequence[Any]) -> pa.ListArray:
    """A column of one row."""
    if not isinstance(values, list | tuple):
        values = [values]
    kinds = {"number" if isinstance(each, bool | int) else type(each).__name__ for each in values}
    if kinds <= {"str", "bytes"}:
        return pa.array([[each.encode() if isinstance(each, str) else each for each in values]], pa.list_(pa.binary()))
    if kinds == {"number"} and all(each in _INT64 for each in values):
        return pa.array([[int(each) for each in values]], pa.list_(pa.int64()))
    if kinds <= {"number", "float"}:
        return pa.array([np.array(values, np.float32)], pa.list_(pa.float32()))
    raise JobError(f"cannot write feature {name!r}: it holds {one_of(sorted(kinds))}; expected numbers, or text, alone")


def _examples(key: str, text: str) -> npt.NDArray[Any]:
    rows = expression.literal(text)
    dicts = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not dicts or not all(isinstance(name, str) for row in rows for name in row):
        raise JobError(f"cannot make examples for input {key!r}: expected a list of dicts, [{{'age': [22]}}, ...]")
    return np.array([*map(example_bytes, rows), None], object)[:-1]  # the None keeps NumPy from guessing


def _file(key: str, text: str, allow_pickle: bool) -> npt.NDArray[Any]:
    match = _FILE.fullmatch(text)
    path, name = (Path(match[1]), match[2]) if match else (Path(text), None)
    try:
        with path.open("rb") as file:  # NumPy leaves one open that it cannot read
            return _array(key, path, file, name, allow_pickle)
    except OSError as error:
        raise JobError(f"cannot read '{path}' for input {key!r}: {error.strerror or error}; check the path") from error


def _array(key: str, path: Path, file: BinaryIO, name: str | None, allow_pickle: bool) -> npt.NDArray[Any]:
    try:
        loaded = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:  # neither .npy nor .npz, or with objects in it
        if not allow_pickle:
            raise JobError(
                f"cannot read '{path}' for input {key!r}: it is no plain .npy or .npz file; a pickle runs code when"
                " it is read: if you made it yourself, give --allow-pickle"
            ) from error
        file.seek(0)
        loaded = _unpickled(path, file)
    if not isinstance(loaded, Mapping):
        return np.asarray(loaded)
    names = list(loaded)
    if not names:
        raise JobError(f"cannot read '{path}' for input {key!r}: there is no array in it")
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        wanted = "several arrays" if name is None else f"no array {name!r}"
        raise JobError(f"cannot read '{path}' for input {key!r}: {wanted} in it; choose one, '{path}[{names[0]}]', of "
                       f"{one_of(names, name)}")  # fmt: skip
    try:
        return np.asarray(loaded[name])
    except Exception as error:  # what is in it decides which: a damaged member, objects, a method of compression
        raise JobError(
            f"cannot read '{path}[{name}]' for input {key!r}: {error}; expected an array of numbers"
        ) from error


def _unpickled(path: Path, file: BinaryIO) -> Any:
    try:
        return np.load(file, allow_pickle=True)
    except Exception as error:  # a pickle runs code, which may raise anything
        raise JobError(
            f"cannot read '{path}': {error}; expected a .npy or .npz file, or a pickle of an array"
        ) from error


def _pairs(parts: Sequence[str], form: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(str.strip, parts):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise JobError(f"cannot use {part.strip()!r}: expected '{form}', several separated by ';'")
        pairs.append((key.strip(), value.strip()))
    return pairs


def _parts(text: str) -> list[str]:
    """Cut at ';' where it stands outside of quotes."""
    return re.findall(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^;])+""", text)


def _add(arrays: Arrays, key: str, value: npt.NDArray[Any]) -> None:
    if key in arrays:
        raise JobError(f"input {key!r} is given twice: give it once")
    arrays[key] = value


def _bytes(value: Any, spec: TensorSpec) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return bytes(value)
    raise JobError(
        f"cannot feed input {spec.name!r}: found {type(value).__name__}; it is {spec}: expected text or bytes"
    )


def _fits(value: npt.NDArray[Any], wanted: np.dtype[Any]) -> bool:
    if wanted.kind == "c" or (wanted.kind == "f" and value.dtype.kind != "c"):
        with np.errstate(over="ignore"):
            return bool(np.array_equal(np.isinf(value.astype(wanted)), np.isinf(value)))
    with np.errstate(invalid="ignore"):
        return value.dtype.kind != "c" and bool(np.array_equal(value.astype(wanted), value))


def _fits_bits(value: npt.NDArray[Any], held: npt.NDArray[Any]) -> bool:
    """Whether what a dtype that NumPy lacks holds is `value`, floats rounded."""
    if held.dtype.kind != "f":
        return bool(np.array_equal(held, value))
    return bool(np.array_equal(np.isfinite(held), np.isfinite(value)))
