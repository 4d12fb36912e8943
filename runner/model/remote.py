"""The place of a model on a store: its folder, its version, its local copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

from connectors.models.cache import CacheSettings, ModelCache
from connectors.models.remote import RemoteModel, list_model, reading
from connectors.secret import redact
from connectors.store.store import Store
from jobs.errors import ModelError, RunnerError, one_of
from jobs.section.base import OptionValue
from runner.model import folder as model_folder
from runner.model.folder import Listing, Location


@contextmanager
def staged(
    url: str,
    version: Literal["latest"] | int | None,
    options: Mapping[str, OptionValue] | None = None,
    cache: CacheSettings | None = None,
) -> Iterator[Location]:
    """A remote model as a folder of this machine, which stays there while the block runs.

    raises: ModelError with the next step; StorageError where the store does not answer as it should.
    """
    remote, number = locate_remote(url, version, options or {})
    with ModelCache(cache).hold(remote) as held:
        yield Location(redact(url), held.folder.resolve(), number, remote)


def locate_remote(
    url: str, version: Literal["latest"] | int | None, options: Mapping[str, OptionValue]
) -> tuple[RemoteModel, int | None]:
    """Find the model folder behind a remote URL, and its version; as `model_folder.locate` for local ones."""
    if url.lower().startswith(("http://", "https://")):
        raise ModelError(
            f"cannot read model '{redact(url)}': over http a folder cannot be listed;"
            " copy it to a folder or to an object store"
        )
    store = Store(url, options)

    def look(name: str) -> Listing:
        with reading(url):
            names = store.names(name)
        return Listing(
            [name for name in names if not name.endswith("/")], [name[:-1] for name in names if name[-1] == "/"]
        )

    if not look("").names:
        raise _missing(url, store, options)
    inside, number = model_folder.choose(redact(url), store.url.rpartition("/")[2], version, look)
    return list_model(store.child(inside) if inside else store.url, options)[0], number


def _missing(url: str, store: Store, options: Mapping[str, OptionValue]) -> ModelError:
    above, _, name = store.url.rpartition("/")
    with reading(url):
        file = store.stat(store.url)
    if file is not None:
        return model_folder.wrong_file(redact(url), name, above)
    names: list[str] = []
    with suppress(RunnerError):  # a right to list the folder above is not needed otherwise
        names = [entry.rstrip("/") for entry in Store(above, options).names("")]
    problem = f"no '{name}' in '{above}'; it has {one_of(names, name)}" if names else "nothing is there; check the url"
    return ModelError(f"cannot find model '{redact(url)}': {problem}")
