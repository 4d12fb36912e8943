"""The table of bad input (README, "What happens to bad rows"): which test shows which row of it.

Every row is shown somewhere; those that no other file shows are shown here. `SHOWN` is checked: a test that is renamed
or removed makes it red. Not shown: 17 in full (odd files that other writers wrote: only the codecs and empty pages that
can be written here), 49 (no writer at hand writes an unknown logical type), 53 in full (files of old versions of Arrow:
only what this pyarrow can still write), 55 (CSV is not offered).
"""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import thrift

from connectors.formats.parquet import ParquetSource
from connectors.formats.schema import unify
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError, RunnerError
from runner.worker.child import Child

TESTS = Path(__file__).parents[2]
HERE, FORMATS, PARQUET, ARROW = (f"test_{name}.py" for name in ("bad_input", "formats", "parquet", "arrow_ipc"))
SCHEMA, WIDENING, STORE, FUZZ = (f"test_{name}.py" for name in ("schema", "widening", "store", "fuzz"))
FEEDING, FETCHING, BINDING = (f"test_{name}.py" for name in ("feeding", "fetching", "binding"))
ISOLATION, BATCHES, ROWS, CAREFUL = (
    "test_bisection.py",
    "test_batches.py",
    "test_bad_rows.py",
    "test_isolated.py",
)

