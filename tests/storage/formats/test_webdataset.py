"""Tar files of webdataset: members of one key are one row, nothing is unpickled, and what is no such file is told."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.fault import BadRowsError
from connectors.formats.media import webdataset
from connectors.formats.media.sample import split
from connectors.formats.media.tar import BLOCK
from connectors.formats.media.webdataset import WebdatasetSource
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.section.input import Input

Members = Iterable[tuple[str, bytes]]
Types = Mapping[str, pa.DataType]


def packed(members: Members, mode: str = "w", layout: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=layout) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def stat_of(path: Path) -> tuple[Store, FileStat]:
    store = Store(str(path.parent))
    stat = store.stat(path.name)
    assert stat is not None
    return store, stat


def seen(path: Path) -> dict[str, pa.DataType]:
    schema = WebdatasetSource().schema(*stat_of(path))
    return dict(zip(schema.names, schema.types, strict=True))


def planned(path: Path, source: WebdatasetSource, columns: Sequence[str]) -> tuple[Store, InputSlice]:
    store, stat = stat_of(path)
    file, _ = source.inspect(store, stat, columns)
    groups = file.row_groups
    rows, places = tuple(group.rows for group in groups), tuple(group.place for group in groups)
    return store, InputSlice(0, file.url, file.size, file.version, 0, rows, places=places)


Told = list[tuple[int, str, str | None, str]]


def read(path: Path, types: Types | None = None, most: int | None = None) -> tuple[list[dict[str, Any]], Told]:
    """All rows, null where they are bad; and of those: row of the file, code, column, story."""
    types = seen(path) if types is None else types
    source = WebdatasetSource(types)
    source.max_row_bytes = most
    store, inputs = planned(path, source, [*types])
    rows, bad = list[dict[str, Any]](), Told()
    with source.open(store, inputs, [*types]) as reader:
        for group, count in enumerate(inputs.rows):
            error: BadRowsError | None = None
            try:
                found = reader.read(group)
            except BadRowsError as raised:
                error, found = raised, raised.table
            for one in error.bad if error is not None else ():
                bad += [
                    (len(rows) + row, one.code, one.column, story)
                    for row, story in zip(one.at.tolist(), one.stories, strict=True)
                ]
            found.validate(full=True)
            assert found.num_rows == count
            assert [*zip(found.schema.names, found.schema.types, strict=True)] == [*types.items()]
            rows += found.to_pylist()
    return rows, sorted(bad)


def codes(bad: Told) -> list[tuple[int, str, str | None]]:
    return [(row, code, column) for row, code, column, _ in bad]


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values), allow_pickle=True)
    return file.getvalue()


def numbered(rows: int) -> list[tuple[str, bytes]]:
    return [
        member
        for row in range(rows)
        for member in (
            (f"d/{row:03}.jpg", bytes([255, 216, row])),
            (f"d/{row:03}.cls", b" %d\n" % row),
            (f"d/{row:03}.json", json.dumps({"label": row, "who": {"name": f"é{row}"}}, indent=1).encode()),
        )
    ]


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.bz2", "w:bz2")]
)
def test_members_of_one_key_are_one_row(tmp_path: Path, layout: int, name: str, mode: str) -> None:
    path = put(tmp_path / name, packed([*numbered(3), ("e.txt", "ü\n".encode())], mode, layout))
    assert seen(path) == {
        "__key__": pa.string(),
        "jpg": pa.binary(),
        "cls": pa.int64(),
        "json": pa.struct([("label", pa.int64()), ("who", pa.struct([("name", pa.string())]))]),
        "txt": pa.string(),
    }
    rows, bad = read(path)
    assert not bad
    assert rows == [
        {
            "__key__": f"d/{row:03}",
            "jpg": bytes([255, 216, row]),
            "cls": row,
            "json": {"label": row, "who": {"name": f"é{row}"}},
            "txt": None,
        }
        for row in range(3)
    ] + [{"__key__": "e", "jpg": None, "cls": None, "json": None, "txt": "ü\n"}]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.jpg", ("a", "jpg")),
        ("v1.0/a.seg.PNG", ("v1.0/a", "seg.png")),
        ("./d/a.cls", ("./d/a", "cls")),
        ("README", None),
        ("._a.jpg", None),
        ("d/.hidden", None),
        ("a.", None),
        ("__meta__/a.json", None),
        ("__meta__", None),
    ],
)
def test_a_key_ends_at_the_first_dot_of_the_base_name(name: str, parts: tuple[str, str] | None) -> None:
    """As in the webdataset library, where a name without an extension, and `__NAME__/` on top, are no part of a row."""
    assert split(name) == parts


names = st.sampled_from(["a", "b", "c/d", "e" * 120, "f/" + "g" * 180, "ü" * 90])


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.tuples(names, st.sampled_from(["bin", "cls2", "TXT"]), st.binary(max_size=1500)), max_size=25),
    layout=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    group_rows=st.integers(1, 5),
    group_bytes=st.integers(1, 8000),
    ahead=st.sampled_from([1, 600, 2**14]),
    mode=st.sampled_from(["w", "w:gz"]),
)
def test_rows_are_runs_of_keys_and_each_row_group_is_read_by_itself(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[tuple[str, str, bytes]],
    layout: int,
    group_rows: int,
    group_bytes: int,
    ahead: int,
    mode: str,
) -> None:
    """Long names, whose headers lie in front of those of their members, included."""
    expected, again, seen_keys = list[dict[str, Any]](), set[int](), set[str]()
    for key, run in groupby(members, key=lambda member: member[0]):
        row: dict[str, Any] = {"__key__": key, "bin": None, "cls2": None, "txt": None}
        for _, extension, content in run:
            name = extension.lower()
            again |= {len(expected)} if row[name] is not None else set()
            row[name] = content if row[name] is None else row[name]
        again |= {len(expected)} if key in seen_keys else set()
        seen_keys.add(key)
        expected.append(row)
    types = {"__key__": pa.string(), "bin": pa.binary(), "cls2": pa.binary(), "txt": pa.binary()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webdataset, "_GROUP_ROWS", group_rows)
        patch.setattr(webdataset, "_GROUP_BYTES", group_bytes)
        patch.setattr("connectors.formats.media.tar._AHEAD_NEAR", ahead)
        file = packed([(f"{key}.{extension}", content) for key, extension, content in members], mode, layout)
        path = put(tmp_path_factory.mktemp("tar") / ("a.tar" + ".gz" * (mode != "w")), file)
        source = WebdatasetSource(types)
        store, inputs = planned(path, source, [*types])
        assert max(inputs.rows, default=0) <= (group_rows if mode == "w" else len(members))
        rows, bad = read(path, types)
        assert rows == expected
        assert {row for row, code, _, _ in bad if code == "ROW_KEY"} == again
        if inputs.rows and not again:
            with source.open(store, inputs, ["bin"]) as reader:
                found = [reader.read(group) for group in reversed(range(len(inputs.rows)))]
            assert [row["bin"] for row in pa.concat_tables(found[::-1]).to_pylist()] == [row["bin"] for row in expected]


def test_a_row_group_is_read_without_the_rest_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "_GROUP_ROWS", 1)
    content = packed([(f"{row}.bin", bytes([row]) * 100_000) for row in range(4)])
    path, source = put(tmp_path / "a.tar", content), WebdatasetSource({"bin": pa.binary()})
    store, inputs = planned(path, source, ["bin"])
    start, stop, first = inputs.place(2)
    assert (start % BLOCK, stop % BLOCK, first) == (0, 0, 2)
    assert stop - start == BLOCK + 100_352
    with source.open(store, inputs, ["bin"]) as reader:
        asked = list[tuple[int, int]]()
        take = reader._held.take  # type: ignore[attr-defined]
        monkeypatch.setattr(reader._held, "take", lambda *place: asked.append(place) or take(*place))  # type: ignore[attr-defined]
        assert reader.read(2)["bin"].to_pylist() == [b"\2" * 100_000]
    assert min(asked)[0] >= start
    assert sum(stop - start for start, stop in asked) < 100_000 + 4 * 2**14


def test_the_bytes_of_members_that_nobody_reads_are_stepped_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [member for row in range(20) for member in ((f"{row}.jpg", bytes(10**6)), (f"{row}.cls", b"%d" % row))]
    path, source = put(tmp_path / "a.tar", packed(members)), WebdatasetSource({"cls": pa.int64()})
    asked = list[int]()

    def counted(take: Callable[..., Any]) -> Callable[..., Any]:
        return lambda held, start, stop: asked.append(stop - start) or take(held, start, stop)

    monkeypatch.setattr("connectors.formats.buffered.BufferedFile.take", counted(webdataset.BufferedFile.take))
    store, inputs = planned(path, source, ["cls"])
    with source.open(store, inputs, ["cls"]) as reader:
        assert reader.read(0)["cls"].to_pylist() == [*range(20)]
    assert sum(asked) < 2 * 20 * 2 * 2**14 + 2**16


# values


VALUES = [
    ("cls", pa.int64(), b"7\n", 7),
    ("cls", pa.int64(), b"0x1F", "ROW_TYPE"),
    ("cls", pa.int64(), b"", "ROW_TYPE"),
    ("cls", pa.int8(), b"300", "ROW_OVERFLOW"),
    ("cls", pa.float32(), b" 0.5 ", 0.5),
    ("cls", pa.float32(), b"1e39", "ROW_OVERFLOW"),
    ("cls", pa.float16(), b"1e5", "ROW_OVERFLOW"),
    ("cls", pa.float32(), b"-inf", float("-inf")),
    ("ok", pa.bool_(), b"true", True),
    ("txt", pa.string(), " é\n".encode(), " é\n"),
    ("txt", pa.string(), b"\xff", "ROW_UTF8"),
    ("txt", pa.binary(), b"\xff", b"\xff"),
    ("json", pa.struct([("x", pa.int64())]), b'\xef\xbb\xbf{\r\n"x": 1,\n "y": "\\n"}', {"x": 1}),
    ("json", pa.struct([("x", pa.int64())]), b"null", None),
    ("json", pa.struct([("x", pa.int64())]), b'{"x": "1"}', "ROW_TYPE"),
    ("json", pa.struct([("x", pa.int64())]), b'{"x": 1}}\n{"v":{}', "ROW_JSON"),
    ("json", pa.struct([("x", pa.int64())]), b"", "ROW_JSON"),
    ("json", pa.struct([("x", pa.int64())]), b'{"x": 1', "ROW_JSON"),
    ("json", pa.struct([("x", pa.int64())]), b'{"y": "\xff"}', "ROW_UTF8"),
    ("json", pa.list_(pa.int64()), b"[1, 2]", [1, 2]),
    ("json", pa.float64(), b"3", 3.0),
    ("json", pa.string(), b'{"x": 1}', '{"x": 1}'),
    ("meta", pa.struct([("x", pa.int64())]), b'{"x": 1}', {"x": 1}),
    ("npy", pa.list_(pa.float32(), 4), npy(np.arange(4, dtype=">f4").reshape(2, 2)), [0.0, 1.0, 2.0, 3.0]),
    ("npy", pa.list_(pa.float32(), 4), npy([1.0]), "ROW_SHAPE"),
    ("npy", pa.list_(pa.int16()), npy([1, 2]), [1, 2]),
    ("npy", pa.large_list(pa.int16()), npy([]), []),
    ("npy", pa.list_(pa.int8()), npy([1, 300]), "ROW_OVERFLOW"),
    ("npy", pa.list_(pa.int8()), npy([1.5]), "ROW_TYPE"),
    ("npy", pa.int32(), npy(5), 5),
    ("npy", pa.list_(pa.float32()), b"no array", "ROW_TYPE"),
    ("npy", pa.list_(pa.float32()), npy([1.0])[:-1], "ROW_TYPE"),
    ("npy", pa.binary(), npy([1, 2]), npy([1, 2])),
    ("emb.npy", pa.list_(pa.float16(), 2), npy(np.array([1, 2], np.float16)), [1.0, 2.0]),
]


@pytest.mark.parametrize(("extension", "kind", "content", "expected"), VALUES, ids=lambda case: str(case)[:30])
def test_a_part_becomes_what_its_type_says_or_is_told(
    tmp_path: Path, extension: str, kind: pa.DataType, content: bytes, expected: object
) -> None:
    """Between two rows: one that lacks the part, and the one before it."""
    path = put(tmp_path / "a.tar", packed([("a.bin", b""), (f"k/b.{extension}", content), ("c.bin", b"")]))
    rows, bad = read(path, {extension: kind})
    assert [rows[0][extension], rows[2][extension]] == [None, None]
    if isinstance(expected, str) and expected.startswith("ROW_"):
        assert codes(bad) == [(1, expected, extension)]
        assert bad[0][3].startswith("key 'k/b', row 1 of the file: ")
        assert rows[1][extension] is None
    else:
        assert not bad
        assert rows[1][extension] == expected


@pytest.mark.parametrize(
    ("extension", "parts", "kind"),
    [
        ("npy", [npy([[1.0, 2.0]]), npy([[3.0, 4.0]])], pa.list_(pa.float64(), 2)),
        ("npy", [npy([1]), npy([1, 2])], pa.list_(pa.int64())),
        ("npy", [npy([1]), npy([1.5])], pa.binary()),
        ("npy", [npy(np.float32(1)), npy(np.float32(2))], pa.float32()),
        ("npy", [npy(["text"])], pa.binary()),
        ("npy", [b"no array"], pa.binary()),
        ("json", [b"[1]", b"[2.5]"], pa.list_(pa.float64())),
        ("json", [b"no json", b'{"a": null}', b'{"a": 1}'], pa.struct([("a", pa.int64())])),
        ("json", [b"no json"], pa.binary()),
        ("cls", [b"0.5"], pa.int64()),
        ("txt", [b"\xff"], pa.string()),
        ("seg.png", [b"\x89PNG"], pa.binary()),
    ],
)
def test_the_first_rows_show_the_types(tmp_path: Path, extension: str, parts: list[bytes], kind: pa.DataType) -> None:
    path = put(tmp_path / "a.tar", packed((f"{row}.{extension}", content) for row, content in enumerate(parts)))
    assert seen(path) == {"__key__": pa.string(), extension: kind}


@pytest.mark.parametrize(("name", "kind"), [("json", "time64[us]"), ("cls", "duration[s]"), ("npy", "struct<a: int8>")])
def test_a_type_that_a_part_does_not_hold_is_refused(name: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"cannot read column '{name}'") as caught:
        WebdatasetSource.of(Input(url="a.tar", format="webdataset", types={name: kind}))
    assert caught.value.facts["code"] == "COLUMN_TYPE"


def test_a_key_that_comes_again_and_a_part_that_is_there_twice_are_bad_rows(tmp_path: Path) -> None:
    members = [("a.cls", b"1"), ("a.txt", b"x"), ("b.cls", b"2"), ("b.CLS", b"3"), ("a.cls", b"4"), ("c.cls", b"5")]
    rows, bad = read(put(tmp_path / "a.tar", packed(members)), {"__key__": pa.string(), "cls": pa.int64()})
    assert [row["cls"] for row in rows] == [1, 2, 4, 5]
    assert codes(bad) == [(1, "ROW_KEY", "cls"), (2, "ROW_KEY", "__key__")]
    assert "two members are its 'cls'" in bad[0][3]
    assert "tar --sort=name" in bad[1][3]


def test_a_part_above_max_row_bytes_is_a_bad_row_that_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.tar", packed([("a.bin", bytes(10)), ("b.bin", bytes(50_000)), ("c.bin", bytes(100))]))
    rows, bad = read(path, {"bin": pa.binary()}, most=100)
    assert [row["bin"] for row in rows] == [bytes(10), None, bytes(100)]
    assert codes(bad) == [(1, "ROW_TOO_BIG", "bin")]


def test_a_name_that_is_no_utf8_is_a_bad_row_where_keys_are_read(tmp_path: Path) -> None:
    content = packed([("kay.cls", b"1")], layout=tarfile.USTAR_FORMAT)
    head = bytearray(content[:BLOCK].replace(b"kay", b"k\xffy"))
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    path = put(tmp_path / "a.tar", bytes(head) + content[BLOCK:])
    assert codes(read(path, {"__key__": pa.string()})[1]) == [(0, "ROW_UTF8", "__key__")]
    assert read(path, {"cls": pa.int64()}) == ([{"cls": 1}], [])


# what is refused


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d/a.pkl", pickle.dumps({"x": 1})),
        ("d/a.PICKLE", b""),
        ("d/a.weights.pt", b""),
        ("d/a.pth", b""),
        ("d/a.pyd", b""),
        ("d/a.npy", npy(np.array([{"x": 1}], object))),
        ("d/a.npy", npy(np.zeros(1, [("x" * 3000, "i4"), ("y", object)]))),
    ],
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_with_a_pickle_is_refused_by_name_whatever_is_read(
    tmp_path: Path, name: str, content: bytes, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    path = put(tmp_path / ("a.tar" + ".gz" * (mode != "w")), packed([("d/0.cls", b"1"), (name, content)], mode))
    source = WebdatasetSource({"cls": pa.int64()})
    for look in (lambda: source.inspect(*stat_of(path), ["cls"]), lambda: source.schema(*stat_of(path))):
        with pytest.raises(
            InputError, match=f"member '{name}' is .*: tar|member '{name}' is .*take such members out"
        ) as caught:
            look()
        assert caught.value.facts["code"] == "FILE_PICKLE"


def special(kind: bytes, name: str = "a.jpg", link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return packed([("0.cls", b"1")])[: 2 * BLOCK] + info.tobuf() + bytes(2 * BLOCK)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (special(tarfile.SYMTYPE, link="/etc/passwd"), "member 'a.jpg' at byte 1,024 is a link to '/etc/passwd'"),
        (special(tarfile.LNKTYPE, link="0.cls"), "is a link to '0.cls'.*--hard-dereference"),
        (special(tarfile.CHRTYPE), "is a device or a pipe"),
        (special(tarfile.FIFOTYPE), "is a device or a pipe"),
        (special(b"Z"), "of an unknown kind, b'Z'"),
        (special(tarfile.REGTYPE, "/etc/a.cls"), "member '/etc/a.cls' .* leads out of any folder.*tar -C"),
        (special(tarfile.REGTYPE, "d/../../a.cls"), "leads out of any folder"),
    ],
)
def test_what_is_no_file_in_a_folder_is_refused_by_name(tmp_path: Path, content: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        WebdatasetSource({"cls": pa.int64()}).inspect(*stat_of(put(tmp_path / "a.tar", content)), [])
    assert caught.value.facts["code"] == "FILE_UNSUPPORTED"


@pytest.mark.parametrize("size", [-1, -512, -(2**40), 2**62])
def test_a_size_that_is_none_ends_in_an_error(tmp_path: Path, size: int) -> None:
    """Sizes below 0 led older versions of tarfile in a circle."""
    info = tarfile.TarInfo("a.cls")
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        info.size, info.type = size, kind
        head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        path = put(tmp_path / "a.tar", packed([("0.cls", b"1")])[: 2 * BLOCK] + bytes(head) + bytes(2 * BLOCK))
        with pytest.raises(InputError) as caught:
            WebdatasetSource({"cls": pa.int64()}).inspect(*stat_of(path), [])
        assert caught.value.facts["code"] in ("FILE_CORRUPT", "FILE_TRUNCATED")


def test_a_tar_file_that_is_cut_is_truncated_wherever_it_ends(tmp_path: Path) -> None:
    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        content = packed([("a.cls", b"1"), ("b" * 150 + "é.cls", b"2" * 600)], layout=layout)
        end = len(content.rstrip(b"\0"))
        end += -end % BLOCK
        for size in (*range(1, end, 100), *range(BLOCK, end + 1, BLOCK)):
            path = put(tmp_path / "a.tar", content[:size])
            with pytest.raises(InputError) as caught:
                WebdatasetSource({"cls": pa.int64()}).inspect(*stat_of(path), [])
            assert caught.value.facts["code"] == ("FILE_TRUNCATED" if size >= BLOCK else "FILE_MAGIC"), size
        assert WebdatasetSource().schema(*stat_of(put(tmp_path / "a.tar", content[: end + BLOCK]))).names == [
            "__key__",
            "cls",
        ]


@pytest.mark.parametrize(
    ("name", "content", "code", "text"),
    [
        ("a.tar", b"", "FILE_EMPTY", "it has no bytes"),
        ("a.tar", b"x" * 2000, "FILE_MAGIC", "not a tar file: its first bytes are 78 78"),
        ("a.tar", packed(numbered(1), "w:gz"), "FILE_MAGIC", "a gzip file"),
        ("a.tar.gz", packed(numbered(1)), "FILE_CORRUPT", "gzip stream is damaged"),
        ("a.tar.gz", gzip.compress(b"no tar" * 500), "FILE_MAGIC", "gzip stream holds is no tar file"),
        ("a.tgz", packed(numbered(5), "w:gz")[:-20], "FILE_TRUNCATED", "ends in the middle"),
        ("a.tar", packed(numbered(1)) + packed(numbered(1)), "FILE_CORRUPT", "more follows the end.*--concatenate"),
        ("a.tar", packed(numbered(1))[: 2 * BLOCK] + b"x" * 5000, "FILE_CORRUPT", "no header of a member"),
        ("a.tar", packed([("a.__key__", b"")]), "FILE_SCHEMA", "rename it"),
    ],
)
def test_what_is_no_whole_tar_file_is_told(tmp_path: Path, name: str, content: bytes, code: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        WebdatasetSource({"cls": pa.int64()}).inspect(*stat_of(put(tmp_path / name, content)), [])
    assert caught.value.facts["code"] == code


def test_a_tar_file_without_a_member_that_is_data_has_no_row(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("d")
    folder.type = tarfile.DIRTYPE
    for content in (packed([]), folder.tobuf() + bytes(2 * BLOCK), packed([("README", b"x"), (".x.cls", b"1")])):
        path = put(tmp_path / "a.tar", content)
        assert seen(path) == {}
        assert read(path, {"cls": pa.int64()}) == ([], [])


def test_no_flipped_bit_of_a_header_hangs_or_crashes(tmp_path: Path) -> None:
    content = packed([("a.cls", b"1"), ("b" * 120 + ".cls", b"2")])
    found = set[str]()
    for at in range(0, 5 * BLOCK, 3):
        path = put(tmp_path / "a.tar", content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        try:
            WebdatasetSource({"cls": pa.int64()}).inspect(*stat_of(path), [])
        except InputError as error:
            found.add(str(error.facts["code"]))
    assert "FILE_CORRUPT" in found


def test_a_file_that_changed_since_the_plan_is_not_read(tmp_path: Path) -> None:
    source, path = WebdatasetSource({"cls": pa.int64()}), put(tmp_path / "a.tar", packed([("a.cls", b"1")]))
    store, inputs = planned(path, source, ["cls"])
    put(path, packed([("a.cls", b"1")] * 40))
    with pytest.raises(DataError) as caught, source.open(store, inputs, ["cls"]) as reader:
        reader.read(0)
    assert caught.value.facts["code"] == "FILE_CHANGED"


def test_a_tar_file_is_known_by_its_first_header() -> None:
    assert WebdatasetSource().begins(packed([("a.cls", b"1")])[:4096])
    assert not WebdatasetSource().begins(b"PAR1" + bytes(4000))
    assert not WebdatasetSource().begins(bytes(100))


def test_a_row_group_is_one_request_of_a_store_that_is_far(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "_GROUP_ROWS", 2)
    place.put("a.tar", packed(numbered(5)))
    store, types = place.store(), {"cls": pa.int64(), "jpg": pa.binary()}
    stat, source = store.stat("a.tar"), WebdatasetSource(types)
    file, _ = source.inspect(store, stat, [*types])
    rows, places = zip(*((group.rows, group.place) for group in file.row_groups), strict=True)
    assert rows == (2, 2, 1)
    with source.open(
        store, InputSlice(0, file.url, file.size, file.version, 0, rows, places=places), [*types]
    ) as reader:
        asked = list[Any]()
        fetched = reader._held._fetched  # type: ignore[attr-defined]
        monkeypatch.setattr(reader._held, "_fetched", lambda ranges: asked.append(ranges) or fetched(ranges))  # type: ignore[attr-defined]
        found = [reader.read(group)["cls"].to_pylist() for group in range(3)]
    assert found == [[0, 1], [2, 3], [4]]
    if not store.kind.local:
        assert len(asked) <= 3
