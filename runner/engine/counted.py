"""An engine whose model XLA compiles, because the job says so or the model does, and that counts how often.

TensorFlow tells nobody outside of its Python package how often it compiled. But it does so once for each set of shapes,
and of values that decide a shape, as long as the session lives: those are counted. Refuses to know what XLA does with
them. The invariant: what is counted once is not counted again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from runner.engine import Engine
from runner.tensor import Feeds, Outputs, Strings


class CountedEngine:
    """See `runner.engine.Engine`. deciders: the fed tensors whose values decide a shape; see `runner.scan.compiled`."""

    def __init__(self, engine: Engine, deciders: Collection[str]) -> None:
        self._engine, self._deciders = engine, deciders
        self.devices = engine.devices
        self._lock = threading.Lock()
        self._compiled, self._shapes = set[Any](), set[Any]()
        self._seconds = 0.0
        self._mine = threading.local()

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        shapes = tuple(sorted((name, value.shape) for name, value in feeds.items()))
        key = (shapes, *(_digest(feeds[name]) for name in self._deciders if name in feeds))
        new, began = key not in self._compiled, time.perf_counter()
        outputs = self._engine.run(feeds, fetches)
        if new:
            spent = time.perf_counter() - began
            self._mine.seconds = self.seconds_here + spent
            with self._lock:
                self._compiled.add(key)
                self._shapes.add(shapes)
                self._seconds += spent
        return outputs

    @property
    def seconds_here(self) -> float:
        """Of the calls of this thread that compiled."""
        return float(getattr(self._mine, "seconds", 0.0))

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return self._engine.placed(feeds, fetches)

    def close(self) -> None:
        self._engine.close()

    def figures(self) -> dict[str, float]:
        """For a receipt, since the model was loaded: compilations, for how many sets of shapes, and the seconds of the
        calls that they came with."""
        with self._lock:
            counts = {"compilations": len(self._compiled), "compiled_shapes": len(self._shapes)}
            return counts | {"compile_s": round(self._seconds, 4)}


def _digest(value: Any) -> bytes:
    if isinstance(value, Strings):  # XLA knows no strings
        return b""
    return hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).digest()
