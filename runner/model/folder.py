"""Where a SavedModel lies: URL -> model folder, version resolved, files listed and digested.

Refuses to know what is in the files, and how remote ones are reached (`staging.py`). The invariant: nothing outside of
the model folder is read, not even through a link, so that the digest covers all that a loader will see.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from connectors.models.digest import MAX_FILES, folder_digest
from jobs.errors import ModelError, one_of

if TYPE_CHECKING:
    from connectors.models.remote import RemoteModel

MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")  # the first that exists is read
SPLIT_FILE = "saved_model.cpb"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VERSION = re.compile(r"[0-9]{1,18}")  # TensorFlow Serving: the whole name is an integer; leading zeros are fine
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_MOST_LOOKED_INTO = 50  # folders, to say in an error which of them is a model
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz")


@dataclass(frozen=True)
class Location:
    """A model folder that exists. `name` is what the user called it, for messages."""

    name: str
    folder: Path  # absolute, links resolved: a retry finds the same model where 'current' was moved on
    version: int | None
    remote: RemoteModel | None = None  # what `folder` is a copy of


@dataclass(frozen=True)
class Listing:
    """The names directly in a folder, sorted."""

    files: Sequence[str] = ()
    folders: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return sorted((*self.files, *self.folders))

    @property
    def holds_model(self) -> bool:
        return any(name in self.files for name in (*MODEL_FILES, SPLIT_FILE))


Look = Callable[[str], Listing]  # of the base folder (""), or of a folder in it


def locate(url: str, version: Literal["latest"] | int | None) -> Location:
    """Find the folder of a model, or of the wanted version in a folder of version folders.

    raises: ModelError with the next step: nothing there, no SavedModel, no such version.
    """
    base = _local(url)
    if not base.is_dir():
        raise _missing(url, base)
    inside, number = choose(url, base.resolve().name, version, lambda name: _listing(url, base / name))
    return Location(url, (base / inside).resolve(), number)


def choose(url: str, name: str, version: Literal["latest"] | int | None, look: Look) -> tuple[str, int | None]:
    """The folder below the base folder that holds the model ("": the base itself), and its version.

    url:    for messages. name: of the base folder.
    look:   lists the base folder, or one in it.
    raises: ModelError with the next step: no SavedModel, no such version.
    """
    base = look("")
    if base.holds_model:
        _refuse_version(url, name, version)
        return "", None
    versions = _versions(url, base)
    if not versions:
        raise _no_model(url, base, look)
    return _version_folder(url, versions, version, look)


def files(model: Location) -> dict[str, int]:
    """Relative path (with '/') -> bytes of every file, sorted. raises: ModelError at links that leave the folder."""
    sizes: dict[str, int] = {}

    def fail(error: OSError) -> None:
        raise unreadable(model.name, error) from error

    for folder, subfolders, names in os.walk(model.folder, onerror=fail):
        for name in sorted(subfolders + names):
            path = Path(folder, name)
            if name in names or path.is_symlink():
                sizes[path.relative_to(model.folder).as_posix()] = _bytes_of(model, path)
        if len(sizes) > MAX_FILES:
            raise ModelError(
                f"cannot use model '{model.name}': more than {MAX_FILES} files;"
                " expected the folder of one SavedModel, which holds tens"
            )
    return dict(sorted(sizes.items()))


def digest(model: Location, paths: dict[str, int]) -> str:
    """SHA-256 over sorted (relative path, content), hex. cost: reads every file once, in pieces."""
    try:
        return folder_digest(model.folder, paths)
    except OSError as error:
        raise unreadable(model.name, error) from error


def unreadable(name: str, error: OSError) -> ModelError:
    where = f" '{error.filename}'" if error.filename else ""
    return ModelError(
        f"cannot read model '{name}':{where} {error.strerror or error}; check the path and its permissions"
    )


def is_remote(url: str) -> bool:
    if "::" in url:
        from connectors.store.connect import chain_of  # fsspec and its stores: a local model is read without them

        if chain_of(url) is not None:
            return True
    scheme = _SCHEME.match(url)
    return scheme is not None and scheme[1].lower() not in ("file", "local")


def _local(url: str) -> Path:
    scheme = _SCHEME.match(url)
    if scheme is None:
        return Path(os.path.abspath(url))  # noqa: PTH100 (`absolute` keeps '..', which links may lead elsewhere)
    parts = urlsplit(url)
    if parts.netloc in ("", "localhost"):
        return Path(os.path.abspath(unquote(parts.path)))  # noqa: PTH100
    raise ModelError(
        f"cannot read model '{url}': a '{scheme[1]}' URL names a folder of this machine, found the host"
        f" '{parts.netloc}'; write {scheme[1]}:///path, or the path alone"
    )


def _versions(url: str, base: Listing) -> dict[int, str]:
    versions: dict[int, str] = {}
    for name in filter(_VERSION.fullmatch, base.folders):
        number = int(name)
        if number in versions:
            raise ModelError(
                f"cannot tell the versions of model '{url}' apart: '{versions[number]}' and '{name}' are both"
                f" version {number}; remove or rename one"
            )
        versions[number] = name
    return dict(sorted(versions.items()))


def _refuse_version(url: str, name: str, version: Literal["latest"] | int | None) -> None:
    if isinstance(version, int) and not (_VERSION.fullmatch(name) and int(name) == version):
        raise ModelError(
            f"no version {version} of model '{url}': that folder is a model itself, without version folders;"
            " leave the version out, or name the folder above it"
        )


def _version_folder(
    url: str, versions: dict[int, str], version: Literal["latest"] | int | None, look: Look
) -> tuple[str, int]:
    number = version if isinstance(version, int) else max(versions)
    if number not in versions:
        newest = [str(known) for known in sorted(versions, reverse=True)]
        raise ModelError(f"no version {number} of model '{url}': it has {_listed(newest)}; choose one, or 'latest'")
    contents = look(versions[number])
    if not contents.holds_model:
        good = [str(known) for known, name in versions.items() if look(name).holds_model]
        raise ModelError(
            f"version {number} of model '{url}' is no SavedModel: its folder holds {_contents(contents.names)}, not"
            f" 'saved_model.pb'; wait until it is written completely, or choose another version ({_listed(good[::-1])})"
        )
    return versions[number], number


def _missing(url: str, path: Path) -> ModelError:
    """The error for a path that is no folder: a file of another kind, or nothing at all."""
    if path.is_file():
        return _is_a_file(url, path)
    parent = next(above for above in path.parents if above.is_dir())
    wanted = path.relative_to(parent).parts[0]
    names = _names(parent)
    folders = [name for name in names if (parent / name).is_dir()]
    return ModelError(
        f"cannot find model '{url}': no '{wanted}' in '{parent}'; that folder has {one_of(folders or names, wanted)}"
    )


def _is_a_file(url: str, path: Path) -> ModelError:
    return wrong_file(url, path.name, str(path.parent))


def wrong_file(url: str, name: str, folder: str) -> ModelError:
    """The error for a url that names a file. folder: that it lies in."""
    path = Path(name)
    if path.name in (*MODEL_FILES, SPLIT_FILE):
        return ModelError(f"cannot read model '{url}': that is a file of a SavedModel; name its folder '{folder}'")
    suffix = path.suffix.lower()
    if suffix in _KERAS_SUFFIXES:
        return ModelError(_keras_text(url, path.name))
    kinds = {".pb": "a graph or another message", ".tflite": "a TensorFlow Lite model", ".onnx": "an ONNX model"}
    if suffix in _ARCHIVE_SUFFIXES:
        return ModelError(f"cannot read model '{url}': it is packed; unpack it and name the folder")
    return ModelError(
        f"cannot read model '{url}': it is a file ({kinds.get(suffix, 'of an unknown kind')});"
        " expected the folder of a SavedModel, which holds 'saved_model.pb'"
    )


def _keras_text(url: str, name: str) -> str:
    stem = Path(name).stem
    return (
        f"cannot read model '{url}': '{name}' is a Keras file, not a SavedModel; export it once with\n"
        f"  model = keras.models.load_model({name!r}); model.export({stem!r})\n"
        f"and name the folder '{stem}'"
    )


def _no_model(url: str, base: Listing, look: Look) -> ModelError:
    names = base.names
    text = f"no SavedModel in '{url}': it holds {_contents(names)}"
    inside = [name for name in base.folders[:_MOST_LOOKED_INTO] if look(name).holds_model]
    keras = [name for name in names if name.lower().endswith(_KERAS_SUFFIXES)]
    if inside:
        are = "is a model, name it" if len(inside) == 1 else "are models, name one"
        return ModelError(
            f"{text}; expected 'saved_model.pb' or version folders named by a number: {one_of(inside)} {are}"
        )
    if keras:
        return ModelError(_keras_text(url, keras[0]))
    if "checkpoint" in names or any(name.endswith(".index") for name in names):
        return ModelError(
            f"{text}: a checkpoint has weights but no graph; load it into its model and export that with"
            " `tf.saved_model.save(model, path)`"
        )
    return ModelError(f"{text}; expected 'saved_model.pb', or version folders named by a number that hold it")


def _bytes_of(model: Location, path: Path) -> int:
    """The size of a regular file within the folder; links are followed if they stay inside."""
    name = path.relative_to(model.folder).as_posix()
    try:
        target = path.resolve(strict=True)
        facts = target.stat()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"cannot use model '{model.name}': '{name}' is a link to nothing;"
            " expected a folder that is complete, copy the model again"
        ) from error
    if not target.is_relative_to(model.folder):
        raise ModelError(
            f"cannot use model '{model.name}': '{name}' is a link out of the folder, to '{target}';"
            " expected a folder that is complete, copy the model with its links followed (cp -RL)"
        )
    if not stat.S_ISREG(facts.st_mode):
        raise ModelError(
            f"cannot use model '{model.name}': '{name}' is neither a file nor a real folder; expected only those"
        )
    return facts.st_size


def _listing(url: str, folder: Path) -> Listing:
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.name, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise unreadable(url, error) from error
    names = sorted(listed)
    return Listing([name for name, is_dir in names if not is_dir], [name for name, is_dir in names if is_dir])


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []  # only used to say more in an error that is raised anyway


def _contents(names: list[str]) -> str:
    return one_of(names) if names else "nothing"


def _listed(numbers: list[str]) -> str:
    return one_of(numbers).replace("'", "")
