"""The table of schemes: each has the files of its kind, whole, and a package where it needs one."""

from __future__ import annotations

import pytest

from connectors.store.connect import kind_of
from connectors.store.files import Files
from connectors.store.store import Store

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
