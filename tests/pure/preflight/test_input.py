"""The files of an input and their format, as a job and a folder show them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from connectors.formats.parquet import ParquetSource
from connectors.formats.tfrecord.record import framed
from connectors.store.store import Store
from jobs.errors import BindingError, DataError, InputError
from jobs.job import Job
from jobs.section.limits import Limits
from runner.preflight.input.files import first_schema
from runner.preflight.input.listing import Listed, listed, with_advice

TABLE = pa.table({"x": pa.array([1, 2], pa.int64())})


def write(path: Path, kind: str = "parquet") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pq.write_table(TABLE, path)
    elif kind == "arrow":
        feather.write_feather(TABLE, str(path), compression="uncompressed")
    elif kind in ("tfrecord", "gzip"):
        content = framed(pa.array([b"a record"], pa.large_binary())).to_pybytes()
        path.write_bytes(gzip.compress(content) if kind == "gzip" else content)
    else:
        path.write_text(kind)


def look(*urls: object, **given: Any) -> Listed:
    document = {"model": {"url": "m"}, "input": {"url": [str(url) for url in urls], **given}, "output": {"url": "o"}}
    job = Job.model_validate(document)
    return listed(job, Store(job.input.url[0]))


def names(found: Listed) -> list[str]:
    return [file.url.rpartition("/")[2] for file in found.files]


@pytest.mark.parametrize(
    ("kind", "name", "format"),
    [
        ("parquet", "000000_0", "parquet"),
        ("arrow", "out-00000-of-00002", "arrow"),
        ("tfrecord", "train.tfrecord-00000-of-00002", "tfrecord"),
        ("gzip", "data_tfrecord-00000-of-00001.gz", "tfrecord"),
        ("tfrecord", "train.record", "tfrecord"),
    ],
)
@pytest.mark.parametrize("glob", ["", "/*", "/{name}"])
def test_the_first_bytes_say_the_format_where_no_suffix_does(
    tmp_path: Path, kind: str, name: str, format: str, glob: str
) -> None:
    write(tmp_path / name, kind)
    found = look(f"{tmp_path}{glob.format(name=name)}")
    assert (found.job.input.format, names(found)) == (format, [name])


def test_files_that_show_no_format_are_refused_with_the_word_that_helps(tmp_path: Path) -> None:
    write(tmp_path / "000000_0", "1,2,3")
    with pytest.raises(InputError, match=r"1 there without a suffix; .*`input: \{format: parquet \| arrow \| tfrecord"):
        look(tmp_path)
    assert names(look(tmp_path, format="parquet")) == ["000000_0"]


def test_one_url_may_have_suffixes_and_another_one_none(tmp_path: Path) -> None:
    write(tmp_path / "a" / "a.parquet")
    write(tmp_path / "b" / "000000_0")
    assert names(look(tmp_path / "a", tmp_path / "b", format="parquet")) == ["a.parquet", "000000_0"]


def test_a_folder_of_one_format_never_begins_to_mean_files_of_another(tmp_path: Path) -> None:
    for name, kind in {"a.parquet": "parquet", "b.arrow": "arrow", "c.csv": "1,2", "000000_0": "parquet"}.items():
        write(tmp_path / name, kind)
    for given in ({}, {"format": "parquet"}):
        found = look(tmp_path, **given)
        assert (found.job.input.format, names(found)) == ("parquet", ["a.parquet"])
        assert found.left_out == {".arrow": 1, ".csv": 1, "": 1}
    assert names(look(tmp_path, format="arrow")) == ["b.arrow"]
    (tmp_path / "000000_0").unlink()
    with pytest.raises(InputError, match=r"no '\*\.tfrecord'") as error:
        look(tmp_path, format="tfrecord")
    assert error.value.facts["code"] == "NO_INPUT"


def test_a_gzip_around_parquet_is_told_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"PAR1 and more"))
    found = look(tmp_path, format="parquet")
    with pytest.raises(InputError, match="a gzip file: unpack it first") as error:
        first_schema(found.source, Store(str(tmp_path)), found.files, Limits())
    assert error.value.facts["code"] == "FILE_MAGIC"


def test_empty_files_that_stand_for_folders_are_no_input(tmp_path: Path) -> None:
    write(tmp_path / "dt=1" / "a.parquet")
    (tmp_path / "dt=1_$folder$").touch()
    for url in (tmp_path, f"{tmp_path}/*"):
        assert names(look(url)) == ["a.parquet"]


# tables of a lake

MARKS = {
    "Delta": ("_delta_log/00000000000000000000.json", r"`input: \{delta: /.*/lake/t\}`"),
    "Hudi": (".hoodie/hoodie.properties", "get_file_slices"),
    "Iceberg": ("metadata/00001-ab.metadata.json", r"`input: \{iceberg: \.\.\.\}`"),
}


@pytest.mark.parametrize("kind", MARKS)
@pytest.mark.parametrize(
    "url",
    ["lake/t", "lake", "lake/t/*", "lake/t/*/*/*.parquet", "lake/t/data/year=1", "lake/*/data/**/*.parquet"],
)
def test_a_folder_of_a_table_is_refused_from_above_and_from_below(tmp_path: Path, kind: str, url: str) -> None:
    mark, way_out = MARKS[kind]
    write(tmp_path / "lake" / "other" / "x.parquet")
    write(tmp_path / "lake" / "t" / "data" / "year=1" / "a.parquet")
    write(tmp_path / "lake" / "t" / mark, "{}")
    with pytest.raises(InputError, match=rf"lake/t' as a folder: it is an? {kind} table .*{way_out}") as error:
        look(tmp_path / url)
    assert error.value.facts["code"] == "INPUT_TABLE"
    assert error.value.exit_code == 2
    assert look(tmp_path / "lake" / "other").warnings == look(tmp_path / "lake" / "o*").warnings == []


@pytest.mark.parametrize("kind", MARKS)
def test_files_of_a_table_that_are_named_one_by_one_are_read_with_a_warning(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "t" / "year=1" / "a.parquet"
    write(file)
    write(tmp_path / "t" / MARKS[kind][0], "{}")
    (warning,) = look(file).warnings
    assert f"/t' is {'an' if kind == 'Iceberg' else 'a'} {kind} table" in warning
    assert "row-level deletes are not in the files" in warning


def test_a_folder_called_metadata_alone_makes_no_table(tmp_path: Path) -> None:
    write(tmp_path / "metadata" / "a.parquet")
    write(tmp_path / "data" / "b.parquet")
    assert names(look(tmp_path)) == ["b.parquet", "a.parquet"]
    assert names(look(f"{tmp_path}/data/*.parquet")) == ["b.parquet"]


# what is no file


@pytest.mark.parametrize("by", ["name", "folder", "glob", "link"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path, by: str) -> None:
    pipe = tmp_path / "in" / "a.parquet"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    link = tmp_path / "link.parquet"
    link.symlink_to(pipe)
    found = look({"name": pipe, "folder": pipe.parent, "glob": f"{pipe.parent}/*", "link": link}[by])
    store = Store(str(tmp_path))
    with pytest.raises(InputError, match=r"\.parquet': it is a named pipe, no regular file") as error:
        first_schema(found.source, store, found.files, Limits())
    assert error.value.facts["code"] == "FILE_SPECIAL"
    with pytest.raises(DataError, match="no regular file"):
        first_schema(found.source, store, found.files, Limits(on_bad_file="skip"))


def test_a_pipe_without_the_suffix_is_nothing_to_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    os.mkfifo(tmp_path / "control")
    assert names(look(tmp_path)) == ["a.parquet"]


def test_a_column_that_stands_in_the_names_of_folders_is_told_so(tmp_path: Path) -> None:
    write(tmp_path / "year=2020" / "a.parquet")
    error = BindingError("could not bind: 1 problem", code="COLUMN_MISSING")
    told = with_advice(error, ["x", "year", "z"], TABLE.schema, look(tmp_path).files, ParquetSource())
    assert told.message.endswith(
        "\n  - 'year' stands in folder names ('year=2020'), which are columns with `input: {partitions: hive}`"
    )
    assert told.facts == error.facts
