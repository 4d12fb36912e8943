"""`.npy` and `.npz`: runs of rows are row groups, and nothing is ever unpickled."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sources import facts, planned, read, sliced, source

from connectors.formats.fault import BadRowsError
from connectors.formats.typed import array_source
from connectors.store.store import Store
from jobs.errors import DataError, InputError, RunnerError


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(packed: bool = False, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def put(store: Store, content: bytes) -> str:
    path = Path(store.url) / "f"
    path.write_bytes(content)
    return str(path)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_source, "_GROUP_BYTES", 800)


@pytest.mark.usefixtures("small_groups")
def test_the_first_axis_is_that_of_the_rows_and_runs_of_them_are_row_groups(store: Store) -> None:
    array = np.random.default_rng(0).random((1000, 2, 5))
    url, made = put(store, npy(array)), source("npy")
    file, schema = planned(made, store, url, ["data"])
    assert [group.rows for group in file.row_groups] == [10] * 100
    assert [group.place for group in file.row_groups][:2] == [(0, 10), (10, 20)]
    assert file.row_groups[0].bytes == 800
    assert schema == pa.schema([pa.field("data", pa.fixed_shape_tensor(pa.float64(), [2, 5]), nullable=False)])
    found = read(made, store, url, ["data"])
    assert found.schema == schema
    assert (found["data"].combine_chunks().to_numpy_ndarray() == array).all()
    with made.open(store, sliced(file, 7, 8), ["data"]) as reader:
        assert (reader.read(7)["data"].combine_chunks().to_numpy_ndarray() == array[70:80]).all()


FLOATS = np.array([1.5, np.nan, -np.inf])


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        *((np.array([1, 2], dtype), str(np.dtype(dtype)), [1, 2]) for dtype in ("i1", "u2", "i4", "u8", "i8")),
        (np.array([1, -(2**40)], ">i8"), "int64", [1, -(2**40)]),
        (np.array([1.5, -2], ">f4"), "float", [1.5, -2.0]),
        (np.array([1.5, -2], "f2"), "halffloat", [1.5, -2.0]),
        (np.array([True, False]), "bool", [True, False]),
        (np.array([b"a\0b", b"", b"abcd"]), "binary", [b"a\0b", b"", b"abcd"]),
        (np.array(["ü\0x", "", "abc"]), "string", ["ü\0x", "", "abc"]),
        (np.array(["ü", "abc"], ">U3"), "string", ["ü", "abc"]),
        (np.array([b"ab", b"c\0"], "V2"), "fixed_size_binary[2]", [b"ab", b"c\0"]),
        (np.array([1 + 2j]), "struct<re: double not null, im: double not null>", [{"re": 1.0, "im": 2.0}]),
        (np.zeros((2, 0), "f4"), "extension<arrow.fixed_shape_tensor[value_type=float, shape=[0]]>", [[], []]),
        (np.array([["a"], ["b"]]), "fixed_size_list<item: string not null>[1]", [["a"], ["b"]]),
    ],
)
def test_what_a_dtype_becomes(store: Store, array: Any, kind: str, values: list[Any]) -> None:
    found = read(source("npy"), store, put(store, npy(array)), ["data"])
    assert (str(found.schema.field("data").type), found["data"].to_pylist()) == (kind, values)


@pytest.mark.parametrize(
    ("unit", "kind"),
    [
        *(("Y", "date32[day]"), ("W", "date32[day]"), ("D", "date32[day]"), ("h", "timestamp[s]")),
        *(("s", "timestamp[s]"), ("ms", "timestamp[ms]"), ("25us", "timestamp[us]"), ("ns", "timestamp[ns]")),
    ],
)
def test_a_time_is_the_same_instant_and_nat_is_null(store: Store, unit: str, kind: str) -> None:
    array = np.array([5, "NaT", -3], f"M8[{unit}]")
    found = read(source("npy"), store, put(store, npy(array)), ["data"])["data"]
    assert str(found.type) == kind
    assert found.null_count == 1
    numbers = found.cast(pa.int32() if kind.startswith("date") else pa.int64()).to_pylist()
    same = [
        np.datetime64(number, kind[-3:-1].strip("[e") if "time" in kind else "D") for number in (numbers[0], numbers[2])
    ]
    assert (np.array(same) == array[[0, 2]]).all()


def test_durations_of_hours_are_seconds_and_of_months_are_refused(store: Store) -> None:
    found = read(source("npy"), store, put(store, npy(np.array([2, "NaT"], "m8[h]"))), ["data"])["data"]
    assert (str(found.type), found.cast(pa.int64()).to_pylist()) == ("duration[s]", [7200, None])
    with pytest.raises(InputError, match=r"timedelta64\[M\], which Arrow has not"):
        planned(source("npy"), store, put(store, npy(np.array([2], "m8[M]"))), ["data"])


def test_a_day_that_does_not_fit_is_a_bad_row_and_not_another_day(store: Store) -> None:
    array = np.array([[1, 2], [2**40, 3], [4, 5]], "M8[D]")
    with pytest.raises(BadRowsError, match="row 1 of array 'data': found a time that is 1099511627776") as caught:
        read(source("npy"), store, put(store, npy(array)), ["data"])
    assert (facts(caught.value)["code"], caught.value.at.tolist()) == ("ROW_OVERFLOW", [1])
    assert caught.value.rest().num_rows == 2


@pytest.mark.usefixtures("small_groups")
def test_fields_of_an_array_are_columns(store: Store) -> None:
    array = np.zeros(500, [("id", ">i4"), ("x", "f4", (2, 2)), ("in", [("a", "u1"), ("b", "S3")])])
    array["id"], array["in"]["b"] = np.arange(500), b"abc"
    array["x"] = np.arange(2000).reshape(500, 2, 2)
    found = read(source("npy"), store, put(store, npy(array)), ["in", "x", "id"])
    assert found["id"].to_pylist() == list(range(500))
    assert found["in"].to_pylist() == [{"a": 0, "b": b"abc"}] * 500
    assert found["x"].to_pylist()[7] == [28.0, 29.0, 30.0, 31.0]


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_an_archive_are_columns(store: Store, packed: bool) -> None:
    same, other = np.arange(1000), np.arange(1000)[::-1]
    tensor = np.random.default_rng(0).random((1000, 3)).astype("f4")
    url, made = put(store, npz(packed, same=same, other=other, tensor=tensor)), source("npz")
    found = read(made, store, url, ["tensor", "other", "same"])
    assert (found["same"].to_pylist(), found["other"].to_pylist()) == (same.tolist(), other.tolist())
    assert found["tensor"].to_pylist() == tensor.tolist()
    file, _ = planned(made, store, url, ["same"])
    with made.open(store, sliced(file, 5, 8), ["same"]) as reader:
        for index in (7, 5, 6):  # one behind the other, or not
            assert reader.read(index)["same"].to_pylist() == same[index * 100 : index * 100 + 100].tolist()


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("packed", [False, True])
def test_an_array_in_fortran_order_is_the_same_rows(store: Store, packed: bool) -> None:
    """As `to_numpy` of pandas and of Polars makes them, of which each column is one array."""
    array = np.asfortranarray(np.random.default_rng(0).random((500, 3, 4)))
    words = np.asfortranarray([["a", f"b{row}"] for row in range(500)])
    found = read(source("npy"), store, put(store, npy(array)), ["data"])["data"].combine_chunks()
    assert (found.to_numpy_ndarray() == array).all()
    url = put(store, npz(packed, other=np.arange(500), words=words))
    assert read(source("npz"), store, url, ["words", "other"])["words"].to_pylist() == words.tolist()


def test_a_worker_reads_of_a_stored_array_its_rows_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_source, "_GROUP_BYTES", 2**16)
    url, made = put(store, npz(a=np.arange(10**6), b=np.arange(10**6))), source("npz")
    file, _ = planned(made, store, url, ["b"])
    with made.open(store, sliced(file, 50, 51), ["b"]) as reader:
        taken: list[int] = []
        take = reader._held.take
        reader._held.take = lambda start, stop: (taken.append(stop - start), take(start, stop))[1]
        assert reader.read(50)["b"][0].as_py() == 50 * 8192
    assert taken == [2**16]


def test_arrays_that_are_read_have_equally_many_rows(store: Store) -> None:
    url = put(store, npz(x=np.zeros((5, 2)), y=np.zeros(5), x_test=np.zeros((3, 2)), version=np.array(7)))
    assert read(source("npz"), store, url, ["y", "x"]).num_rows == 5
    assert read(source("npz"), store, url, ["x_test"]).num_rows == 3
    for columns in (["x", "x_test"], []):
        with pytest.raises(InputError, match=r"'x' has 5.*'x_test' has 3") as caught:
            planned(source("npz"), store, url, columns)
        assert facts(caught.value)["code"] == "FILE_SCHEMA"
    with pytest.raises(InputError, match="array 'version' is a single value, without rows"):
        planned(source("npz"), store, url, ["version"])


class Trap:
    """Unpickled, it fails the test."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


