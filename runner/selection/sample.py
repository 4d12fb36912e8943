"""A share of the rows by chance, and the same ones whenever and wherever they are asked for.

Pure numpy. The invariant: whether a row is taken depends on its file, its row group and its place there, and on nothing
else; with a larger share none is lost.
"""

from __future__ import annotations

import hashlib

import numpy as np

from runner.tensor import Array

_STEP = np.uint64(0x9E3779B97F4A7C15)  # of Sebastiano Vigna's splitmix64, with the two below
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BITS = 53  # of a hash that are looked at: what a double holds


def sampled(share: float, url: str, row_group: int, rows: Array) -> Array:
    """Of `rows`, ascending places in a row group, those that are in the sample. url: of the file, as planned."""
    file = np.frombuffer(hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:8], "<u8")
    with np.errstate(over="ignore"):
        group = _mixed(file ^ _mixed(np.array([row_group], np.uint64) * _STEP + _STEP))
        drawn = _mixed(group + rows.astype(np.uint64) * _STEP)  # drawn: (rows,)
    taken: Array = rows[(drawn >> np.uint64(64 - _BITS)) < np.uint64(round(share * 2**_BITS))]
    return taken


def _mixed(values: Array) -> Array:
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed
