"""Where a SavedModel lies: URL -> model folder, version resolved, files listed and digested.

Refuses to know what is in the files. The invariant: nothing outside of the model folder is read, not even through
a link, so that the digest covers all that a loader will see.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from jobs.errors import ModelError, one_of

MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")  # the first that exists is read
SPLIT_FILE = "saved_model.cpb"
MAX_FILES = 10_000  # public models have tens of files; without a limit a wrong URL would be hashed for hours

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VERSION = re.compile(r"[0-9]{1,18}")  # TensorFlow Serving: the whole name is an integer; leading zeros are fine
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz")


@dataclass(frozen=True)
class Location:
    """A model folder that exists. `name` is what the user called it, for messages."""

    name: str
    folder: Path  # absolute, links resolved: a retry finds the same model where 'current' was moved on
    version: int | None


def locate(url: str, version: Literal["latest"] | int | None) -> Location:
    """Find the folder of a model, or of the version asked for in a folder of version folders.

    raises: ModelError with the next step: nothing there, no SavedModel, no such version.
    """
    base = _local(url)
    if not base.is_dir():
        raise _missing(url, base)
    try:
        names = sorted(os.listdir(base))  # noqa: PTH208 (names are enough)
    except OSError as error:
        raise unreadable(url, error) from error
    if _holds_model(names):
        return _model_itself(url, base.resolve(), version)
    versions = _versions(url, base, names)
    if not versions:
        raise _no_model(url, base, names)
    return _version_folder(url, versions, version)


def files(model: Location) -> dict[str, int]:
    """Relative path (with '/') -> bytes of every file, sorted. raises: ModelError at links that leave the folder."""
    found: dict[str, int] = {}

    def fail(error: OSError) -> None:
        raise unreadable(model.name, error) from error

    for folder, subfolders, names in os.walk(model.folder, onerror=fail):
        for name in sorted(subfolders + names):
            path = Path(folder, name)
            if name in names or path.is_symlink():
                found[path.relative_to(model.folder).as_posix()] = _bytes_of(model, path)
        if len(found) > MAX_FILES:
            raise ModelError(
                f"cannot use model '{model.name}': more than {MAX_FILES} files;"
                " expected the folder of one SavedModel, which holds tens"
            )
    return dict(sorted(found.items()))


def digest(model: Location, paths: dict[str, int]) -> str:
    """SHA-256 over sorted (relative path, content), hex. cost: reads every file once, in pieces.

    The content enters as its own SHA-256, so that no content can pass for another path.
    """
    total = hashlib.sha256()
    for path in sorted(paths):
        try:
            with (model.folder / path).open("rb") as file:
                content = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise unreadable(model.name, error) from error
        total.update(path.encode("utf-8", "surrogateescape") + b"\0" + content.digest())
    return total.hexdigest()


def unreadable(name: str, error: OSError) -> ModelError:
    where = f" '{error.filename}'" if error.filename else ""
    return ModelError(
        f"cannot read model '{name}':{where} {error.strerror or error}; check the path and its permissions"
    )


def _local(url: str) -> Path:
    scheme = _SCHEME.match(url)
    if scheme is None:
        return Path(os.path.abspath(url))  # noqa: PTH100 (`absolute` keeps '..', which links may lead elsewhere)
    parts = urlsplit(url)
    if scheme[1].lower() == "file" and parts.netloc in ("", "localhost"):
        return Path(os.path.abspath(unquote(parts.path)))  # noqa: PTH100
    raise ModelError(
        f"cannot read model from a '{scheme[1]}' URL on '{parts.hostname or ''}': models are read from local or shared"
        " folders only, remote models come later; copy it to a folder that every worker sees and name that"
    )


def _holds_model(names: list[str]) -> bool:
    return any(name in names for name in (*MODEL_FILES, SPLIT_FILE))


def _versions(url: str, base: Path, names: list[str]) -> dict[int, Path]:
    versions: dict[int, Path] = {}
    for name in names:
        if not _VERSION.fullmatch(name) or not (base / name).is_dir():
            continue
        number = int(name)
        if number in versions:
            raise ModelError(
                f"cannot tell the versions of model '{url}' apart: '{versions[number].name}' and '{name}' are both"
                f" version {number}; remove or rename one"
            )
        versions[number] = base / name
    return dict(sorted(versions.items()))


def _model_itself(url: str, folder: Path, version: Literal["latest"] | int | None) -> Location:
    if isinstance(version, int) and not (_VERSION.fullmatch(folder.name) and int(folder.name) == version):
        raise ModelError(
            f"no version {version} of model '{url}': that folder is a model itself, without version folders;"
            " leave the version out, or name the folder above it"
        )
    return Location(url, folder, None)


def _version_folder(url: str, versions: dict[int, Path], version: Literal["latest"] | int | None) -> Location:
    number = version if isinstance(version, int) else max(versions)
    if number not in versions:
        newest = [str(known) for known in sorted(versions, reverse=True)]
        raise ModelError(f"no version {number} of model '{url}': it has {_listed(newest)}; choose one, or 'latest'")
    folder = versions[number].resolve()
    names = _names(folder)
    if not _holds_model(names):
        good = [str(known) for known, path in versions.items() if _holds_model(_names(path))]
        raise ModelError(
            f"version {number} of model '{url}' is no SavedModel: its folder holds {_contents(names)}, not"
            f" 'saved_model.pb'; wait until it is written completely, or choose another version ({_listed(good[::-1])})"
        )
    return Location(url, folder, number)


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
    if path.name in (*MODEL_FILES, SPLIT_FILE):
        return ModelError(f"cannot read model '{url}': that is a file of a SavedModel; name its folder '{path.parent}'")
    suffix = path.suffix.lower()
    if suffix in _KERAS_SUFFIXES:
        return ModelError(_keras_text(url, path))
    found = {".pb": "a graph or another message", ".tflite": "a TensorFlow Lite model", ".onnx": "an ONNX model"}
    if suffix in _ARCHIVE_SUFFIXES:
        return ModelError(f"cannot read model '{url}': it is packed; unpack it and name the folder")
    return ModelError(
        f"cannot read model '{url}': it is a file ({found.get(suffix, 'of an unknown kind')});"
        " expected the folder of a SavedModel, which holds 'saved_model.pb'"
    )


def _keras_text(url: str, path: Path) -> str:
    return (
        f"cannot read model '{url}': '{path.name}' is a Keras file, not a SavedModel; export it once with\n"
        f"  model = keras.models.load_model({path.name!r}); model.export({path.stem!r})\n"
        f"and name the folder '{path.stem}'"
    )


def _no_model(url: str, base: Path, names: list[str]) -> ModelError:
    text = f"no SavedModel in '{url}': it holds {_contents(names)}"
    inside = [name for name in names if (base / name).is_dir() and _holds_model(_names(base / name))]
    keras = [name for name in names if name.lower().endswith(_KERAS_SUFFIXES)]
    if inside:
        are = "is a model, name it" if len(inside) == 1 else "are models, name one"
        return ModelError(
            f"{text}; expected 'saved_model.pb' or version folders named by a number: {one_of(inside)} {are}"
        )
    if keras:
        return ModelError(_keras_text(url, base / keras[0]))
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


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []  # only used to say more in an error that is raised anyway


def _contents(names: list[str]) -> str:
    return one_of(names) if names else "nothing"


def _listed(numbers: list[str]) -> str:
    return one_of(numbers).replace("'", "")
