"""Memory and handles at the edge of the C API. TensorFlow's Python package plays no part here."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engine import EngineOptions, capi, load, tstring
from runner.engine.status import StatusError, shorten
from runner.tensor import Strings

ROWS = 1000

Aligned = Callable[..., npt.NDArray[Any]]


def handles() -> int:
    gc.collect()
    return sum(isinstance(each, capi.Handle) and each._freed.alive for each in gc.get_objects())


def test_an_aligned_array_is_lent_without_a_copy_and_given_back(aligned: Aligned) -> None:
    array = aligned(np.arange(ROWS, dtype=np.float32))
    tensor = capi.lend("float32", array)
    assert capi.library().TF_TensorData(tensor.address) == array.ctypes.data
    assert capi.loans() == 1
    tensor.close()
    assert capi.loans() == 0


def test_an_unaligned_array_is_copied_and_given_back_at_once(aligned: Aligned) -> None:
    array = aligned(np.arange(ROWS, dtype=np.float32), skew=4)
    tensor = capi.lend("float32", array)
    assert capi.library().TF_TensorData(tensor.address) != array.ctypes.data
    assert capi.loans() == 0
    tensor.close()


def test_lent_memory_lives_until_tensorflow_gives_it_back(aligned: Aligned) -> None:
    array = aligned(np.arange(ROWS, dtype=np.float32))
    tensor = capi.lend("float32", array)
    del array
    gc.collect()
    found = np.asarray(tstring.Memory(capi.library().TF_TensorData(tensor.address), (ROWS,), np.dtype(np.float32)))
    assert (found == np.arange(ROWS)).all()
    tensor.close()


def test_a_handle_that_nothing_refers_to_frees_its_tensor(aligned: Aligned) -> None:
    capi.lend("float32", aligned(np.ones(ROWS, np.float32)))
    gc.collect()
    assert capi.loans() == 0


def test_a_handle_frees_once() -> None:
    freed: list[int] = []
    handle = capi.Handle(7, freed.append)
    with handle as address:
        assert address == 7
    handle.close()
    del handle
    gc.collect()
    assert freed == [7]


def test_a_released_handle_frees_nothing() -> None:
    freed: list[int] = []
    assert capi.Handle(7, freed.append).release() == 7
    gc.collect()
    assert freed == []


def test_memory_that_is_too_small_for_its_dtype_is_refused_and_given_back(aligned: Aligned) -> None:
    with pytest.raises(StatusError, match="too few for float64 of shape"):
        capi.lend("float64", aligned(np.ones(ROWS, np.float32)))
    assert capi.loans() == 0


def test_fed_memory_is_not_written_and_not_shared_with_results(zoo: dict[str, Any], aligned: Aligned) -> None:
    model = zoo["every dtype"]
    feeds = {name: aligned(value) for name, value in model.feeds.items()}
    engine = load("session", model.path, model.tags, model.signature, EngineOptions(threads=1))
    outputs = engine.run(feeds, list(model.expected))
    assert capi.loans() == 0
    for name, value in model.feeds.items():
        assert np.array_equal(feeds[name], value)
        assert not np.shares_memory(feeds[name], outputs[f"{name}_same"])
    engine.close()


def test_a_result_outlives_its_engine(zoo: dict[str, Any], aligned: Aligned) -> None:
    model = zoo["half plus two"]
    engine = load("session", model.path, model.tags, model.signature, EngineOptions(threads=1))
    x = aligned(np.arange(ROWS, dtype=np.float32).reshape(ROWS, 1))
    result = engine.run({"x": x}, ["y"])["y"]
    engine.close()
    del engine
    gc.collect()
    assert isinstance(result, np.ndarray)
    assert result.base is not None, "the result is TensorFlow's own memory, not a copy"
    assert (result == x / 2 + 2).all()


def test_repeated_calls_leave_no_handle_and_no_loan_behind(zoo: dict[str, Any]) -> None:
    calls = [zoo["echo"], zoo["half plus two"]]
    engines = [load("session", each.path, each.tags, each.signature, EngineOptions(threads=1)) for each in calls]
    before = handles()
    for engine, model in zip(engines, calls, strict=True):
        for _ in range(20):
            engine.run(model.feeds, list(model.expected))
    assert handles() == before
    assert capi.loans() == 0
    for engine in engines:
        engine.close()
    assert handles() < before


def test_a_session_that_does_not_load_leaves_no_handle_behind(tmp_path: Any) -> None:
    before = handles()
    with pytest.raises(StatusError) as caught:
        capi.Session(str(tmp_path), ["serve"], b"")
    assert caught.value.code == "NOT_FOUND"
    with pytest.raises(StatusError):
        capi.Session(str(tmp_path), ["serve"], b"\xff this is no ConfigProto")
    del caught
    assert handles() == before


def test_a_missing_library_is_named(tmp_path: Any) -> None:
    with pytest.raises(Exception, match=r"cannot open TensorFlow's library '.*libtensorflow_framework"):
        capi._Library(tmp_path)


@given(st.lists(st.binary(max_size=60)), st.integers(0, 3), st.sampled_from([pa.binary(), pa.large_binary()]))
def test_records_say_what_the_arrow_array_says(values: list[bytes], skipped: int, kind: pa.DataType) -> None:
    array = pa.array([b"skipped"] * skipped + values + [b"after"], kind).slice(skipped, len(values))
    words = tstring.records(array)
    assert not values or words.ctypes.data % 64 == 0
    assert tstring.strings(words.ctypes.data, len(words)).to_pylist() == values


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 40)), max_size=20))
def test_records_of_every_kind_are_read(kinds: list[tuple[int, int, int]]) -> None:
    """(kind, start, stop) of pieces of one text, so that strings repeat and overlap as well."""
    text = np.frombuffer(bytes(range(65, 105)) + b"\0" * 8, np.uint8).copy()
    memory = np.zeros(len(kinds) * 24 + 40, np.uint8)  # the text again behind the records, for those of kind offset
    memory[len(kinds) * 24 :] = text[:40]
    words = memory[: len(kinds) * 24].view(np.int64).reshape(-1, 3)
    expected = []
    for i, (kind, start, stop) in enumerate(kinds):
        piece = text[start:stop][:22] if kind == 0 else text[start:stop]
        size, pointer = len(piece), text.ctypes.data + start
        if kind == 0:
            memory[i * 24] = size << 2
            memory[i * 24 + 1 : i * 24 + 1 + size] = piece
        elif kind == 2:
            words[i, 0] = ((len(kinds) - i) * 24 + start) << 32 | size << 2 | 2
        else:
            words[i] = (size << 2 | kind, 99, pointer) if kind == 1 else (size << 2 | kind, pointer, 0)
        expected.append(piece.tobytes())
    assert tstring.strings(memory.ctypes.data, len(kinds)).to_pylist() == expected


def test_strings_far_apart_in_memory_come_in_their_order() -> None:
    """From the heap and from pages of their own, which lie terabytes apart."""
    sizes = [5, 200, 256, 257, 5000, 300_000_000]
    pieces = [np.full(size, 65 + i, np.uint8) for i, size in enumerate(sizes[:-1])] + [np.zeros(sizes[-1], np.uint8)]
    order = [3, 0, 0, 5, 2, 4, 1, 3]
    # Of the largest piece, whose pages are not touched, only ten bytes are a string.
    lengths = [min(sizes[i], 10) if i == 5 else sizes[i] for i in order]
    words = np.array([(n << 2 | 3, pieces[i].ctypes.data, 0) for i, n in zip(order, lengths, strict=True)], np.int64)
    starts = [pieces[i].ctypes.data for i in order]
    assert max(starts) - min(starts) > 2**40, "the pieces of this test lie too close together to prove anything"
    found = tstring.strings(words.ctypes.data, len(order)).to_pylist()
    assert found == [pieces[i][:n].tobytes() for i, n in zip(order, lengths, strict=True)]


def test_more_strings_than_one_piece_holds_come_in_their_order() -> None:
    values = [b"%d" % i * (1 + i % 90) for i in range(10_000)]  # up to 360 bytes: short and long ones mixed
    array = pa.array(values)
    words = tstring.records(array)
    assert tstring.strings(words.ctypes.data, len(words)).to_pylist() == values


def test_lent_strings_keep_their_arrow_buffer() -> None:
    tensor = capi.lend("string", Strings(pa.array([b"x" * 100] * ROWS), (ROWS,)))
    gc.collect()
    address = capi.library().TF_TensorData(tensor.address)
    assert tstring.strings(address, ROWS).to_pylist() == [b"x" * 100] * ROWS
    tensor.close()
    assert capi.loans() == 0


@pytest.mark.parametrize(("message", "reason"), [
    ("{{function_node __inference_f_1}} Incompatible shapes: [2] vs. [3]\n\t [[{{node add}}]]\n\t [[Call]]",
     "Incompatible shapes: [2] vs. [3] [[Call]]"),
    ("assertion failed: [x must be positive] [Condition x > 0] [x:0] [1.5 2.5]\n\t [[{{node Assert}}]]",
     "assertion failed: [x must be positive]"),
    ("Graph execution error:\n\nDetected at node add defined at (most recent call last):\n  File secret.py",
     "Graph execution error:"),
    ("a" * 1000, "a" * 397 + "..."),
])  # fmt: skip
def test_messages_are_shortened_to_their_reason(message: str, reason: str) -> None:
    assert shorten(message) == reason