SHOWN: dict[int, list[tuple[str, str]]] = {
    1: [(FORMATS, "what_is_no_such_file_is_refused_with_a_code")],
    2: [(FORMATS, "what_is_no_such_file_is_refused_with_a_code"), (FORMATS, "a_file_of_the_other_format_is_named")],
    3: [(PARQUET, "a_file_without_its_end_is_truncated"), (FORMATS, "every_truncation_is_an_input_error")],
    4: [(PARQUET, "a_footer_that_claims_more_bytes_than_the_file_has_is_refused"), (FUZZ, "a_damaged_file_gives")],
    5: [(HERE, "a_schema_that_is_no_tree_is_a_bad_footer")],
    6: [(PARQUET, "a_column_name_that_is_not_utf8_is_refused")],
    7: [(PARQUET, "a_codec_that_is_not_known_is_refused_when_its_column_is_wanted")],
    8: [(HERE, "a_page_header_that_is_damaged_names_row_group_and_column")],
    9: [(PARQUET, "a_flipped_byte_in_a_page_is_an_error_and_never_another_value"), (ROWS, "a_row_group_that_cannot")],
    10: [(HERE, "a_flipped_value_without_a_checksum_cannot_be_seen")],
    11: [(PARQUET, "a_column_with_other_rows_than_its_row_group_is_an_error")],
    12: [(FORMATS, "other_rows_than_planned_are_an_error"), (HERE, "a_row_group_that_claims_no_rows")],
    13: [(PARQUET, "rows_without_row_groups_are_refused")],
    14: [(PARQUET, "rows_are_counted_by_row_groups_and_not_by_the_file")],
    15: [(HERE, "levels_that_lie_are_a_corrupt_page")],
    16: [(HERE, "nulls_in_a_column_that_may_have_none_are_a_corrupt_page")],
    17: [(HERE, "every_codec_and_empty_pages_are_read")],
    18: [(PARQUET, "an_encrypted_file_is_refused"), (PARQUET, "an_encrypted_column_is_refused_and_its_plain")],
    19: [
        (ROWS, "a_row_group_beyond_the_limit_is_refused_before"),
        (PARQUET, "a_row_group_beyond_any_memory_is_refused"),
    ],
    20: [(CAREFUL, "row_20_a_row_group_that_decodes_to_more_than_there_is")],
    21: [
        (PARQUET, "empty_row_groups_between_full_ones_are_read"),
        ("cli/test_commands.py", "an_input_of_no_rows_gives"),
    ],
    22: [(STORE, "no_input_says_what_is_there_instead"), (STORE, "no_input_says_that_only_hidden_names_are_there")],
    23: [(STORE, "hidden_names_below_a_folder_are_left_out_and_one_named_alone_is_used")],
    24: [(STORE, "a_file_listed_twice_is_refused_naming_both"), (STORE, "the_same_file_through_a_link_is_a_duplicate")],
    25: [(STORE, "awkward_names_are_listed_and_read_back"), (STORE, "names_that_leave_the_folder_are_refused")],
    26: [(STORE, "a_glob_means_the_files_it_names_and_the_folders_it_names")],
    27: [(SCHEMA, "a_missing_column_names_files_and_near_names")],
    28: [(SCHEMA, "the_schema_has_the_wanted_columns_in_their_order")],
    29: [(SCHEMA, "a_missing_column_has_a_hint")],
    30: [(SCHEMA, "a_name_that_is_there_twice_matters_only_if_wanted"), (BINDING, "a_column_twice_in_the_input_is")],
    31: [(FORMATS, "the_exact_name_wins_over_the_path_of_a_struct")],
    32: [(WIDENING, "types_are_widened_where_nothing_is_lost"), (WIDENING, "widening_keeps_every_integer")],
    33: [(SCHEMA, "types_that_clash_name_a_file_of_each"), (FEEDING, "types_that_never_become_the_tensor_are_refused")],
    34: [(SCHEMA, "nullability_may_drift")],
    35: [(FEEDING, "a_bad_row_is_named_with_the_count_of_its_kind"), (ROWS, "rejected_rows_are_in_the_reject_file")],
    36: [(FEEDING, "a_null_inside_a_list_stays_an_error"), (FEEDING, "a_bad_row_is_named_with_the_count_of_its_kind")],
    37: [(FEEDING, "a_list_of_the_wrong_length_says_both_lengths")],
    38: [(HERE, "lists_of_another_fixed_size_in_one_file_clash")],
    39: [(FEEDING, "integers_arrive_unchanged_or_not_at_all")],
    40: [(FEEDING, "floats_are_rounded_but_never_become_infinite")],
    41: [(FEEDING, "integers_become_floats_where_each_of_them_is_exact")],
    42: [(FEEDING, "nan_and_infinity_pass"), (ROWS, "what_is_not_finite_passes_or_is_rejected")],
    43: [
        (FEEDING, "a_string_that_is_no_utf_8_reaches_the_model_as_it_is"),
        (ROWS, "kept_text_that_is_no_utf_8_is_a_bad_row"),
    ],
    44: [(ROWS, "a_row_that_is_too_large_is_rejected"), (ISOLATION, "rows_beyond_max_row_bytes_are_told")],
    45: [(FORMATS, "dictionaries_and_views_arrive_as_plain_values"), (ARROW, "runs_and_shared_dictionaries_arrive")],
    46: [(FEEDING, "even_an_unsafe_cast_makes_no_numbers_of_text_and_dates")],
    47: [(FEEDING, "types_that_never_become_the_tensor_are_refused")],
    48: [(HERE, "a_pickled_extension_type_is_refused_and_an_unknown_one_is_its_storage")],
    50: [(HERE, "a_schema_that_is_no_tree_is_a_bad_footer")],
    51: [(FUZZ, "a_damaged_file_gives_equal_rows_or_an_error_with_a_code"), (FORMATS, "every_truncation_is")],
    52: [(ARROW, "offsets_that_lie_are_an_error_and_no_crash"), (ARROW, "text_that_is_not_utf8_is_an_error_only")],
    53: [(ARROW, "every_version_that_pyarrow_writes_is_counted_and_read")],
    54: [(ARROW, "a_future_version_is_refused")],
    56: [(PARQUET, "two_of_many_columns_are_found_in_a_long_footer")],
    57: [(BATCHES, "other_batches_end_with_their_row_group_and_ignore_its_chunks")],
    58: [(FETCHING, "a_tensor_that_is_not_what_was_promised_is_an_error"), (ISOLATION, "outputs_that_are_not_one_row")],
    59: [(FETCHING, "a_tensor_that_is_not_what_was_promised_is_an_error")],
    60: [(ISOLATION, "a_nan_is_kept_and_counted_or_rejected"), (ROWS, "what_is_not_finite_passes_or_is_rejected")],
    61: [(FETCHING, "strings_of_wide_offsets_and_slices_become_plain_bytes")],
    62: [(FETCHING, "what_cannot_become_a_column_has_no_field"), (FETCHING, "outputs_that_are_no_rows_are_refused")],
    63: [(ISOLATION, "exactly_the_bad_rows_are_set_aside_for_any_set"), (ROWS, "rejected_rows_are_in_the_reject_file")],
    64: [(ROWS, "a_job_whose_rows_are_all_bad_fails_whatever_its_budget")],
}
NOT_SHOWN = {49, 55}


def test_every_row_of_the_table_is_shown_by_a_test_that_is_there() -> None:
    assert {*SHOWN, *NOT_SHOWN} == set(range(1, 65))
    missing = []
    for row, tests in SHOWN.items():
        for file, name in tests:
            (path,) = TESTS.rglob(file)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
            if not any(there.startswith(f"test_{name}") for there in names):
                missing.append(f"row {row}: {file}::test_{name}")
    assert missing == []


