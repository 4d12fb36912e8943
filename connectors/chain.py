"""Addresses of several layers, as fsspec writes them: `zip://day/a.parquet::s3://bucket/b.zip`, `simplecache::s3://b/x`.

Owns another spelling of them, in which the path comes last, as in all other addresses: names are put behind it, and
folders are cut off from its end. `zip://day/a.parquet::s3://bucket/b.zip` is `zip::s3://bucket/b.zip!/day/a.parquet`.
A user may write either; plans and messages have the second, which reads back. Touches no store. The invariant: both
spellings name one file, and each is made of the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jobs.errors import JobError
from jobs.section.base import OptionValue

CACHES = ("blockcache", "cached", "filecache", "simplecache")  # layers that show the paths of what is below them
_INTO = "!"  # between a file and the path in it, as in `jar:file:/a.jar!/b`
_LAYER = re.compile(r"[a-z][a-z0-9+.-]*")


class Chain(NamedTuple):
    """layers: the outermost first. target: the url of what they lie on. paths: in each layer that has paths of its own,
    the outermost first."""

    layers: tuple[str, ...]
    target: str
    paths: tuple[str, ...]

    @property
    def path(self) -> str:
        """As the outermost client takes it."""
        return self.paths[0] if self.paths else self.target

    @property
    def place(self) -> str:
        """What it lies on, without its own path: equal for files that one client reaches."""
        return str(self._replace(paths=("", *self.paths[1:]))) if self.paths else "::".join(self.layers)

    @property
    def root(self) -> str:
        """As fsspec writes the address of the client."""
        paths, bits = iter(("", *self.paths[1:])), list[str]()
        for layer in self.layers:
            bits.append(layer if layer in CACHES else f"{layer}://{next(paths)}")
        return "::".join((*bits, self.target))

    def __str__(self) -> str:
        inside = "".join(f"{_INTO}/{path}" if path else _INTO for path in reversed(self.paths))
        return f"{'::'.join(self.layers)}::{self.target}{inside}"


def layer_of(url: str, known: Callable[[str], bool]) -> str:
    """The outermost layer of a chain; "" where `url` is none.

    known: whether a scheme may be a layer. In the names of others, as of local files, '::' means nothing.
    """
    first, mark, _ = url.partition("::")
    layer = first.partition("://")[0].lower()
    return layer if mark and _LAYER.fullmatch(layer) and known(layer) else ""


def parsed(url: str, known: Callable[[str], bool], absolute: Callable[[str], str], shown: str) -> Chain:
    """The layers of a chain, in either spelling.

    known:    see `layer_of`.
    absolute: makes the url of what they lie on the same everywhere.
    shown:    the url, for messages.
    raises: JobError where that is a relative path, or a spelling is neither.
    """
    layers, given, rest = list[str](), list[str](), url
    while layer := layer_of(rest, known):
        first, _, rest = rest.partition("::")
        layers.append(layer)
        given.append(first.partition("://")[2].strip("/"))
    with_path = [index for index, layer in enumerate(layers) if layer not in CACHES]
    if any(path and index not in with_path for index, path in enumerate(given)):
        raise JobError(f"cannot use '{shown}': a cache has no paths of its own; write 'simplecache::' and a url")
    paths = [given[index] for index in with_path]
    if _INTO in rest and not any(paths):
        rest, *inside = re.split(rf"{_INTO}(?:/|$)", rest, maxsplit=len(with_path))
        paths = [path.strip("/") for path in reversed(inside)] or paths
    if len(paths) != len(with_path) or re.search(rf"{_INTO}(/|$)", rest):
        raise JobError(
            f"cannot use '{shown}': '{_INTO}/' stands between a file and the path in it, once for each of"
            f" {len(with_path)} layers"
        )
    if "://" not in rest and not rest.startswith(("/", "~")):
        raise JobError(f"cannot use '{shown}': what it lies in is no url; a local path begins with '/' here")
    rest = absolute(rest)
    return Chain(tuple(layers), rest if "://" in rest else f"file://{rest}", tuple(paths))


def by_layer(
    options: Mapping[str, OptionValue], layers: Sequence[str]
) -> tuple[dict[str, OptionValue], dict[str, dict[str, OptionValue]]]:
    """The options of the outermost layer, and of each other: `s3.anon` is `anon` of the layer `s3`."""
    own, others = dict[str, OptionValue](), {layer: dict[str, OptionValue]() for layer in layers}
    for name, value in options.items():
        layer, mark, rest = name.partition(".")
        if mark and layer in others:
            others[layer][rest] = value
        else:
            own[name] = value
    return own | others.pop(layers[0]), others
