"""What is given to `call` by hand: expressions that are never run, files, examples; and what comes out as arrays."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from jobs.errors import JobError, OutputError
from runner.cli.expression import array, literal
from runner.cli.hand_call import as_array, example_bytes, inputs_of, output_files, tensor_of
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Strings

# Expressions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", np.array([1, 2])),
        ("-1.5", np.array(-1.5)),
        ("[[True], [False]]", np.array([[True], [False]])),
        ("np.ones((2, 3))", np.ones((2, 3))),
        ("numpy.zeros([2], dtype=np.int8)", np.zeros(2, np.int8)),
        ("np.full((2,), 7, 'float32')", np.full(2, 7, np.float32)),
        ("np.arange(6).reshape(2, 3) * 0.5", np.arange(6).reshape(2, 3) * 0.5),
        ("(np.arange(3) - 1).astype(np.float16) / 2", (np.arange(3) - 1).astype(np.float16) / 2),
        ("np.array([1, np.nan, -np.inf], dtype=float)", np.array([1, np.nan, -np.inf])),
        ("np.linspace(0, 1, num=3)", np.linspace(0, 1, num=3)),
        ("np.eye(2)", np.eye(2)),
        ("['a', 'ü']", np.array(["a", "ü"])),
        ("[b'a']", np.array([b"a"])),
        ("1 + 2j", np.array(1 + 2j)),
    ],
)
def test_an_expression_is_the_array_that_numpy_would_make(text: str, expected: npt.NDArray[Any]) -> None:
    found = array(text)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "text",
    [
        *("__import__('os').system('true')", "open('/etc/passwd').read()", "np.load('x.npy')", "np.fromfile('x')"),
        *("np.ones.__globals__", "().__class__", "[x for x in (1, 2)]", "lambda: 1", "exec('1')", "np.ones(*[1])"),
        *("np.ones(**{'shape': 1})", "'a' * 1000000000", "[1] + [2]", "x", "f'{1}'", "2 ** 99", "np.random.rand(2)"),
        *("np.ones(2).tofile('x')", "np.ones(2).dump('x')", "np.array([1]).__class__", "(1).bit_length()", "None"),
    ],
)
def test_what_is_no_array_is_not_understood_and_never_run(text: str) -> None:
    with pytest.raises(JobError, match=r"is not understood; expected literals, np\.array, np\.ones"):
        array(text)


@pytest.mark.parametrize("text", ["np.ones(2", "[1, [2]]", "np.ones(-1)", "np.ones(2, dtype='nothing')", "1 / 0", "("])
def test_a_mistake_in_an_expression_is_an_error_that_repeats_it(text: str) -> None:
    with pytest.raises(JobError, match="cannot make an array of"):
        array(text)


def test_a_literal_is_read_and_nothing_else() -> None:
    assert literal(' [{"age": [22]}] ') == [{"age": [22]}]
    with pytest.raises(JobError, match="it is no literal"):
        literal("print(1)")


# The three forms


def test_several_inputs_are_separated_by_semicolons_outside_of_quotes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    np.savez(tmp_path / "b.npz", one=np.ones(2), two=np.zeros(2))
    found = inputs_of(
        [f"a={tmp_path}/a.npy; b={tmp_path}/b.npz[two]"],
        ['c=[\'x;y=z\', "it\'s; \\"so\\""]; d=np.ones(1);', "in put/1=2"],
        ['e=[{"t": ["a;b"]}]'],
        allow_pickle=False,
    )
    assert {key: value.tolist() for key, value in found.items() if key != "e"} == {
        "a": [0, 1, 2],
        "b": [0.0, 0.0],
        "c": ["x;y=z", 'it\'s; "so"'],
        "d": [1.0],
        "in put/1": 2,
    }
    assert found["e"].tolist() == [example_bytes({"t": ["a;b"]})]


def test_an_archive_of_one_array_needs_no_name_and_one_of_several_does(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.ones(2))
    np.savez(tmp_path / "two.npz", x=np.ones(2), y=np.zeros(2))
    assert inputs_of([f"a={tmp_path}/one.npz"], [], [], False)["a"].tolist() == [1, 1]
    with pytest.raises(JobError, match=r"several arrays in it; choose one, '.*two.npz\[x\]', of 'x', 'y'"):
        inputs_of([f"a={tmp_path}/two.npz"], [], [], False)
    with pytest.raises(JobError, match="no array 'z' in it"):
        inputs_of([f"a={tmp_path}/two.npz[z]"], [], [], False)


class Sly:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_read_only_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(np.arange(3)))
    (tmp_path / "sly.pkl").write_bytes(pickle.dumps(Sly(tmp_path / "ran")))
    np.save(tmp_path / "objects.npy", np.array([b"a", None]), allow_pickle=True)
    for name in ("p.pkl", "sly.pkl", "objects.npy"):
        with pytest.raises(JobError, match="a pickle runs code when it is read"):
            inputs_of([f"x={tmp_path / name}"], [], [], allow_pickle=False)
    assert not (tmp_path / "ran").exists()
    assert inputs_of([f"x={tmp_path}/p.pkl"], [], [], allow_pickle=True)["x"].tolist() == [0, 1, 2]
    (tmp_path / "dict.pkl").write_bytes(pickle.dumps({"a": np.arange(2), "b": np.arange(3)}))
    assert inputs_of([f"x={tmp_path}/dict.pkl[b]"], [], [], allow_pickle=True)["x"].tolist() == [0, 1, 2]
    (tmp_path / "noise").write_bytes(b"no pickle at all")
    with pytest.raises(JobError, match=r"expected a \.npy or .npz file, or a pickle"):
        inputs_of([f"x={tmp_path}/noise"], [], [], allow_pickle=True)


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("name", ["empty.npz", "objects.npz", "cut.npz", "bytes.npz", "zeros.npy", "deep.pkl"])
def test_a_file_that_is_damaged_or_holds_no_array_is_named(name: str, allow: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([None, {}], object))
    np.savez_compressed(tmp_path / "cut.npz", x=np.arange(1000))
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:60] + bytes(200) + whole[260:])
    (tmp_path / "bytes.npz").write_bytes(b"PK\x03\x04" + bytes(30))
    (tmp_path / "zeros.npy").write_bytes(b"\x93NUMPY\x01\x00" + bytes(30))
    (tmp_path / "deep.pkl").write_bytes(b"cmissing_module\nname\n.")
    with pytest.raises(JobError, match=re.escape(name)):
        inputs_of([f"x={tmp_path}/{name}"], [], [], allow)


@pytest.mark.parametrize(
    ("inputs", "exprs", "examples", "told"),
    [
        (["x"], [], [], "cannot use 'x': expected 'key=file'"),
        (["x=/nowhere.npy"], [], [], "cannot read '/nowhere.npy' for input 'x'"),
        ([], ["=1"], [], "cannot use '=1': expected 'key=expression'"),
        ([], ["x=1; x=2"], [], "input 'x' is given twice"),
        ([], ["x=1"], ["x=[{}]"], "input 'x' is given twice"),
        ([], [], ["x={}"], "expected a list of dicts"),
        ([], [], ["x=[{'a': [1, 'b']}]"], "feature 'a': it holds 'number', 'str'"),
        ([], [], ["x=[{1: [1]}]"], "expected a list of dicts"),
    ],
)
def test_a_mistake_names_the_key(inputs: list[str], exprs: list[str], examples: list[str], told: str) -> None:
    with pytest.raises(JobError) as caught:
        inputs_of(inputs, exprs, examples, allow_pickle=False)
    assert told in caught.value.message


def test_an_example_is_the_protobuf_message_byte_by_byte() -> None:
    integers = b"\x0a\x01a\x12" + b"\x07" + b"\x1a\x05\x0a\x03" + b"\x05\xac\x02"  # 5, 300 as varints
    assert (
        example_bytes({"a": [5, 300]})
        == b"\x0a" + bytes([2 + len(integers)]) + b"\x0a" + bytes([len(integers)]) + integers
    )
    assert example_bytes({}) == b"\x0a\x00"
    assert example_bytes({"a": [-1]}).endswith(b"\xff" * 9 + b"\x01")
    assert example_bytes({"a": [1, 0.5]}).endswith(np.array([1, 0.5], "<f4").tobytes())
    assert example_bytes({"a": "x"}) == example_bytes({"a": [b"x"]})


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        ([], "0a00"),  # of no kind that can be known: an empty list of bytes
        ((), "0a00"),
        (["x", b"y", ""], "0a080a01780a01790a00"),
        (b"", "0a020a00"),
        ([True, False, 7], "1a050a03010007"),
        ([16777217], "1a060a0481808008"),
        ([2**63 - 1, -(2**63), 0, -1], "1a200a1effffffffffffffff7f8080808080808080800100ffffffffffffffffff01"),
        ([1, 0.5], "120a0a080000803f0000003f"),
        ([True, 2.5], "120a0a080000803f00002040"),
        ([16777217, 0.5], "120a0a080000804b0000003f"),  # as a float32 it is 16777216
        ([2**63], "12060a040000005f"),  # no int64 holds it
        ([2**63, 1], "120a0a080000005f0000803f"),
        ([2**64 + 1], "12060a040000805f"),
        ([-(2**63) - 1], "12060a04000000df"),
        ([float("nan")], "12060a040000c07f"),
        ([float("inf")], "12060a040000807f"),
        ([-0.0], "12060a0400000080"),
        ([1e-46], "12060a0400000000"),
        ([float("-inf"), 1], "120a0a08000080ff0000803f"),
    ],
    ids=str,
)
def test_a_feature_has_the_bytes_that_its_values_call_for(values: Any, feature: str) -> None:
    content = bytes.fromhex(feature)
    entry = b"\x0a\x01a\x12" + bytes([len(content)]) + content
    assert example_bytes({"a": values}) == b"\x0a" + bytes([len(entry) + 2]) + b"\x0a" + bytes([len(entry)]) + entry


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_number_beyond_float32_is_written_as_infinity() -> None:
    assert example_bytes({"a": [1e300, -1e300]}) == example_bytes({"a": [float("inf"), float("-inf")]})
    assert example_bytes({"a": [2**200]}) == example_bytes({"a": [float("inf")]})


def test_features_keep_their_order_and_long_names_and_values_are_counted_in_bytes() -> None:
    first, second = example_bytes({"b": [1]})[2:], example_bytes({"a": [2]})[2:]
    assert example_bytes({"b": [1], "a": [2]}) == b"\x0a" + bytes([len(first + second)]) + first + second
    name, value = "ä" * 80, "x" * 300
    entry = b"\x0a\xa0\x01" + name.encode() + b"\x12\xb2\x02" + b"\x0a\xaf\x02" + b"\x0a\xac\x02" + value.encode()
    assert example_bytes({name: [value]}) == b"\x0a\xdb\x03" + b"\x0a\xd8\x03" + entry
    assert example_bytes({"": [1]}) == bytes.fromhex("0a0b0a090a0012051a030a0101")


@pytest.mark.parametrize(
    ("values", "kinds"),
    [(None, "'NoneType'"), ([1, "b"], "'number', 'str'"), ([[1]], "'list'"), ([1j, 1], "'complex', 'number'")],
    ids=str,
)
def test_values_that_no_feature_holds_are_refused_by_its_name(values: Any, kinds: str) -> None:
    with pytest.raises(JobError) as caught:
        example_bytes({"a": values})
    assert caught.value.message == (f"cannot write feature 'a': it holds {kinds}; expected numbers, or text, alone")


# Arrays and tensors


def spec(dtype: str, *shape: int | None) -> TensorSpec:
    return TensorSpec("x", dtype, shape, "x:0")


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        ("float32", np.array([0.1, np.nan, np.inf]), np.array([0.1, np.nan, np.inf], np.float32)),
        ("float32", np.array([1, 2]), np.array([1, 2], np.float32)),
        ("int32", np.array([1, 2]), np.array([1, 2], np.int32)),
        ("uint8", np.array([0.0, 255.0]), np.array([0, 255], np.uint8)),
        ("int64", np.array(7), np.array(7)),
        ("bool", np.array([0, 1]), np.array([False, True])),
        ("bfloat16", np.array([1.0, -2.0]), np.array([0x3F80, 0xC000], np.uint16)),
        ("bfloat16", np.array([0x3F80], np.uint16).view("V2"), np.array([0x3F80], np.uint16)),  # as np.load gives it
        ("int4", np.array([0xF], np.uint8).view("V1"), np.array([0xF], np.uint8)),
        ("uint4", np.array([15]), np.array([15], np.uint8)),
        ("int2", np.array(-1), np.array(3, np.uint8)),
        ("float8_e4m3fn", np.array([1.0, 0.3, np.nan]), np.array([0x38, 0x2A, 0x7F], np.uint8)),
        ("complex64", np.array([1 + 2j]), np.array([1 + 2j], np.complex64)),
        ("qint8", np.array([-1]), np.array([-1], np.int8)),
    ],
)
def test_an_array_becomes_the_dtype_of_the_input(
    dtype: str, given: npt.NDArray[Any], expected: npt.NDArray[Any]
) -> None:
    found = tensor_of(given, spec(dtype))
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("int32", np.array([0.5])),
        ("int8", np.array([200])),
        ("uint8", np.array([-1])),
        ("int64", np.array([np.nan])),
        ("float16", np.array([1e9])),
        ("float32", np.array([1 + 2j])),
        ("bool", np.array([2])),
        ("float32", np.array(["1"])),
        ("float16", np.array([1], np.uint16).view("V2")),
        ("uint4", np.array([16])),
        ("int4", np.array([-9])),
        ("float8_e4m3fn", np.array([1e3])),
        ("float4_e2m1fn", np.array([np.nan])),
    ],
)
def test_an_array_that_would_lose_something_is_refused(dtype: str, given: npt.NDArray[Any]) -> None:
    with pytest.raises(JobError, match=f"cannot feed input 'x': .* does not fit {dtype}"):
        tensor_of(given, spec(dtype))


def test_text_and_bytes_become_strings_and_numbers_do_not() -> None:
    found = tensor_of(np.array([["a"], ["ü"]]), spec("string", None, 1))
    assert isinstance(found, Strings)
    assert (found.values.to_pylist(), found.shape) == ([b"a", "ü".encode()], (2, 1))
    with pytest.raises(JobError, match="expected text or bytes"):
        tensor_of(np.array([1]), spec("string", None))
    with pytest.raises(JobError, match="only dense tensors"):
        tensor_of(np.array([1]), TensorSpec("x", "resource", (), "x:0"))


def test_outputs_are_numpys_own_and_zeros_at_the_end_of_a_string_are_kept() -> None:
    words = Strings(pa.array([b"a", b""], pa.large_binary()), (2, 1))
    assert as_array(words, "string").tolist() == [[b"a"], [b""]]
    assert as_array(words, "string").dtype.kind == "S"
    assert as_array(Strings(pa.array([b"a\0"], pa.large_binary()), (1,)), "string").tolist() == [b"a\0"]
    assert as_array(np.array([0x3F80], np.uint16), "bfloat16").tolist() == [1.0]
    small = as_array(np.array(0xF, np.uint8), "int4")
    assert (small.dtype, small.shape, small.tolist()) == (np.int8, (), -1)


def test_files_of_outputs_stay_in_their_folder_and_are_not_replaced_unasked(tmp_path: Path) -> None:
    names = ("y", "a/b", "../up", ".hidden", "größe (y)")
    outputs = {name: TensorSpec(name, "float32", (None,), "y:0") for name in names}
    signature = Signature("f", "", {}, outputs)
    files = output_files(signature, tmp_path, overwrite=False)
    assert [path.name for path in files.values()] == [
        "y.npy",
        "a%2Fb.npy",
        "%2E.%2Fup.npy",
        "%2Ehidden.npy",
        "größe (y).npy",
    ]
    files["y"].touch()
    with pytest.raises(OutputError, match=r"it has '.*y\.npy'; choose another folder, or --overwrite"):
        output_files(signature, tmp_path, overwrite=False)
    assert output_files(signature, tmp_path, overwrite=True) == files