def test_objects_are_refused_by_name_and_never_unpickled(store: Store) -> None:
    array = np.array([Trap(), 5], object)
    with pytest.raises(InputError, match="its array is of pickled objects") as caught:
        planned(source("npy"), store, put(store, npy(array)), ["data"])
    assert facts(caught.value)["code"] == "FILE_PICKLE"
    with pytest.raises(InputError, match="its array is of pickled objects"):
        planned(source("npy"), store, put(store, npy(np.array([(1, "x")], [("a", "i4"), ("b", "O")]))), ["a"])
    url = put(store, npz(x=np.arange(2), names=array))
    assert read(source("npz"), store, url, ["x"])["x"].to_pylist() == [0, 1]
    with pytest.raises(
        InputError, match="array 'names' is of pickled objects: to read them would be to run their code"
    ):
        planned(source("npz"), store, url, ["names"])
    with pytest.raises(InputError, match="not a NumPy file"):
        planned(source("npy"), store, put(store, pickle.dumps(Trap())), [])


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "FILE_EMPTY", "zero bytes"),
        (npy(np.arange(9))[:40], "FILE_TRUNCATED", "header cannot be parsed"),
        (npy(np.arange(9))[:-1], "FILE_TRUNCATED", "9 rows of 8 bytes, and ends after 71"),
        (npy(np.arange(9)) * 2, "FILE_UNSUPPORTED", "bytes follow its array, perhaps of another array"),
        (npy(np.float64(7)), "FILE_UNSUPPORTED", "a single value"),
        (npy(np.arange(9)).replace(b"'descr'", b"'nothi'"), "FILE_SCHEMA", "header cannot be parsed"),
        (npy(np.arange(9)).replace(b"\x01\0v\0", b"\x03\0v\0"), "FILE_UNSUPPORTED", "version 3.0"),
        (b"PK\x03\x04" * 30, "FILE_MAGIC", "zip archive"),
    ],
)
def test_what_is_no_such_array_is_refused_with_a_code(store: Store, content: bytes, code: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        planned(source("npy"), store, put(store, content), ["data"])
    assert facts(caught.value)["code"] == code


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members.items():
            made.writestr(name.replace("_", "."), content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "FILE_EMPTY", "zero bytes"),
        (npz(a=np.arange(9))[:-30], "FILE_TRUNCATED", "no directory at its end"),
        (archive(a_npy=npy(np.arange(9))[:-8]), "FILE_TRUNCATED", "its array 'a.npy' has 9 rows"),
        (archive(readme_txt=b"x"), "FILE_UNSUPPORTED", "'a' is no array of NumPy, by its suffix"),
        (archive(a_npy=b"nothing"), "FILE_SCHEMA", "the header of array 'a.npy' cannot be parsed"),
        (npy(np.arange(9)), "FILE_MAGIC", "format: npy"),
    ],
)
def test_what_is_no_such_archive_is_refused_with_a_code(store: Store, content: bytes, code: str, says: str) -> None:
    column = "readme.txt" if b"readme" in content else "a"
    with pytest.raises(InputError, match=says.replace("'a' is", f"'{column}' is")) as caught:
        planned(source("npz"), store, put(store, content), [column])
    assert facts(caught.value)["code"] == code


