"""The table of schemes: each has the files of its kind, whole, and a package where it needs one."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.registry import registry

from connectors.store.connect import client_class, kind_of
from connectors.store.files import Files
from connectors.store.other import MemoryFiles
from connectors.store.store import Store
from jobs.errors import JobError

OBJECTS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
SCHEMES = ("file", *OBJECTS, "sftp", "ssh", "hdfs", "webhdfs", "http", "https", "memory")
VERBS = [name for name, verb in vars(Files).items() if callable(verb) and not name.startswith("_")]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_kind_of_store_has_every_verb(scheme: str) -> None:
    kind = kind_of(scheme)
    assert len(VERBS) >= 10
    assert [verb for verb in VERBS if getattr(kind, verb) is getattr(Files, verb)] == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_store_knows_what_its_kind_can_do_before_it_is_reached(scheme: str) -> None:
    kind = Store(f"{scheme}://host/out").kind
    assert kind.local == (scheme == "file")
    assert kind.in_process == (scheme == "memory")
    assert kind.read_only == (scheme in ("http", "https"))
    assert kind.conditional_put == (scheme in OBJECTS)


class Taken(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """What another package puts in the place of the client that a scheme had."""


@pytest.mark.parametrize("scheme", ["s3", "gs", "abfs", "sftp", "ssh", "https", "webhdfs", "hdfs", "memory"])
def test_a_package_that_takes_a_scheme_over_in_fsspec_changes_nothing(
    scheme: str,
) -> None:
    known = fsspec.get_filesystem_class(scheme)
    before = dict(registry)
    fsspec.register_implementation(scheme, Taken, clobber=True)
    try:
        assert fsspec.get_filesystem_class(scheme) is Taken
        assert client_class(f"{scheme}://host/out", {}) is known
    finally:
        fsspec.register_implementation(scheme, before[scheme], clobber=True)


@pytest.mark.parametrize(("name", "shown"), [("knwon_hosts", "knwon_hosts"), ("s3cr3t-canary", r"\*\*\*")])
def test_an_option_that_a_client_does_not_know_is_named(name: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "s3cr3t-canary")

    def refuse(cls: type, given: dict[str, object]) -> dict[str, object]:
        raise TypeError(f"SSHClient.connect() got an unexpected keyword argument '{name}'")

    monkeypatch.setattr(MemoryFiles, "client_options", classmethod(refuse))
    with pytest.raises(JobError, match=f"with options 'key': TypeError: .* argument '{shown}'") as caught:
        Store("memory://x", {"key": "env:CANARY"}).stat("a")
    assert "canary" not in caught.value.message
