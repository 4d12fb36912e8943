"""From a URL and its options to the files of its store, with an error that names what is missing.

Owns the table of schemes: a new store is a row of it and a file with its verbs. Refuses to ask fsspec which class has
a scheme: any package may take one over there (`sshfs` takes `sftp`), and then promises would rest on another client.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from connectors.secret import redact, redact_urls
from connectors.store.files import Files
from connectors.store.hdfs import HdfsFiles
from connectors.store.local import LocalFiles
from connectors.store.objects import AzureFiles, GcsFiles, S3Files
from connectors.store.other import MemoryFiles, WebFiles
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


_NO_OPTIONS = {"url", "url_query", "url_fragment"}  # parts of a URL that no client takes as an option


def scheme_of(url: str) -> str:
    scheme, mark, _ = url.partition("://")
    scheme = scheme.lower() if mark else "file"
    if scheme in ("file", "local"):
        return "file"
    if scheme not in _KINDS:
        raise JobError(
            f"no store for scheme '{scheme}' of '{redact(url)}': there is 'file', {one_of(list(_KINDS), most=20)}"
        )
    return scheme


def absolute(url: str) -> str:
    """A local path from the root, the same from every working directory; other URLs as they are."""
    if scheme_of(url) == "file":
        if url.startswith("/") and os.path.normpath(url) == url:  # nearly always, and there may be a million
            return url
        return os.path.normpath(expanded(url.partition("://")[2] or url).absolute())
    if redact_urls(url) != url:
        raise JobError(
            f"cannot use '{redact(url)}': the url itself holds a secret, and would be stored in plans and logs; "
            "give it as an option with a reference: 'env:NAME', 'file:/path' or 'profile:NAME'"
        )
    return url if url.endswith("://") else url.rstrip("/")


def below(url: str, folder: str) -> tuple[str, ...] | None:
    """The names by which `url` lies below `folder`, none for the folder itself; None where it lies elsewhere.

    Links of this machine are followed. On other stores names are compared, of one kind of store.
    """
    if kind_of(scheme_of(url)) is not kind_of(scheme_of(folder)):
        return None
    inner, outer = (_place(one) for one in (url, folder))
    return inner[len(outer) :] if inner[: len(outer)] == outer else None


def _place(url: str) -> tuple[str, ...]:
    path = absolute(url)
    path = os.path.realpath(path) if scheme_of(url) == "file" else path.partition("://")[2]
    return tuple(filter(None, path.split("/")))


def kind_of(scheme: str) -> type[Files]:
    return LocalFiles if scheme == "file" else _KINDS[scheme].files


def files_at(url: str, options: Mapping[str, OptionValue], client: Callable[[bool], Any]) -> Files:
    """url: absolute. client: makes one for the options; its argument: whether anew, with credentials read again."""
    scheme = scheme_of(url)
    if scheme != "file":
        return _KINDS[scheme].files(client(False), lambda: client(True))
    if options:
        raise JobError(f"cannot use '{url}' with options {one_of(list(options))}: a local path takes none")
    return LocalFiles(url)


def connect(url: str, options: Mapping[str, OptionValue], fresh: bool) -> Any:
    """A client of fsspec. options: resolved. fresh: not the one that other stores with the same options use.

    raises: JobError for a missing package; what the client raises for its options, which may quote them.
    """
    cls, files = client_class(url, options), _KINDS[scheme_of(url)].files
    named = {name: value for name, value in cls._get_kwargs_from_urls(url).items() if name not in _NO_OPTIONS}
    # One client for all stores with the same options: some take a second to make.
    once = {"skip_instance_cache": True} if fresh else {}
    try:
        return cls(**files.client_options({**named, **options, **once}))
    except OSError as error:
        if not any(library in str(error) for library in ("libhdfs", "libjvm")):
            raise
        raise JobError(
            f"cannot reach '{redact(url)}': the libraries of Hadoop are missing ({error}); set HADOOP_HOME or"
            " ARROW_LIBHDFS_DIR, and JAVA_HOME, or use 'webhdfs://'"
        ) from None


def client_class(url: str, options: Mapping[str, Any]) -> Any:
    """Of the client for a remote url. raises: JobError for a missing package."""
    scheme = scheme_of(url)
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
