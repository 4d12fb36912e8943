"""Where the model of a job comes from: local folders in place, remote ones as a copy on this machine.

Knows URLs, versions and digests; refuses to know what is in a model. The invariant: what a worker loads has the digest
that was planned.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from connectors.models.cache import CacheSettings, HeldModel, ModelCache
from connectors.models.remote import RemoteModel, changed, list_model
from connectors.secret import redact
from jobs.errors import JobError, RunnerError
from runner.model import folder as model_folder
from runner.model.folder import Location
from runner.model.signature import ModelSpec

_log = logging.getLogger(__name__)

_WATCH_S = 30.0  # how often a running job looks whether its model is still the same


@dataclass(frozen=True)
class PlannedModel:
    """What workers know of the model. path: where it is local; of a remote one, where the driver has its copy."""

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
        digest = local_digest(planned)
        if digest != planned.digest:
            raise changed(planned.url, digest, planned.digest)
        self.path = planned.path

    def close(self) -> None:
        if self._held is not None:
            self._held.close()


def opened(planned: Sequence[PlannedModel]) -> list[OpenModel]:
    """Each of them; one that is named twice is opened once. raises: as `OpenModel`."""
    found: list[OpenModel] = []
    for at, model in enumerate(planned):
        first = planned.index(model)
        found.append(found[first] if first < at else OpenModel(model))
    return found


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
            except Exception as error:  # the next look may do better
                _log.warning("cannot look whether the model changed: %s: %s", type(error).__name__, error)

    def _look(self) -> None:
        seen = self._listing()
        if seen == self._seen:
            return
        digest = self._digest()
        if digest != self._planned.digest:
            raise changed(self._planned.url, digest, self._planned.digest)
        self._seen = seen

    def _listing(self) -> object:
        if (remote := self._planned.remote) is not None:
            return list_model(remote.url, remote.options)[0].key
        folder = Path(self._planned.path)
        try:
            files = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
        except OSError as error:
            raise model_folder.unreadable(self._planned.url, error) from error
        return [(str(path), about.st_size, about.st_mtime_ns) for path, about in files if not path.is_dir()]

    def _digest(self) -> str:
        if (remote := self._planned.remote) is None:
            return local_digest(self._planned)
        with ModelCache(self._planned.cache).hold(list_model(remote.url, remote.options)[0]) as held:
            return held.digest


class ModelWatches:
    """A watch over each of several models; see `ModelWatch`."""

    def __init__(self, planned: Sequence[PlannedModel]) -> None:
        self._watches = [ModelWatch(model) for at, model in enumerate(planned) if planned.index(model) == at]

    def error(self) -> RunnerError | None:
        return next((error for watch in self._watches if (error := watch.error()) is not None), None)

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
