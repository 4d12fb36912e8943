"""From a URL and its options to a client of fsspec, with an error that names what is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec

from connectors.secret import redact, redact_urls
from connectors.store.host_key import known_hosts_policy
from connectors.store.remote import OBJECT_STORES
from jobs.errors import JobError, one_of
from jobs.job import OptionValue

# Scheme -> what to install for it; None: nothing beside the runner itself.
_PACKAGES: dict[str, str | None] = {
    **dict.fromkeys(("s3", "s3a"), "savedmodel-runner[s3]"),
    **dict.fromkeys(("gs", "gcs"), "savedmodel-runner[gcs]"),
    **dict.fromkeys(("abfs", "abfss", "az"), "savedmodel-runner[azure]"),
    **dict.fromkeys(("sftp", "ssh"), "savedmodel-runner[sftp]"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "webhdfs": "requests",
    "hdfs": None,
    "memory": None,
}


# fsspec trusts any SFTP host key by default, and some stores cache listings for good.
_DEFAULTS: dict[str, dict[str, Any]] = {
    **{scheme: {"use_listings_cache": False} for scheme in OBJECT_STORES},
    **{scheme: {"host_key_policy": "reject"} for scheme in ("sftp", "ssh")},
}


_NO_OPTIONS = {"url", "url_query", "url_fragment"}  # parts of a URL that no client takes as an option


def scheme_of(url: str) -> str:
    scheme, mark, _ = url.partition("://")
    scheme = scheme.lower() if mark else "file"
    if scheme in ("file", "local"):
        return "file"
    if scheme not in _PACKAGES:
        raise JobError(
            f"no store for scheme '{scheme}' of '{redact(url)}': there is 'file', {one_of(list(_PACKAGES), most=20)}"
        )
    return scheme


def absolute(url: str) -> str:
    """A local path from the root, the same from every working directory; other URLs as they are."""
    if scheme_of(url) == "file":
        if url.startswith("/") and os.path.normpath(url) == url:  # nearly always, and there may be a million
            return url
        return os.path.normpath(Path(url.partition("://")[2] or url).expanduser().absolute())
    if redact_urls(url) != url:
        raise JobError(
            f"cannot use '{redact(url)}': the url itself holds a secret, and would be stored in plans and logs; "
            "give it as an option with a reference: 'env:NAME', 'file:/path' or 'profile:NAME'"
        )
    return url if url.endswith("://") else url.rstrip("/")


def connect(scheme: str, url: str, options: Mapping[str, OptionValue], fresh: bool) -> Any:
    try:
        cls = fsspec.get_filesystem_class(scheme)
    except ImportError:
        package = _PACKAGES[scheme]
        advice = f"; pip install '{package}'" if package else ""
        raise JobError(f"cannot reach '{redact(url)}': the package for '{scheme}' is missing{advice}") from None
    named = {name: value for name, value in cls._get_kwargs_from_urls(url).items() if name not in _NO_OPTIONS}
    try:
        # One client for all stores with the same options: some take a second to make.
        once = {"skip_instance_cache": True} if fresh else {}
        given = {**_DEFAULTS.get(scheme, {}), **named, **options, **once}
        if given.get("host_key_policy") == "reject":
            given["host_key_policy"] = known_hosts_policy(str(given.pop("known_hosts", "~/.ssh/known_hosts")))
        return cls(**given)
    except (TypeError, ValueError, KeyError) as error:
        names = one_of(list(options))
        raise JobError(f"cannot reach '{redact(url)}' with options {names}: {type(error).__name__}") from None
