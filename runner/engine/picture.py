"""Pictures in front of a signature: TensorFlow's own ops decode and resize them, each alone, on cores beside the lock.

The numbers are those of these lines, run eagerly (`to: [224, 224, 3]`, every other key at its default):

    picture = tf.io.decode_image(content, channels=3, expand_animations=False)
    picture = tf.image.resize(picture, [224, 224], method="bilinear", antialias=False)
    picture = tf.saturate_cast(picture, tf.uint8)  # of a tensor of uint8; for float32 it stays as it is

Knows neither columns nor models. The invariant: a picture that cannot be decoded fails alone, with its row, and what is
too large is refused by its header.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from connectors.formats.media.picture import Picture, PictureError, read_header, require_pillow
from jobs.errors import DataError
from jobs.section.columns import Decode
from jobs.words import counted
from runner.engine import Engine, EngineOptions
from runner.engine.capi import GraphTensor, Session
from runner.engine.session import Nodes
from runner.engine.status import StatusError
from runner.proto.runtime_pb2 import ConfigProto
from runner.tensor import Array, Feeds, Outputs, Strings, Tensor

_LARGEST = 255.0  # of uint8
# Orientation of EXIF -> (whether rows and columns change places first, whether rows, and columns, are then reversed).
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class PicturesError(DataError):
    """Rows of a call whose pictures cannot be decoded. Facts: `at`, their places in the call, `stories` of each."""


class PicturesEngine:
    """See `runner.engine.Engine`: one that takes pictures as they are stored (Strings) in the place of some tensors.

    model: the engine that is called with what they become.
    """

    def __init__(self, model: Engine, options: EngineOptions) -> None:
        self.model, self.devices = model, model.devices
        self._most = options.max_row_bytes
        self._rules, self._mine = options.pictures, threading.local()
        if self._most is not None or any(rule.looks for rule in self._rules.values()):
            require_pillow()
        self._decoders = {name: Decoder(rule, options.threads) for name, rule in self._rules.items()}
        # Decoding holds no lock of Python's. One that is alone decodes in the thread of the call.
        self._threads = ThreadPoolExecutor(options.threads, "picture") if options.threads > 1 else None

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        """See `Engine.run`. raises: PicturesError ROW_IMAGE, ROW_TOO_BIG."""
        return self.model.run(self.decoded(feeds), fetches)

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return self.model.placed(self.decoded(feeds), fetches)

    def close(self) -> None:
        self.model.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def seconds_here(self) -> float:
        """That calls of this thread spent on decoding."""
        return float(getattr(self._mine, "seconds", 0.0))

    def decoded(self, feeds: Feeds) -> Feeds:
        """The same, each picture as a tensor. Rows that are made up are tensors already."""
        began, made = time.perf_counter(), dict[int, Tensor]()
        found = dict(feeds)
        try:
            for name in self._rules:
                fed = feeds.get(name)
                if isinstance(fed, Strings):  # two names of one tensor are fed with one value
                    found[name] = made.get(id(fed), fed)
                    if isinstance(found[name], Strings):
                        found[name] = made[id(fed)] = self._tensor(name, fed)
        finally:
            self._mine.seconds = self.seconds_here + time.perf_counter() - began
        return found

    def _tensor(self, name: str, pictures: Strings) -> Array:
        """(rows, height, width, channels). What fills a call up repeats its last row, and is decoded once."""
        rule, decoder, rows = self._rules[name], self._decoders[name], len(pictures.values)
        height, width, channels = rule.to or (0, 0, 0)
        tensor = np.empty((rows, height, width, channels), rule.dtype)  # tensor: (rows, height, width, channels)
        count = rows
        while count > 1 and pictures.values[count - 1].equals(pictures.values[count - 2]):
            count -= 1
        look = rule.looks or self._most is not None

        def decode(row: int) -> tuple[str, str] | None:
            content = pictures.values.slice(row, 1)
            try:
                header = read_header(content[0].as_py()) if look else None
                if header is not None:
                    _refuse(header, rule, self._most)
                decoder.decode(content, 1 if header is None else header.orientation, tensor[row])
            except PictureError as error:
                return ("ROW_IMAGE", str(error)) if len(error.args) == 1 else (error.args[1], error.args[0])
            except StatusError as error:
                return "ROW_IMAGE", f"TensorFlow cannot decode it: {error.reason}"
            return None

        each = map(decode, range(count)) if self._threads is None else self._threads.map(decode, range(count))
        faults = {row: fault for row, fault in enumerate(each) if fault is not None}
        if faults:
            raise _refusal(name, faults)
        tensor[count:] = tensor[count - 1 : count]
        return tensor


def _refuse(header: Picture, rule: Decode, most: int | None) -> None:
    """raises: PictureError for what the header says and the job does not take."""
    channels = (rule.to or (0, 0, 3))[2]
    size = header.width * header.height * channels
    if most is not None and size > most:
        pixels = f"{header.width} x {header.height} pixels, {size:,} bytes when decoded"
        raise PictureError(f"it has {pixels}; `limits.max_row_bytes` allows {most:,}", "ROW_TOO_BIG")
    if header.alpha and rule.alpha == "error":
        raise PictureError("it has transparent pixels, and the job says 'alpha: error'")
    if header.cmyk and rule.cmyk == "error":
        raise PictureError("its colours are those of print, and the job says 'cmyk: error'")


def _refusal(name: str, faults: Mapping[int, tuple[str, str]]) -> PicturesError:
    """Of all rows that fail as the first one does; the others are met when these are gone."""
    first = next(iter(faults))
    code = faults[first][0]
    subject = f"could not decode a picture for input {name!r}"
    stories = {row: f"{subject}: {story}" for row, (of, story) in faults.items() if of == code}
    message = f"{subject}: row {first} of the batch ({counted(len(stories), 'such row')}): {faults[first][1]}"
    return PicturesError(message, code=code, at=list(stories), stories=list(stories.values()))


class Decoder:
    """One way to decode, as a graph of its own on CPUs. `decode` may be called from several threads."""

    def __init__(self, rule: Decode, threads: int) -> None:
        """rule: nothing left open. threads: of TensorFlow's pool, where no engine has made it yet."""
        # A call is computed by the thread that makes it.
        config = ConfigProto(
            intra_op_parallelism_threads=threads, inter_op_parallelism_threads=-1, device_count={"GPU": 0}
        )
        self._session = Session(None, (), config.SerializeToString())
        nodes = _Graph(Nodes(self._session), rule)
        self._content, self._turn = nodes.content, nodes.turn
        self._made = nodes.made()

    def decode(self, content: Any, orientation: int, into: Array) -> None:
        """content: an Arrow array of one. into: (height, width, channels). raises: StatusError."""
        feeds: list[tuple[GraphTensor, Tensor]] = [(self._content, Strings(content, ()))]
        if self._turn is not None:
            swapped, *reversed_ = _TURNS[orientation]
            order = np.array([1, 0, 2] if swapped else [0, 1, 2], np.int32)
            feeds += zip(self._turn, [order, np.array([*reversed_, False])], strict=True)
        into[...] = self._session.run(feeds, [self._made])[0]


