"""Pictures are decoded as TensorFlow's own functions do it, bit for bit; and one that cannot be fails alone."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from jobs.section.columns import Decode
from runner.engine import EngineOptions
from runner.engine.picture import PicturesEngine, PicturesError
from runner.tensor import Array, Feeds, Outputs, Strings, Tensor

COLOURS = np.random.default_rng(7).integers(0, 256, (11, 17, 3), np.uint8)  # COLOURS: (11, 17, 3)
SMOOTH = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)[..., None].repeat(3, 2)  # SMOOTH: (40, 60, 3)


class Echo:
    """An engine that answers what it is fed with."""

    devices = ("/device:CPU:0",)

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        return {name: feeds[name] for name in fetches}

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return {}

    def close(self) -> None: ...


def picture(kind: str = "JPEG", mode: str = "RGB", pixels: Array = COLOURS, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def deep() -> bytes:
    """A PNG of 16 bits."""
    file = io.BytesIO()
    Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257 + 99).save(file, "PNG")
    return file.getvalue()


def moving() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(np.roll(COLOURS, by, 0)) for by in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def strings(*pictures: bytes) -> Strings:
    return Strings(pa.array(pictures, pa.binary()), (len(pictures),))


def engine(threads: int = 1, most: int | None = None, **rule: Any) -> PicturesEngine:
    decode = Decode.model_validate({"to": [8, 6, 3], "dtype": "float32"} | rule)
    return PicturesEngine(Echo(), EngineOptions(threads, pictures={"x": decode}, max_row_bytes=most))


def decoded(pictures: Sequence[bytes], **rule: Any) -> Array:
    made: Tensor = engine(**rule).run({"x": strings(*pictures)}, ["x"])["x"]
    assert isinstance(made, np.ndarray)
    return made


def eagerly(content: bytes, rule: Decode, turn: Callable[[Any], Any] = lambda it: it) -> Any:
    """What training code does."""
    height, width, channels = rule.to or (8, 6, 3)
    image = turn(tf.io.decode_image(content, channels=channels, expand_animations=False))
    if rule.crop:
        fitting_height = max(1, min(image.shape[0], image.shape[1] * height // width))
        fitting_width = max(1, min(image.shape[1], image.shape[0] * width // height))
        top, left = (image.shape[0] - fitting_height) // 2, (image.shape[1] - fitting_width) // 2
        image = image[top : top + fitting_height, left : left + fitting_width]
    if rule.scale == "before":
        image = tf.image.convert_image_dtype(image, tf.float32)
    image = tf.image.resize(image, [height, width], method=rule.resize, antialias=rule.antialias)
    if rule.scale == "after":
        image = tf.cast(image, tf.float32) / 255.0
    return (tf.saturate_cast if rule.dtype == "uint8" else tf.cast)(image, rule.dtype or "float32").numpy()


PICTURES = {
    "jpeg": picture(),
    "smooth": picture(pixels=SMOOTH, quality=30),
    "grey": picture(mode="L"),
    "print": picture(mode="CMYK"),
    "alpha": picture("PNG", "RGBA"),
    "palette": picture("PNG", "P"),
    "deep": deep(),
    "moving": moving(),
    "webp": picture("WEBP"),
    "bmp": picture("BMP"),
    "thin": picture("PNG", pixels=COLOURS[:1]),
}


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"dtype": "uint8"},
        {"dtype": "uint8", "antialias": True},
        {"antialias": True, "scale": "after"},
        {"scale": "before"},
        {"resize": "nearest", "dtype": "uint8"},
        {"resize": "nearest", "scale": "after"},
        {"resize": "nearest", "scale": "before"},
        {"resize": "bicubic"},
        {"resize": "bicubic", "dtype": "uint8"},
        {"resize": "bicubic", "antialias": True, "dtype": "uint8", "crop": "center"},
        {"resize": "area", "crop": "center"},
        {"crop": "center", "antialias": True, "scale": "before"},
        {"to": [11, 17, 3]},
        {"to": [11, 17, 3], "antialias": True, "dtype": "uint8"},
        {"to": [11, 17, 3], "resize": "bicubic", "antialias": True},
        {"to": [30, 30, 3], "crop": "center"},
    ],
    ids=str,
)
def test_the_numbers_are_those_of_tf_image_bit_for_bit(rule: dict[str, Any]) -> None:
    made = decoded([*PICTURES.values()], **rule)
    full = Decode.model_validate({"to": [8, 6, 3], "dtype": "float32"} | rule)
    for row, (name, content) in enumerate(PICTURES.items()):
        wanted = eagerly(content, full)
        assert made[row].dtype == wanted.dtype
        assert made[row].tobytes() == wanted.tobytes(), name


def test_the_lines_in_the_docstring_are_the_recipe() -> None:
    content = PICTURES["jpeg"]
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    image = tf.image.resize(image, [224, 224], method="bilinear", antialias=False)
    image = tf.saturate_cast(image, tf.uint8)
    made = decoded([content], to=[224, 224, 3], dtype="uint8")
    assert made.tobytes() == image.numpy().tobytes()
    assert np.array_equal(image, tf.cast(tf.image.resize(tf.io.decode_jpeg(content), [224, 224]), tf.uint8))


def test_the_center_is_cut_out_as_keras_cuts_it() -> None:
    for pixels in (SMOOTH, SMOOTH.transpose(1, 0, 2), COLOURS):
        content = picture("PNG", pixels=pixels)
        whole = tf.io.decode_image(content, channels=3, expand_animations=False)
        wanted = np.asarray(keras.preprocessing.image.smart_resize(whole, (8, 6)))
        assert decoded([content], crop="center")[0].tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("channels", "names"), [(1, ["grey", "jpeg", "alpha"]), (4, ["alpha", "palette", "bmp"])])
def test_grey_and_transparent_tensors_are_filled_where_tensorflow_can(channels: int, names: list[str]) -> None:
    rule = Decode(to=(8, 6, channels), dtype="float32")
    made = decoded([PICTURES[name] for name in names], to=[8, 6, channels])
    for row, name in enumerate(names):
        assert made[row].tobytes() == eagerly(PICTURES[name], rule).tobytes(), name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says_if_the_job_says_so(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = picture("PNG", exif=exif)
    rot, flip = tf.image.rot90, tf.image.flip_left_right
    turns: dict[int, Callable[[Any], Any]] = {
        1: lambda it: it,
        2: flip,
        3: lambda it: rot(it, 2),
        4: tf.image.flip_up_down,
        5: lambda it: rot(flip(it)),
        6: lambda it: rot(it, 3),
        7: lambda it: rot(flip(it), 3),
        8: rot,
    }
    rule = Decode(to=(8, 6, 3), dtype="float32", orientation="exif")
    made = decoded([content, PICTURES["jpeg"]], orientation="exif")
    assert made[0].tobytes() == eagerly(content, rule, turns[orientation]).tobytes()
    assert made[1].tobytes() == eagerly(PICTURES["jpeg"], rule).tobytes()
    assert decoded([content])[0].tobytes() == eagerly(content, rule).tobytes()
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    as_shown = decoded([content], to=shown.shape, dtype="uint8", orientation="exif")[0]
    assert np.array_equal(as_shown, shown), "as programs show it that know EXIF"


@pytest.mark.parametrize("threads", [1, 3])
def test_what_cannot_be_decoded_fails_with_its_row_and_why(threads: int) -> None:
    good = PICTURES["jpeg"]
    bad = {
        2: (b"", "TensorFlow cannot decode it: Input is empty"),
        4: (b"hello", "Unknown image file format"),
        5: (good[: len(good) // 2], "Invalid JPEG data"),
        7: (PICTURES["alpha"][:-20], "Invalid PNG data"),
    }
    rows = [bad[row][0] if row in bad else good for row in range(9)]
    made = engine(threads)
    with pytest.raises(PicturesError, match=r"for input 'x': row 2 of the batch \(4 such rows\)") as caught:
        made.run({"x": strings(*rows)}, ["x"])
    assert (caught.value.facts["code"], caught.value.facts["at"]) == ("ROW_IMAGE", [2, 4, 5, 7])
    for story, (_, why) in zip(caught.value.facts["stories"], bad.values(), strict=True):
        assert why in story
    assert copy.deepcopy(caught.value).facts == caught.value.facts
    made.close()


def test_a_kind_that_the_job_refuses_is_seen_in_the_header() -> None:
    rows = [PICTURES["jpeg"], PICTURES["alpha"], PICTURES["print"]]
    for rule, row, story in (("alpha", 1, "transparent pixels"), ("cmyk", 2, "colours are those of print")):
        with pytest.raises(PicturesError, match=story) as caught:
            decoded(rows, **{rule: "error"})
        assert caught.value.facts["at"] == [row]


def test_what_would_be_too_large_is_refused_before_it_is_decoded() -> None:
    huge = bytearray(PICTURES["bmp"])
    huge[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(PicturesError, match=r"60000 x 60000 pixels, 10,800,000,000 bytes when decoded") as caught:
        engine(most=1000).run({"x": strings(PICTURES["jpeg"], bytes(huge))}, ["x"])
    assert (caught.value.facts["code"], caught.value.facts["at"]) == ("ROW_TOO_BIG", [1])


def test_what_fills_a_call_up_is_decoded_once_and_blames_one_row() -> None:
    good, bad = PICTURES["jpeg"], b"no picture"
    made = decoded([PICTURES["grey"], good, good, good])
    assert made[1].tobytes() == made[2].tobytes() == made[3].tobytes() == decoded([good])[0].tobytes()
    with pytest.raises(PicturesError) as caught:
        decoded([good, bad, bad, bad])
    assert caught.value.facts["at"] == [1]


def test_rows_that_are_made_up_are_fed_as_they_are_and_a_tensor_of_two_names_is_decoded_once() -> None:
    made_up = np.zeros((2, 8, 6, 3), np.float32)
    assert engine().run({"x": made_up}, ["x"])["x"] is made_up
    rule = Decode(to=(8, 6, 3), dtype="float32")
    twins = PicturesEngine(Echo(), EngineOptions(1, pictures={"x": rule, "y": rule}))
    fed = strings(PICTURES["jpeg"])
    found = twins.run({"x": fed, "y": fed}, ["x", "y"])
    assert found["x"] is found["y"]
    assert twins.seconds_here > 0
