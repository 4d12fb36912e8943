"""A format is a file, a line in the registry and its rules for job files; nothing else knows it by name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from connectors.formats.registry import (
    ENCODERS,
    SOURCES,
    SUFFIXES,
    format_by_suffix,
    format_of,
    make_encoder,
    make_source,
)
from jobs.errors import OutputError
from jobs.format import RULES, FileFormat

ROOT = Path(__file__).parents[3]
HOMES = ("connectors/formats/", "jobs/format.py", "jobs/examples/")
OTHERWISE = {
    ("runner/cli/view/model.py", "arrow"),  # the Arrow type of a tensor, in the JSON of a model
    ("jobs/section/input.py", "csv"),  # a key of a job
    *(("runner/model/folder.py", mark) for mark in (".tar", ".tgz")),  # a model that is still packed
}


def _marks() -> set[str]:
    """What one could know a format by."""
    read = {mark for name in SOURCES for mark in (name, *make_source(name).suffixes)}
    return read | {mark for name in ENCODERS for mark in (name, make_encoder(name).suffix)}


def _named(source: str, marks: set[str]) -> Iterator[tuple[int, str]]:
    """Strings of the code that are a mark as a whole. What is put together with `f""` makes a name and reads none."""
    tree = ast.parse(source)
    made = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in made and node.value in marks:
            yield node.lineno, node.value


def test_a_format_is_known_by_name_in_its_home_alone() -> None:
    marks = _marks()
    paths = [
        path.relative_to(ROOT).as_posix()
        for top in ("jobs", "connectors", "runner")
        for path in (ROOT / top).rglob("*.py")
    ]
    elsewhere = [
        f"{path}:{line}: {mark!r}"
        for path in sorted(paths)
        if not path.startswith(HOMES)
        for line, mark in _named((ROOT / path).read_text(encoding="utf-8"), marks)
        if (path, mark) not in OTHERWISE
    ]
    assert elsewhere == [], "ask the format instead: its source, its encoder, or its rules in jobs/format.py"


@pytest.mark.parametrize(
    "source",
    [
        "kind = 'ipc' if path.endswith('.arrow') else ''",
        "if job.output.format == 'tfrecord': pass",
        "if kind in ('parquet', 'arrow'): pass",
        "match kind:\n    case 'parquet': pass",
        "KINDS = {'arrow': 1}",
        "name = format or 'parquet'",
    ],
)
def test_a_format_that_is_known_elsewhere_is_seen(source: str) -> None:
    assert [*_named(source, _marks())]
    assert not [*_named("'''Parquet'''\nname = f'{shard}.parquet'", _marks())]


def test_a_job_file_knows_the_formats_of_the_registry() -> None:
    assert [*SOURCES] == [*SUFFIXES] == [*get_args(FileFormat)]
    assert [*ENCODERS] == [*RULES]


@pytest.mark.parametrize("name", SOURCES)
def test_a_format_is_known_by_the_suffixes_of_its_files(name: str) -> None:
    suffixes = make_source(name).suffixes
    assert suffixes == SUFFIXES[name], "the registry has them too, so that a listing imports no format that it lacks"
    assert {format_by_suffix(f"s3://bucket/FILE{end}".upper()) for end in suffixes} == {name}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_format_reads_what_it_writes_by_its_suffix(name: str) -> None:
    suffix = make_encoder(name).suffix
    assert name not in SOURCES or make_source(name).suffixes[0] == suffix
    assert format_of(f"part-0{suffix}") == name


def test_which_format_a_name_has_is_known_before_any_format_is_imported() -> None:
    code = """if True:
        import sys
        from connectors.formats.registry import SUFFIXES, format_by_suffix, other_suffixes
        assert format_by_suffix("s3://bucket/a.csv.gz") == "csv" and ".orc" in other_suffixes("csv") and SUFFIXES["csv"]
        print(*(name for name in sys.modules if name.startswith(("connectors.formats.", "pyarrow", "fsspec"))))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.split(), done.stderr) == (["connectors.formats.registry"], "")


def test_a_file_of_no_format_has_none() -> None:
    assert format_of("part-0.txt") is None
    assert format_by_suffix("folder/*") is None


def test_each_format_says_whether_its_parts_are_tables() -> None:
    assert make_encoder("parquet").dataset("part") == "parquet"
    assert make_encoder("arrow").dataset("part") == "ipc"
    with pytest.raises(OutputError) as caught:
        make_encoder("tfrecord").dataset("s3://bucket/part-0.tfrecord")
    assert caught.value.message == (
        "cannot open 's3://bucket/part-0.tfrecord' as a table: read it with tf.data.TFRecordDataset"
    )