def encoded(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def read(folder: Path, content: bytes) -> pa.Table:
    (folder / "f.parquet").write_bytes(content)
    store, source = Store(str(folder)), ParquetSource()
    stat = store.stat("f.parquet")
    assert stat is not None
    names = source.schema(store, stat).names
    file, _ = source.inspect(store, stat, names)
    inputs = InputSlice(0, stat.url, stat.size, stat.version, 0, tuple(group.rows for group in file.row_groups))
    with source.open(store, inputs, names) as reader:
        return pa.concat_tables([reader.read(index) for index in range(len(inputs.rows))])


def failure(folder: Path, content: bytes) -> RunnerError:
    with pytest.raises((InputError, DataError)) as caught:
        read(folder, content)
    return caught.value


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ([], "FILE_FOOTER"),
        ([thrift.group(b"schema", -1), thrift.leaf(b"x")], "FILE_FOOTER"),
        ([thrift.group(b"schema", 2**31 - 1), thrift.leaf(b"x")], "FILE_FOOTER"),
        ([thrift.group(b"schema", 2), thrift.leaf(b"x")], "FILE_FOOTER"),
        (
            [
                thrift.group(b"schema", 1),
                thrift.group(b"map", 1, converted=1),
                thrift.group(b"key_value", 3, repetition=2),
                *map(thrift.leaf, (b"a", b"b", b"c")),
            ],
            "FILE_(FOOTER|SCHEMA)",
        ),
    ],
    ids=["no-root", "negative-children", "two-billion-children", "missing-child", "map-of-three"],
)
def test_a_schema_that_is_no_tree_is_a_bad_footer(schema: list[bytes], code: str, tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(thrift.file(schema))
    store = Store(str(tmp_path))
    stat = store.stat("f.parquet")
    assert stat is not None
    with pytest.raises(InputError) as caught:
        ParquetSource().inspect(store, stat, ["x"])
    assert re.fullmatch(code, caught.value.facts["code"]), caught.value


@pytest.mark.parametrize("depth", [100, 10_000, 200_000])
def test_a_schema_of_any_depth_is_read_or_refused_and_never_the_end_of_the_process(depth: int) -> None:
    bomb = thrift.file([thrift.group(b"g", 1)] * depth + [thrift.leaf(b"x")])
    child = Child("decoding:decoder", "parquet", memory=2 * 2**30)
    try:
        (outcome,) = child.ask([bomb], 60)
    finally:
        child.close()
    assert outcome in ("other schema", "FILE_FOOTER", "FILE_SCHEMA", "FILE_UNSUPPORTED"), outcome


def chunk(content: bytes, row_group: int, column: int) -> tuple[int, int]:
    found = pq.read_metadata(io.BytesIO(content)).row_group(row_group).column(column)
    return found.data_page_offset, found.data_page_offset + found.total_compressed_size


NUMBERS = pa.table({"id": pa.array(range(100), pa.int64()), "x": pa.array(range(100), pa.int32())})


def test_a_page_header_that_is_damaged_names_row_group_and_column(tmp_path: Path) -> None:
    content = bytearray(encoded(NUMBERS, row_group_size=50, use_dictionary=False))
    start, _ = chunk(bytes(content), 1, 1)
    content[start : start + 8] = b"\xff" * 8
    error = failure(tmp_path, bytes(content))
    assert (error.facts["code"], error.facts["row_group"], error.facts["column"]) == ("PAGE_CORRUPT", 1, "x")


def test_a_flipped_value_without_a_checksum_cannot_be_seen(tmp_path: Path) -> None:
    """The limit that the README names: nothing in such a file could tell."""
    content = bytearray(encoded(NUMBERS, compression="none", use_dictionary=False, write_statistics=False))
    _, stop = chunk(bytes(content), 0, 1)
    content[stop - 4] ^= 1
    assert read(tmp_path, bytes(content))["x"].to_pylist() == [*range(99), 98]


def claiming(content: bytes, rows: int, claimed: int) -> bytes:
    """`content` with another number of rows in the footer of its last row group."""
    claim, field_behind = b"\x16" + thrift.number(rows), b"\x26"  # num_rows of a row group
    at = content.rindex(claim + field_behind)
    footer = int.from_bytes(content[-8:-4], "little")
    changed = thrift.number(claimed)
    footer += len(changed) - len(claim) + 1
    return content[: at + 1] + changed + content[at + len(claim) : -8] + footer.to_bytes(4, "little") + b"PAR1"


def test_a_row_group_that_claims_no_rows_and_holds_values_is_a_bad_footer(tmp_path: Path) -> None:
    content = encoded(NUMBERS, row_group_size=50, store_schema=False)
    error = failure(tmp_path, claiming(content, 50, 0))
    assert error.facts["code"] == "FILE_FOOTER"
    assert "row group 1 claims no rows, and its columns hold values" in error.message


@pytest.mark.parametrize("claimed", [1, 42, 51])
def test_a_row_group_that_claims_other_rows_than_its_columns_hold_is_a_bad_footer(claimed: int, tmp_path: Path) -> None:
    nested = pa.table({"s": [{"a": row, "b": None if row % 2 else "x"} for row in range(100)]})
    for table, column in ((NUMBERS, "id"), (nested, "s.a")):
        content = encoded(table, row_group_size=50, store_schema=False)
        error = failure(tmp_path, claiming(content, 50, claimed))
        assert error.facts["code"] == "FILE_FOOTER"
        assert f"row group 1 claims {claimed} rows, and its columns hold 50 values in '{column}'" in error.message


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (pa.list_(pa.int32()), [1, 2, 3]),
        (pa.large_list(pa.string()), ["a", None]),
        (pa.list_(pa.float32(), 4), [1.0, 2.0, 3.0, 4.0]),
        (pa.list_(pa.list_(pa.int8())), [[1, 2], [], [3]]),
        (pa.map_(pa.string(), pa.list_(pa.int8())), [("k", [1, 2]), ("l", None)]),
        (pa.struct([("f", pa.list_(pa.struct([("x", pa.int8()), ("y", pa.list_(pa.int8()))])))]), {"f": [{}, {}]}),
    ],
    ids=str,
)
def test_rows_of_lists_beyond_those_that_a_row_group_claims_are_not_lost(
    kind: pa.DataType, row: object, tmp_path: Path
) -> None:
    """Where all columns are lists, the footer alone cannot tell."""
    empty = {"f": []} if pa.types.is_struct(kind) else None if pa.types.is_fixed_size_list(kind) else []
    table = pa.table({"list": pa.array([row, row, None, empty, row] * 20, kind)})
    content = encoded(table, row_group_size=50)
    assert read(tmp_path, content).equals(table)
    error = failure(tmp_path, claiming(content, 50, 47))
    assert (error.facts["code"], error.facts["row_group"], error.facts["column"]) == ("ROWGROUP_ROWS", 1, "list")
    assert "its 47 rows hold" in error.message


