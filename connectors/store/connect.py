"""From a URL and its options to the files of its store, with an error that names what is missing.

Owns the table of schemes: a store with promises is a row of it and a file with its verbs. Refuses to ask fsspec which
class has such a scheme: any package may take one over there (`sshfs` takes `sftp`), and then promises would rest on
another client. Every other scheme is what fsspec says.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fsspec.core import url_to_fs
from fsspec.registry import get_filesystem_class, known_implementations, registry

from connectors.chain import CACHES, Chain, by_layer, layer_of, parsed
from connectors.secret import redact, redact_urls
from connectors.store.files import Files
from connectors.store.hdfs import HdfsFiles
from connectors.store.local import LocalFiles
from connectors.store.objects import AzureFiles, GcsFiles, S3Files
from connectors.store.other import ArchiveFiles, MemoryFiles, RegisteredFiles, WebFiles
from connectors.store.remote import RemoteFiles
from connectors.store.scratch import expanded
from connectors.store.sftp import SftpFiles
from jobs.errors import JobError, one_of
from jobs.section.base import OptionValue


class _Kind(NamedTuple):
    """client: the class whose behaviour `files` knows. package: what to install for it; None: nothing more."""

    files: type[RemoteFiles]
    client: str
    package: str | None = None


_KINDS: dict[str, _Kind] = {  # by scheme; local paths have none
    **dict.fromkeys(("s3", "s3a"), _Kind(S3Files, "s3fs.S3FileSystem", "savedmodel-runner[s3]")),
    **dict.fromkeys(("gs", "gcs"), _Kind(GcsFiles, "gcsfs.GCSFileSystem", "savedmodel-runner[gcs]")),
    **dict.fromkeys(
        ("abfs", "abfss", "az"), _Kind(AzureFiles, "adlfs.AzureBlobFileSystem", "savedmodel-runner[azure]")
    ),
    **dict.fromkeys(
        ("sftp", "ssh"), _Kind(SftpFiles, "fsspec.implementations.sftp.SFTPFileSystem", "savedmodel-runner[sftp]")
    ),
    **dict.fromkeys(("http", "https"), _Kind(WebFiles, "fsspec.implementations.http.HTTPFileSystem", "aiohttp")),
    "webhdfs": _Kind(HdfsFiles, "fsspec.implementations.webhdfs.WebHDFS", "requests"),
    "hdfs": _Kind(HdfsFiles, "fsspec.implementations.arrow.HadoopFileSystem"),
    "memory": _Kind(MemoryFiles, "fsspec.implementations.memory.MemoryFileSystem"),
}


_OWN = ("file", "local", *_KINDS)
_ONLY_READ = ("data", "gist", "git", "github", "libarchive", "reference", "tar", "zip", *CACHES)
_NO_OPTIONS = {"url", "url_query", "url_fragment"}  # parts of a URL that no client takes as an option


def scheme_of(url: str) -> str:
    """Of the outermost layer, where there are several."""
    if url.startswith("/"):
        return "file"
    if layer := layer_of(url, _may_be_layer):
        return layer
    scheme, mark, _ = url.partition("://")
    scheme = scheme.lower() if mark else "file"
    if scheme in ("file", "local"):
        return "file"
    if scheme not in _KINDS and not _registered(scheme):
        others = one_of(sorted({*known_implementations, *registry}.difference(_OWN)), scheme, most=100)
        raise JobError(
            f"no store for scheme '{scheme}' of '{redact(url)}': there is 'file', {one_of(list(_KINDS), most=20)}, and,"
            f" by fsspec, {others}"
        )
    return scheme


def _registered(scheme: str) -> bool:
    return scheme in known_implementations or scheme in registry


def _may_be_layer(scheme: str) -> bool:
    return scheme not in _OWN and _registered(scheme)


def chain_of(url: str) -> Chain | None:
    """The layers of an address; None where it has one."""
    return parsed(url, _may_be_layer, absolute, redact(url)) if layer_of(url, _may_be_layer) else None


def absolute(url: str) -> str:
    """A local path from the root, the same from every working directory; other URLs as they are, the path last."""
    if scheme_of(url) == "file":
        if url.startswith("/") and os.path.normpath(url) == url:  # nearly always, and there may be a million
            return url
        return os.path.normpath(expanded(url.partition("://")[2] or url).absolute())
    if redact_urls(url) != url:
        raise JobError(
            f"cannot use '{redact(url)}': the url itself holds a secret, and would be stored in plans and logs; "
            "give it as an option with a reference: 'env:NAME', 'file:/path' or 'profile:NAME'"
        )
    if chain := chain_of(url):
        return str(chain)
    return url if url.endswith("://") else url.rstrip("/")


def reaches(root: str, url: str) -> bool:
    """Whether the client for `root` reads `url`; both are absolute."""
    if root.startswith("/"):
        return url.startswith("/")
    scheme = scheme_of(root)
    if scheme_of(url) != scheme:
        return False
    if scheme in _OWN:
        return True
    chain, other = chain_of(root), chain_of(url)
    if chain is not None and other is not None:
        return chain.place == other.place
    cls = _registered_class(scheme, redact(root))
    return chain is other and _named(cls, root) == _named(cls, url)


def below(url: str, folder: str) -> tuple[str, ...] | None:
    """The names by which `url` lies below `folder`, none for the folder itself; None where it lies elsewhere.

    Links of this machine are followed. On other stores names are compared, of one kind of store.
    """
    inner, outer = (_place(one) for one in (url, folder))
    return inner[len(outer) :] if inner[: len(outer)] == outer else None


def _place(url: str) -> tuple[str, ...]:
    """What of `url` is to be compared: first its kind of store, then its names."""
    url, chain = absolute(url), chain_of(url)
    if chain is not None and not chain.paths:  # caches alone: it lies where their target does
        return _place(chain.target)
    scheme, path = scheme_of(url), url.partition("://")[2]
    if scheme == "file":
        path = os.path.realpath(url)
    kind = kind_of(scheme).__name__ if scheme in _OWN else url.partition("://")[0]
    return kind, *filter(None, path.split("/"))


def _path_in(url: str) -> str:
    """What the client takes for `url`, with its scheme where that is the client's."""
    chain = chain_of(url)
    return url if chain is None else chain.path


