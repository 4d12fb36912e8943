"""Where the model of a job comes from: local folders in place, remote ones as a copy on this machine.

Knows URLs, versions and digests; refuses to know what is in a model. The invariant: what a worker loads has the digest
that was planned.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from connectors.models.cache import CacheSettings, HeldModel, ModelCache, RemoteModel, changed, list_model, reading
from connectors.secret import redact
from connectors.store.store import Store
from jobs.errors import JobError, ModelError, RunnerError, one_of
from jobs.job import OptionValue
from runner.model import folder as model_folder
from runner.model.folder import Listing, Location
from runner.model.saved_model import ModelSpec

_WATCH_S = 30.0  # how often a running job looks whether its model is still the same


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
            [found for found in names if not found.endswith("/")], [found[:-1] for found in names if found[-1] == "/"]
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
        names = [found.rstrip("/") for found in Store(above, options).names("")]
    found = f"no '{name}' in '{above}'; it has {one_of(names, name)}" if names else "nothing is there; check the url"
    return ModelError(f"cannot find model '{redact(url)}': {found}")


@dataclass(frozen=True)
class PlannedModel:
    """What workers are told of the model. path: where it is local; of a remote one, where the driver has its copy."""

    url: str
    path: str
    digest: str
    remote: RemoteModel | None = None
    cache: CacheSettings = field(default_factory=CacheSettings)


class OpenModel:
    """The planned model in a folder of this machine, checked; a copy is held until `close`."""

    def __init__(self, planned: PlannedModel) -> None:
        """raises: ModelError where it is no longer the one that was planned; StorageError where it cannot be copied.
        cost: reads every file once; a remote model is copied if no other process of this machine has done so."""
        self._held: HeldModel | None = None
        if planned.remote is not None:
            self._held = ModelCache(planned.cache).hold(planned.remote, planned.digest)
            self.path = str(self._held.folder)
            return
        found = local_digest(planned)
        if found != planned.digest:
            raise changed(planned.url, found, planned.digest)
        self.path = planned.path

    def close(self) -> None:
        if self._held is not None:
            self._held.close()


def local_digest(planned: PlannedModel) -> str:
    model = Location(planned.url, Path(planned.path), None)
    return model_folder.digest(model, model_folder.files(model))


def planned_model(model: ModelSpec, cache: CacheSettings) -> PlannedModel:
    return PlannedModel(redact(model.url), model.path, model.digest, model.remote, cache)


class ModelWatch:
    """Looks, in a thread of its own, whether the files of the model change while the job runs.

    A look is a listing. Only where that differs the content is read again: a copy of equal content is no change.
    """

    def __init__(self, planned: PlannedModel, every_s: float = _WATCH_S) -> None:
        self._planned, self._every_s = planned, every_s
        self._end = threading.Event()
        self._error: RunnerError | None = None
        self._seen = planned.remote.key if planned.remote is not None else self._listing()
        self._thread = threading.Thread(target=self._live, name="model-watch", daemon=True)
        self._thread.start()

    def error(self) -> RunnerError | None:
        """Why the job must stop; None as long as the model is the same."""
        return self._error

    def close(self) -> None:
        self._end.set()
        self._thread.join(1.0)

    def _live(self) -> None:
        while self._error is None and not self._end.wait(self._every_s):
            try:
                self._look()
            except RunnerError as error:
                if isinstance(error, JobError) and "cause" not in error.facts:  # else the store did not answer
                    self._error = error

    def _look(self) -> None:
        seen = self._listing()
        if seen == self._seen:
            return
        found = self._digest()
        if found != self._planned.digest:
            raise changed(self._planned.url, found, self._planned.digest)
        self._seen = seen

    def _listing(self) -> object:
        if (remote := self._planned.remote) is not None:
            return list_model(remote.url, remote.options)[0].key
        folder = Path(self._planned.path)
        try:
            found = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
        except OSError as error:
            raise model_folder.unreadable(self._planned.url, error) from error
        return [(str(path), about.st_size, about.st_mtime_ns) for path, about in found if not path.is_dir()]

    def _digest(self) -> str:
        if (remote := self._planned.remote) is None:
            return local_digest(self._planned)
        with ModelCache(self._planned.cache).hold(list_model(remote.url, remote.options)[0]) as held:
            return held.digest