class _Graph:
    """The nodes of one way to decode. turn: order of dimensions, and which are reversed."""

    def __init__(self, nodes: Nodes, rule: Decode) -> None:
        self._nodes, self._rule = nodes, rule
        self._size = (rule.to or (0, 0, 0))[:2]
        self.content = self._op("Placeholder", dtype="string")
        turned = rule.orientation is not None
        self.turn = (self._op("Placeholder", dtype="int32"), self._op("Placeholder", dtype="bool")) if turned else None

    def made(self) -> GraphTensor:
        """(height, width, channels)."""
        rule, channels = self._rule, (self._rule.to or (0, 0, 0))[2]
        x = self._op("DecodeImage", self.content, channels=channels, dtype="uint8", expand_animations=False)
        if self.turn is not None:
            x = self._op("Reverse", self._op("Transpose", x, self.turn[0]), self.turn[1])
        if rule.crop is not None:
            x = self._cropped(x)
        if rule.scale == "before":  # as tf.image.convert_image_dtype
            x = self._op("Mul", self._op("Cast", x, DstT="float32"), self._number(1.0 / _LARGEST))
        x = self._resized(self._op("ExpandDims", x, self._whole(0)))
        x = self._op("Reshape", x, self._whole(*self._size, channels))
        if rule.dtype == "uint8":
            if rule.resize != "nearest":
                x = self._op("ClipByValue", x, self._number(0.0), self._number(_LARGEST))
                x = self._op("Cast", x, DstT="uint8")
            return x
        x = self._op("Cast", x, DstT="float32") if rule.resize == "nearest" and rule.scale != "before" else x
        # Not RealDiv: TensorFlow's optimizer makes of a division by a constant a product, which may be another number.
        return self._op("DivNoNan", x, self._number(_LARGEST)) if rule.scale == "after" else x

    def _cropped(self, x: GraphTensor) -> GraphTensor:
        """The largest part of the shape that is wanted, around the center: as `smart_resize` of Keras cuts it."""
        size = self._op("Slice", self._op("Shape", x), self._vector(0), self._vector(2))
        swapped = self._op("Reverse", size, self._nodes.constant("bool", np.ones(1, np.bool_)))
        height, width = self._size
        fitting = self._op("FloorDiv", self._op("Mul", swapped, self._whole(height, width)), self._whole(width, height))
        cut = self._op("Maximum", self._op("Minimum", size, fitting), self._whole(1))
        begin = self._op("FloorDiv", self._op("Sub", size, cut), self._whole(2))
        behind = self._nodes.constant("int32", np.array([[0, 1]], np.int32))
        every = self._whole(-1)  # of what is left of a dimension
        return self._op("Slice", x, self._op("Pad", begin, behind), self._op("PadV2", cut, behind, every))

    def _resized(self, x: GraphTensor) -> GraphTensor:
        """x: (1, any, any, channels). As tf.image.resize."""
        rule, size = self._rule, self._whole(*self._size)
        if rule.resize == "area":
            return self._op("ResizeArea", x, size)
        if not rule.antialias:
            kind = {"bilinear": "ResizeBilinear", "bicubic": "ResizeBicubic", "nearest": "ResizeNearestNeighbor"}
            return self._op(kind[rule.resize], x, size, half_pixel_centers=True)
        given = self._op("Slice", self._op("Shape", x), self._vector(1), self._vector(2))
        floats = (self._op("Cast", one, DstT="float32") for one in (size, given))
        scale = self._op("RealDiv", *floats)
        kernel = {"bilinear": b"triangle", "bicubic": b"keyscubic"}[rule.resize]
        nowhere = self._nodes.constant("float32", np.zeros(2, np.float32))
        return self._op("ScaleAndTranslate", x, size, scale, nowhere, kernel_type=kernel, antialias=True)

    def _op(self, kind: str, *inputs: GraphTensor, **attributes: int | str | bool | bytes) -> GraphTensor:
        return self._nodes.op(kind, {str(at): one for at, one in enumerate(inputs)}, attributes)[0]

    def _whole(self, *numbers: int) -> GraphTensor:
        """() of one, else (len(numbers),)."""
        return (
            self._vector(*numbers)
            if len(numbers) > 1
            else self._nodes.constant("int32", np.array(numbers[0], np.int32))
        )

    def _vector(self, *numbers: int) -> GraphTensor:
        return self._nodes.constant("int32", np.array(numbers, np.int32))

    def _number(self, value: float) -> GraphTensor:
        return self._nodes.constant("float32", np.array(value, np.float32))