def kind_of(scheme: str) -> type[Files]:
    if scheme == "file":
        return LocalFiles
    return _remote_kind(scheme)


def _remote_kind(scheme: str) -> type[RemoteFiles]:
    if scheme in _KINDS:
        return _KINDS[scheme].files
    return ArchiveFiles if scheme in _ONLY_READ else RegisteredFiles


def files_at(url: str, options: Mapping[str, OptionValue], client: Callable[[bool], Any]) -> Files:
    """url: absolute. client: makes one for the options; its argument: whether anew, with credentials read again."""
    scheme = scheme_of(url)
    if scheme != "file":
        kind = _remote_kind(scheme)
        files = kind(client(False), lambda: client(True))
        if isinstance(files, RegisteredFiles):
            files.path_of = _path_in
        return files
    if options:
        raise JobError(f"cannot use '{url}' with options {one_of(list(options))}: a local path takes none")
    return LocalFiles(url)


def connect(url: str, options: Mapping[str, OptionValue], fresh: bool) -> Any:
    """A client of fsspec. options: resolved. fresh: not the one that other stores with the same options use.

    raises: JobError for a missing package; what the client raises for its options, which may quote them.
    """
    if (chain := chain_of(url)) is not None:
        return _chained(chain, options)
    cls, files = client_class(url, options), _remote_kind(scheme_of(url))
    # One client for all stores with the same options: some take a second to make.
    once = {"skip_instance_cache": True} if fresh or files.alone else {}
    named = _named(cls, url)
    try:
        return cls(**files.client_options({**named, **options, **once}))
    except OSError as error:
        if not any(library in str(error) for library in ("libhdfs", "libjvm")):
            raise
        raise JobError(
            f"cannot reach '{redact(url)}': the libraries of Hadoop are missing ({error}); set HADOOP_HOME or"
            " ARROW_LIBHDFS_DIR, and JAVA_HOME, or use 'webhdfs://'"
        ) from None


def _named(cls: Any, url: str) -> dict[str, Any]:
    """The options that the URL itself holds, such as a host."""
    return {name: value for name, value in cls._get_kwargs_from_urls(url).items() if name not in _NO_OPTIONS}


def _chained(chain: Chain, options: Mapping[str, OptionValue]) -> Any:
    """A client of the outermost layer, which makes those below it by their schemes: they have to be those of the table.

    raises: JobError where a layer is another.
    """
    below = scheme_of(chain.target)
    own, others = by_layer(options, (*chain.layers, below))
    for layer in (*chain.layers[1:], below):
        if layer in _KINDS:
            kind = _KINDS[layer]
            cls = client_class(f"{layer}://", others.get(layer, {}))
            if get_filesystem_class(layer) is not cls:
                raise JobError(
                    f"cannot reach '{redact(str(chain))}': another package has taken the scheme '{layer}' over in"
                    f" fsspec; expected {cls.__module__}.{cls.__name__}"
                )
            others[layer] = kind.files.client_options(dict(others.get(layer, {})))
    for layer in chain.layers:
        _registered_class(layer, redact(str(chain)))
    if unknown := [name for name in own if "." in name]:
        layers = one_of([*chain.layers, below])
        raise JobError(f"cannot reach '{redact(str(chain))}' with options {one_of(unknown)}: its layers are {layers}")
    client, _ = url_to_fs(chain.root, **others, **own, skip_instance_cache=True)
    return client


def client_class(url: str, options: Mapping[str, Any]) -> Any:
    """Of the client for a remote url. raises: JobError for a missing package."""
    scheme = scheme_of(url)
    if scheme not in _KINDS:
        return _registered_class(scheme, redact(url))
    kind = _KINDS[scheme]
    module, _, name = kind.files.client_class(kind.client, options).rpartition(".")
    advice = f"; pip install '{kind.package}'" if kind.package else ""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        raise JobError(f"cannot reach '{redact(url)}': the package for '{scheme}' is missing{advice}") from None
    except (ImportError, AttributeError) as error:  # there, and of a version that does not fit the others
        raise JobError(
            f"cannot reach '{redact(url)}': the package for '{scheme}' cannot be imported: {error}{advice}"
        ) from None


def _registered_class(scheme: str, shown: str) -> Any:
    """The client's class. shown: the url, for messages. raises: JobError for a missing package."""
    try:
        return get_filesystem_class(scheme)
    except (ImportError, AttributeError) as error:
        entry = known_implementations.get(scheme, {})
        package = str(entry.get("class", "")).partition(".")[0].partition(":")[0].replace("_", "-")
        said = f": {entry['err']}" if entry.get("err") else ""
        if not isinstance(error.__cause__, ModuleNotFoundError):  # there, and of a version that does not fit the others
            raise JobError(
                f"cannot reach '{shown}': the package for '{scheme}' cannot be imported:"
                f" {error.__cause__ or error}{said}"
            ) from None
        advice = f"; pip install '{package}'" if package not in ("", "fsspec") else ""
        raise JobError(f"cannot reach '{shown}': the package for '{scheme}' is missing{said}{advice}") from None