def test_levels_that_lie_are_a_corrupt_page(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([None if row % 3 else row for row in range(100)], pa.int32())})
    content = bytearray(encoded(table, compression="none", use_dictionary=False, write_statistics=False))
    _, stop = chunk(bytes(content), 0, 0)
    values = stop - 4 * 34  # before them: the bytes of the levels, and how many these are
    size = next(n for n in range(1, 60) if content[values - n - 4 : values - n] == n.to_bytes(4, "little"))
    content[values - size : values] = b"\x7f" * size  # a run of more values than the page has
    error = failure(tmp_path, bytes(content))
    assert error.facts["code"] in ("PAGE_CORRUPT", "ROWGROUP_ROWS")


def test_nulls_in_a_column_that_may_have_none_are_a_corrupt_page(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([None if row % 3 else row for row in range(100)], pa.int32())})
    content = encoded(table, compression="none", use_dictionary=False, store_schema=False, write_statistics=False)
    optional = b"\x25\x02\x18\x01x"  # repetition_type OPTIONAL, then the name
    assert content.count(optional) == 1
    error = failure(tmp_path, content.replace(optional, b"\x25\x00\x18\x01x"))
    assert error.facts["code"] in ("FILE_FOOTER", "PAGE_CORRUPT")  # earlier, where the footer counts the levels
    assert "row group 0 column 'x'" in error.message


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_codec_and_empty_pages_are_read(codec: str, version: str, tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([None] * 100, pa.float32()), "s": ["", "é"] * 50})
    assert read(tmp_path, encoded(table, compression=codec, data_page_version=version, data_page_size=64)).equals(table)


def test_lists_of_another_fixed_size_in_one_file_clash() -> None:
    three, four = (pa.schema([("f", pa.list_(pa.float32(), size))]) for size in (3, 4))
    _, (problem,) = unify([("a", four), ("b", four), ("c", three)], ["f"])
    assert problem.startswith("COLUMN_TYPE: column 'f' has types that do not agree")
    assert "in 'c'" in problem


def test_a_pickled_extension_type_is_refused_and_an_unknown_one_is_its_storage() -> None:
    def of(name: str) -> pa.Schema:
        return pa.schema([pa.field("x", pa.int32(), metadata={"ARROW:extension:name": name})])

    _, (problem,) = unify([("a", of("arrow.py_extension_type"))], ["x"])
    assert problem.startswith("EXTENSION_REFUSED: column 'x' is of a pickled extension type in 'a'")
    schema, problems = unify([("a", of("vendor.unknown"))], ["x"])
    assert (schema.field("x").type, problems) == (pa.int32(), [])