def test_a_packed_array_with_a_flipped_bit_is_told_with_its_column(store: Store) -> None:
    content = bytearray(npz(True, a=np.random.default_rng(0).integers(0, 99, 5000)))
    content[3000] ^= 4
    url = put(store, bytes(content))
    with pytest.raises(DataError) as caught:
        read(source("npz"), store, url, ["a"])
    assert facts(caught.value) == {"code": "PAGE_CORRUPT", "file": url, "row_group": 0, "column": "a"}


@pytest.mark.parametrize("packed", [False, True])
def test_any_damage_gives_rows_or_an_error_with_a_code(store: Store, packed: bool) -> None:
    whole, codes = npz(packed, a=np.arange(9), b=np.array(["x"] * 9)), set()
    for at, bit in ((at, bit) for at in range(0, len(whole), 3) for bit in (1, 128)):
        damaged = bytearray(whole)
        damaged[at] ^= bit
        try:
            read(source("npz"), store, put(store, bytes(damaged)), ["a", "b"])
        except RunnerError as error:
            codes.add(facts(error)["code"])
    assert {"FILE_MAGIC", "FILE_SCHEMA", "FILE_TRUNCATED", "COLUMN_MISSING"} < codes


def test_an_archive_is_known_by_what_it_begins_with() -> None:
    assert source("npz").begins(npz(a=np.arange(3)))
    assert not source("npz").begins(archive(readme_txt=b"x"))
    assert source("npy").begins(npy(np.arange(3)))
