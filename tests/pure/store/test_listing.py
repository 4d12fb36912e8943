"""What the entries of a folder mean: which are input, which are left out, and which show a table of a lake."""

from __future__ import annotations

import pytest

from connectors.store.listing import Below, FileStat, Mark, Parts, Pattern, below, hidden, iceberg, in_folders, marks_at
from jobs.errors import InputError

OTHERS = (".arrow", ".csv", ".json")


def listed(*names: str, url: str = "in", others: tuple[str, ...] | None = OTHERS) -> Below:
    entries = [(tuple(name.split("/")), FileStat(f"in/{name}", 1, "1")) for name in names]
    return below(url, Pattern.parse(url), entries, (".parquet",), others)


def meant(*names: str, url: str = "in") -> list[str]:
    return [file.url.removeprefix("in/") for file in listed(*names, url=url).files]


@pytest.mark.parametrize(
    ("parts", "is_hidden"),
    [
        (("_year=2020", "a.parquet"), False),
        (("year=2020", "_month=1", "a.parquet"), False),
        (("_temporary", "year=2020", "a.parquet"), True),
        (("_SUCCESS",), True),
        ((".year=2020", "a.parquet"), True),
        (("year=2020", ".a.parquet.crc"), True),
    ],
)
def test_a_folder_of_a_partition_is_not_hidden_by_a_name_that_begins_with_an_underscore(
    parts: Parts, is_hidden: bool
) -> None:
    assert hidden(parts) is is_hidden


@pytest.mark.parametrize(
    "names",
    [
        ("000000_0", "000001_0"),
        ("out-00000-of-00002", "out-00001-of-00002"),
        ("dt=1/000000_0", "dt=2/000000_0.gz"),
        ("a.parquet.gz",),
        ("train.record",),
        ("part-0.c000",),
    ],
)
def test_where_no_file_has_the_suffix_all_visible_files_without_one_are_meant(names: tuple[str, ...]) -> None:
    found = listed(*names, "_SUCCESS", ".000000_0.crc", "x.csv", "y.csv.gz", "z.json-00000-of-00001")
    assert [file.url for file in found.files] == [f"in/{name}" for name in names]
    assert found.left_out == {"hidden": 2, ".csv": 1, ".csv.gz": 1, "": 1}


def test_where_one_file_has_the_suffix_those_without_are_left_out_and_counted() -> None:
    found = listed("a.parquet", "000000_0", "000001_0", "x.csv", "_tmp/b.parquet")
    assert [file.url for file in found.files] == ["in/a.parquet"]
    assert found.left_out == {"": 2, ".csv": 1, "hidden": 1}


def test_without_others_a_file_needs_the_suffix() -> None:
    with pytest.raises(InputError, match=r"no '\*\.parquet' under 'in': 2 there without a suffix"):
        listed("000000_0", "000001_0", others=None)


def test_a_glob_counts_what_it_means_and_leaves_out_and_not_what_it_does_not_mean() -> None:
    found = listed("dt=1/a.parquet", "dt=1/x.csv", "dt=1/.b.parquet", "other/y.csv", "_c.parquet", url="in/dt=*")
    assert [file.url for file in found.files] == ["in/dt=1/a.parquet"]
    assert found.left_out == {".csv": 1, "hidden": 1}
    assert meant("dt=1/000000_0", "dt=1/x.csv", url="in/dt=*") == ["dt=1/000000_0"]
    assert meant("dt=1/000000_0", "x.csv", "a", url="in/*") == ["x.csv", "a"], "what is matched by name is meant"
    assert listed("a.parquet", "b.csv", url="in/*.parquet").left_out == {}


@pytest.mark.parametrize(
    ("seen", "mark"),
    [
        ("_delta_log", Mark("in", "Delta", "in/_delta_log")),
        ("_delta_log/00000.json", Mark("in", "Delta", "in/_delta_log")),
        ("t/_delta_log/00000.json", Mark("in/t", "Delta", "in/t/_delta_log")),
        (".hoodie/hoodie.properties", Mark("in", "Hudi", "in/.hoodie")),
        ("2020/01/.hoodie_partition_metadata", Mark("in/2020/01", "Hudi", "in/2020/01/.hoodie_partition_metadata")),
        ("metadata/v1.metadata.json", Mark("in", "Iceberg", "in/metadata/v1.metadata.json")),
        ("metadata/0-ab.gz.metadata.json", Mark("in", "Iceberg", "in/metadata/0-ab.gz.metadata.json")),
        ("metadata", Mark("in", "", "in/metadata")),
        ("metadata/columns.json", None),
        ("v1.metadata.json", None),
        ("delta_log/a.json", None),
    ],
)
def test_a_table_of_a_lake_is_known_by_what_lies_beside_its_files(seen: str, mark: Mark | None) -> None:
    assert listed("a.parquet", seen).marks == ({mark} if mark else set())


def test_a_folder_of_which_nothing_was_listed_is_looked_into() -> None:
    there = {"t/_delta_log": ["0.json"], "u/metadata": ["v1.metadata.json"], "v/metadata": ["a.parquet"]}
    found = {folder: [*marks_at(folder, lambda name: there.get(name, []))] for folder in "tuv"}
    assert found == {
        "t": [Mark("t", "Delta", "t/_delta_log")],
        "u": [Mark("u", "Iceberg", "u/metadata")],
        "v": [],
    }
    assert not iceberg([])


def test_a_column_in_the_names_of_folders_is_told_by_its_first_folder() -> None:
    urls = ["s3://b/x=1/a.parquet", "s3://b/year=2020/x=2/a.parquet"]
    assert (
        in_folders("year", urls)
        == "'year' stands in folder names ('year=2020'), which are columns with `input: {partitions: hive}`"
    )
    assert in_folders("yea", urls) == in_folders("a.parquet", urls) == ""
