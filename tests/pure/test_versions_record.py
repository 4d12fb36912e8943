"""What is kept of the programs that did the work: as plain values, shared, and read back whatever they hold."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib.metadata import version

import pytest

from jobs.versions import UNRECORDED, Versions, installed

NEW = Versions("0.2.0", "2.21.0", "26.0.1", "2.60.0", "3.11.9", "Linux x86_64")


def test_versions_are_plain_values_that_are_read_back() -> None:
    assert Versions.from_document(json.loads(json.dumps(NEW.document()))) == NEW
    assert Versions.from_document(NEW.document() | {"colour": "blue"}) == NEW, "a later version says more"
    assert NEW.facts()["TensorFlow"] == "2.21.0"
    assert str(NEW) == ("runner 0.2.0, TensorFlow 2.21.0, pyarrow 26.0.1, Ray 2.60.0, Python 3.11.9, Linux x86_64")


@pytest.mark.parametrize("document", [None, {}, [], "x", {"runner": 3}])
def test_what_is_not_known_is_left_out(document: object) -> None:
    assert Versions.from_document(document) is UNRECORDED
    assert UNRECORDED.document() == {}


def test_those_of_a_million_receipts_are_one_object() -> None:
    one, other = (pickle.loads(pickle.dumps(Versions(*NEW.document().values()))) for _ in range(2))  # noqa: S301
    assert one is other
    assert Versions.from_document(NEW.document()) is one


def test_those_of_this_process_are_known_without_loading_what_they_name() -> None:
    mine = installed()
    assert (mine.pyarrow, mine.runner) == (version("pyarrow"), version("savedmodel-runner"))
    assert mine.python == ".".join(map(str, sys.version_info[:3]))
    assert mine.machine
    script = (
        "import sys, jobs.versions as v; v.installed(); print(*{'ray', 'tensorflow', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
