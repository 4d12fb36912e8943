"""A remote model as its store lists it: files, sizes, versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from connectors.models.digest import MAX_FILES
from connectors.secret import redact
from connectors.store.listing import FileStat
from connectors.store.store import Store
from jobs.errors import InputError, ModelError, OutputError
from jobs.section.base import OptionValue
from jobs.section.canonical import canonical


@dataclass(frozen=True)
class RemoteModel:
    """A model folder on a store, as it was when it was listed. Small and picklable; holds no secret.

    url:  of the folder that holds the model's files, the version resolved.
    key:  of the url and the listing: relative paths, bytes, and what changes when a file does.
    """

    url: str
    key: str
    options: Mapping[str, OptionValue] = field(default_factory=dict, repr=False)


def list_model(url: str, options: Mapping[str, OptionValue]) -> tuple[RemoteModel, dict[str, FileStat]]:
    """What lies below `url` now: relative path -> file, sorted.

    raises: ModelError where a name cannot be a file of a model, or there are too many; what `Store` raises.
    """
    store = Store(url, options)
    files: dict[str, FileStat] = {}
    with reading(url):
        tree = store.tree(most=MAX_FILES)
    for file in tree:
        path = file.url.removeprefix(store.url.rstrip("/") + "/")
        if any(part in ("", ".", "..") or not part.isprintable() for part in path.split("/")):
            raise ModelError(f"cannot use model '{redact(url)}': {path!r} is no name of a file below it")
        files[path] = file
    if len(files) > MAX_FILES:
        raise ModelError(
            f"cannot use model '{redact(url)}': more than {MAX_FILES} files;"
            " expected the folder of one SavedModel, which holds tens"
        )
    listing = [[path, file.size, file.version] for path, file in sorted(files.items())]
    key = hashlib.sha256(canonical([store.url, listing]).encode()).hexdigest()[:32]
    return RemoteModel(store.url, key, dict(options)), dict(sorted(files.items()))


@contextmanager
def reading(url: str) -> Iterator[None]:
    """What a store refuses is an error of the model."""
    try:
        yield
    except (InputError, OutputError) as error:
        raise ModelError(f"cannot read model '{redact(url)}': {error.message}", **error.facts) from None


def changed(url: str, digest: str, planned: str) -> ModelError:
    return ModelError(
        f"cannot use model '{redact(url)}': its files changed since the plan was made"
        f" (digest {digest[:12]}, planned {planned[:12]}); restore it, or run again with a new output"
    )
