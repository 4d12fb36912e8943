"""Pictures as input: a file is a row, planned from the listing alone, and what is wrong with it is a bad row."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from connectors.formats.fault import BadRowsError
from connectors.formats.media.images import ImagesSource
from connectors.formats.media.picture import PictureError, read_header, require_pillow
from connectors.formats.registry import SOURCES, format_by_content, format_by_suffix, other_suffixes, source_of
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, JobError
from jobs.plan import Plan, plan
from jobs.section.input import Input
from jobs.section.limits import Limits
from runner.preflight.input.files import inspect

ALL = ["path", "bytes", "width", "height"]
COLOURS = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(8, 12, 3)  # COLOURS: (8, 12, 3)


def picture(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """12 wide, 8 high."""
    file = io.BytesIO()
    Image.fromarray(COLOURS).convert(mode).save(file, kind, **options)
    return file.getvalue()


def read(path: Path, columns: list[str], most: int | None = None) -> pa.Table:
    source = source_of(Input(url=str(path), format="images"), max_row_bytes=most)
    store, stat = Store(str(path)), Store(str(path)).stat(str(path))
    assert stat is not None
    with source.open(store, InputSlice(0, stat.url, stat.size, stat.version, 0, (1,)), columns) as reader:
        return reader.read(0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a b.png"
    path.write_bytes(picture())
    return path


def test_a_file_is_one_row_with_its_url_its_bytes_and_the_size_that_its_header_says(file: Path) -> None:
    table = read(file, ALL)
    assert table.to_pylist() == [{"path": str(file), "bytes": file.read_bytes(), "width": 12, "height": 8}]
    assert table.schema == ImagesSource().schema(Store(str(file)), FileStat(str(file), 1, ""))
    assert read(file, ["height", "path"]).to_pylist() == [{"height": 8, "path": str(file)}]
    assert (read(file, []).num_rows, read(file, []).num_columns) == (1, 0)


def test_ten_thousand_pictures_are_planned_without_a_look_and_share_few_shards() -> None:
    class Blind:
        """A store that nothing may be read from."""

        kind = Store("/tmp").kind

    files = [FileStat(f"/in/{number:05}.jpg", 100_000, "1") for number in range(10_000)]
    inspected, skipped = inspect(ImagesSource(), Blind(), files, ["bytes"], Limits())  # type: ignore[arg-type]
    made = plan([one for one, _ in inspected], Limits(), {})
    assert not skipped
    assert (made.rows, len(made.shards), len(made.shards[0].slices)) == (10_000, 8, 1_342)
    assert Plan.from_document(made.document()) == made
    assert len({id(schema) for _, schema in inspected}) == 1


def test_a_broken_header_is_a_bad_row_where_the_size_is_wanted_and_else_a_row(tmp_path: Path) -> None:
    for name, content, story in (
        ("no.jpg", b"<html>", "it is no JPEG or PNG or GIF or BMP or WEBP: its first bytes are 3c 68 74 6d 6c 3e"),
        ("empty.png", b"", "it has no bytes"),
        ("cut.png", picture()[:20], "its header is broken"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert read(path, ["bytes"])["bytes"].to_pylist() == [content]
        with pytest.raises(BadRowsError, match=story) as caught:
            read(path, ALL)
        assert caught.value.facts["code"] == "ROW_IMAGE"
        assert caught.value.table["bytes"].to_pylist() == [content], "the reject file holds it"


def test_a_picture_that_becomes_too_large_is_refused_by_its_header(file: Path) -> None:
    assert read(file, ["bytes"], most=12 * 8 * 3).num_rows == 1
    with pytest.raises(
        BadRowsError, match=r"12 x 8 pixels, 288 bytes when decoded; `limits\.max_row_bytes` allows 287"
    ):
        read(file, ["bytes"], most=287)
    assert read(file, ["path"], most=287).num_rows == 1


def test_a_header_of_a_huge_picture_is_read_without_a_warning_of_pillow() -> None:
    content = bytearray(picture("BMP"))
    content[18:26] = (60_000).to_bytes(4, "little") * 2
    assert read_header(bytes(content)).decoded_bytes == 60_000 * 60_000 * 3


@pytest.mark.parametrize(
    ("content", "channels", "alpha", "cmyk"),
    [
        (picture("JPEG"), 3, False, False),
        (picture("JPEG", "L"), 1, False, False),
        (picture("JPEG", "CMYK"), 4, False, True),
        (picture("PNG", "RGBA"), 4, True, False),
        (picture("PNG", "LA"), 2, True, False),
        (picture("PNG", "P"), 3, False, False),
        (picture("PNG", "P", transparency=0), 3, True, False),
        (picture("GIF"), 3, False, False),
        (picture("WEBP"), 3, False, False),
        (picture("BMP"), 3, False, False),
    ],
)
def test_a_header_says_which_colours_a_picture_has(content: bytes, channels: int, alpha: bool, cmyk: bool) -> None:
    found = read_header(content)
    assert (found.width, found.height, found.channels, found.alpha, found.cmyk) == (12, 8, channels, alpha, cmyk)


def test_how_a_picture_lies_is_in_its_exif_if_that_makes_sense() -> None:
    for tag, orientation in ((6, 6), (9, 1), (0, 1)):
        exif = Image.Exif()
        exif[0x0112] = tag
        for kind in ("JPEG", "PNG", "WEBP"):
            assert read_header(picture(kind, exif=exif)).orientation == orientation
    assert read_header(picture("JPEG", exif=b"Exif\x00\x00nonsense")).orientation == 1


def test_without_pillow_the_size_is_refused_with_what_to_type(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    require_pillow.cache_clear()
    try:
        assert read(file, ["bytes"]).num_rows == 1
        with pytest.raises(JobError, match=r"'pillow' is missing; pip install 'savedmodel-runner\[images\]'"):
            ImagesSource().inspect(Store(str(file)), FileStat(str(file), 1, ""), ["width"])
    finally:
        require_pillow.cache_clear()


def test_a_folder_of_pictures_and_other_things_means_the_pictures(tmp_path: Path, file: Path) -> None:
    (tmp_path / "b.JPG").write_bytes(picture("JPEG"))
    (tmp_path / "README").write_text("pictures of cats")
    store = Store(str(tmp_path))
    listing = store.list([str(tmp_path)], ImagesSource.suffixes, other_suffixes("images"))
    assert [Path(one.url).name for one in listing.files] == ["a b.png", "b.JPG"]
    assert listing.left_out == {"": 1}


def test_previews_beside_data_of_any_format_are_no_input() -> None:
    assert [*SOURCES][-1] == "images", "folders are looked through for one format after the other"


def test_a_picture_is_known_by_its_suffix_and_by_its_first_bytes(tmp_path: Path) -> None:
    assert [format_by_suffix(f"x{suffix}") for suffix in ImagesSource.suffixes] == ["images"] * 6
    for kind in ("JPEG", "PNG", "GIF", "WEBP"):
        (tmp_path / kind).write_bytes(picture(kind))
        store = Store(str(tmp_path))
        assert format_by_content(store, store.list([str(tmp_path / kind)], ()).files) == "images"


def test_a_file_that_changes_is_no_row(file: Path) -> None:
    store = Store(str(file))
    stat = store.stat(str(file))
    assert stat is not None
    file.write_bytes(picture("BMP"))
    slice_ = InputSlice(0, stat.url, stat.size, stat.version, 0, (1,))
    with pytest.raises(DataError, match="changed since plan"), ImagesSource().open(store, slice_, ["bytes"]) as reader:
        reader.read(0)


def test_bytes_that_are_no_picture_say_how_they_begin() -> None:
    with pytest.raises(PictureError, match="its first bytes are 50 41 52 31"):
        read_header(b"PAR1")
