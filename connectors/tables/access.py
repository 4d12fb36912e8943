"""How the libraries of tables reach a store: options of a job in their words, and their errors without secrets.

Owns the names; refuses to know tables. The invariant: a secret is resolved here and in no document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.formats.fault import one_line
from connectors.secret import HIDDEN, redact, resolve
from connectors.store.connect import scheme_of
from jobs.errors import InputError, RunnerError
from jobs.section.base import OptionValue

_S3 = ("s3", "s3a")
_GCS = ("gs", "gcs")
_AZURE = ("abfs", "abfss", "az")
# Option of a client of fsspec -> what deltalake (object_store) and pyiceberg call it.
_NAMES: dict[tuple[str, ...], dict[str, tuple[str, str]]] = {
    _S3: {
        "key": ("AWS_ACCESS_KEY_ID", "s3.access-key-id"),
        "secret": ("AWS_SECRET_ACCESS_KEY", "s3.secret-access-key"),
        "token": ("AWS_SESSION_TOKEN", "s3.session-token"),
        "endpoint_url": ("AWS_ENDPOINT_URL", "s3.endpoint"),
        "region": ("AWS_REGION", "s3.region"),
        "region_name": ("AWS_REGION", "s3.region"),
        "profile": ("AWS_PROFILE", "s3.profile-name"),
        "anon": ("AWS_SKIP_SIGNATURE", "s3.anonymous"),
    },
    _GCS: {
        "token": ("GOOGLE_SERVICE_ACCOUNT", "gcs.token"),
        "project": ("GOOGLE_PROJECT_ID", "gcs.project-id"),
        "endpoint_url": ("GOOGLE_ENDPOINT_URL", "gcs.service.host"),
        "anon": ("GOOGLE_SKIP_SIGNATURE", "gcs.anonymous"),
    },
    _AZURE: {
        "account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "adls.account-name"),
        "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "adls.account-key"),
        "sas_token": ("AZURE_STORAGE_SAS_TOKEN", "adls.sas-token"),
        "connection_string": ("AZURE_STORAGE_CONNECTION_STRING", "adls.connection-string"),
        "tenant_id": ("AZURE_STORAGE_TENANT_ID", "adls.tenant-id"),
        "client_id": ("AZURE_STORAGE_CLIENT_ID", "adls.client-id"),
        "client_secret": ("AZURE_STORAGE_CLIENT_SECRET", "adls.client-secret"),
        "anon": ("AZURE_SKIP_SIGNATURE", "adls.anonymous"),
    },
}


def storage_options(url: str, options: Mapping[str, OptionValue]) -> tuple[dict[str, str], list[str]]:
    """What deltalake is told of a store, and the secrets among it. options: of the job; what it has no name for stays
    out. raises: JobError for a reference that cannot be resolved."""
    scheme = scheme_of(url)
    resolved, secrets = resolve(options, scheme)
    names = _names(scheme)
    made = {names[name][0]: _text(value) for name, value in resolved.items() if name in names}
    if scheme in _S3 and str(resolved.get("endpoint_url", "")).startswith("http://"):
        made["AWS_ALLOW_HTTP"] = "true"
    return made, secrets


def properties(
    url: str, options: Mapping[str, OptionValue], catalog: Mapping[str, OptionValue]
) -> tuple[dict[str, str], list[str]]:
    """What pyiceberg is told of a catalog and its stores, and the secrets among it. url: of its files, as far as known.

    catalog: of the job, which wins over what `options` of the store come to.
    raises:  JobError for a reference that cannot be resolved.
    """
    scheme = scheme_of(url)
    resolved, secrets = resolve(options, scheme)
    places = {name: value for name, value in catalog.items() if str(value).startswith("file://")}  # no references
    own, more = resolve({name: value for name, value in catalog.items() if name not in places}, "a catalog")
    names = _names(scheme)
    made = {names[name][1]: _text(value) for name, value in resolved.items() if name in names}
    return made | {name: _text(value) for name, value in {**own, **places}.items()}, [*secrets, *more]


@contextmanager
def library_errors(what: str, package: str, secrets: list[str], known: Mapping[str, Any]) -> Iterator[None]:
    """raises: InputError for what a library of tables raises, whose classes share no base that tells theirs from ours.

    known: name of a class of theirs -> code of our error.
    """
    try:
        yield
    except RunnerError:
        raise
    except Exception as error:
        text = str(error)
        for secret in filter(None, secrets):
            text = text.replace(secret, HIDDEN)
        code = next((known[one.__name__] for one in type(error).__mro__ if one.__name__ in known), "TABLE_UNREADABLE")
        raise InputError(f"cannot read {what}: {package} says: {one_line(redact(text), 400)}", code=code) from None


def _names(scheme: str) -> dict[str, tuple[str, str]]:
    return next((names for schemes, names in _NAMES.items() if scheme in schemes), {})


def _text(value: OptionValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
