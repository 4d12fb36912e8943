"""Why a library of ops does not load, for people: names of C++ as they are written, and what packages state."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.engine.ops import library as module
from runner.engine.ops.library import demangled, explained

TRACE = "_ZNK10tensorflow8OpKernel11TraceStringERKNS_15OpKernelContextEb"
WRITTEN = "tensorflow::OpKernel::TraceString(tensorflow::OpKernelContext const&, bool) const"


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tensorflow_version", lambda: "2.21.0")


@pytest.fixture
def without_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_demangler", lambda: (None, None))


def test_a_name_of_cpp_is_said_as_it_is_written() -> None:
    assert demangled(TRACE) == WRITTEN
    assert demangled("TF_LoadLibrary") == "TF_LoadLibrary"


def test_without_a_runtime_of_cpp_a_name_stays_as_it_is(without_runtime: None) -> None:
    assert demangled(TRACE) == TRACE
    assert f"it wants '{TRACE}'" in explained("/ops.so", f"/ops.so: undefined symbol: {TRACE}")


def test_a_missing_name_of_tensorflow_means_another_tensorflow() -> None:
    found = explained("/nowhere/ops.so", f"/nowhere/ops.so: undefined symbol: {TRACE}")
    assert found == f"it was built for another TensorFlow: it wants '{WRITTEN}', which TensorFlow 2.21.0 does not have"


def test_a_missing_name_of_something_else_is_no_guess() -> None:
    found = explained("/nowhere/ops.so", "undefined symbol: _ZN3re23RE29FullMatchEv")
    assert found == "it wants 're2::RE2::FullMatch()', which no library here has"
    assert explained("/nowhere/ops.so", "file too short") == ""


def test_a_name_without_end_is_cut() -> None:
    letters = "a" * 500
    assert len(explained("/ops.so", f"undefined symbol: _ZN10tensorflow500{letters}E")) < 400


@pytest.mark.parametrize(
    ("requires", "stated"),
    [
        (
            ["tensorflow<2.20,>=2.19.0", 'tensorflow-cpu<2.20; extra == "cpu"', "numpy"],
            "is for tensorflow<2.20,>=2.19.0",
        ),
        (["numpy"], "does not say for which"),
    ],
)
def test_what_the_package_of_the_library_states_is_said_instead(
    tmp_path: Path, requires: list[str], stated: str
) -> None:
    (tmp_path / "some_text" / "python").mkdir(parents=True)
    library = tmp_path / "some_text" / "python" / "ops.so"
    for name, files in (("some_text-2.19.0", "some_text/python/ops.so,,\n"), ("other-1.0", "other/x.py,,\n")):
        info = tmp_path / f"{name}.dist-info"
        info.mkdir()
        package, number = name.split("-")
        lines = [f"Name: {package}", f"Version: {number}", *(f"Requires-Dist: {one}" for one in requires)]
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]))
        (info / "RECORD").write_text(files)
    found = explained(str(library), f"{library}: undefined symbol: {TRACE}")
    assert (
        found == f"it wants '{WRITTEN}', which TensorFlow 2.21.0 does not have; its package, some_text 2.19.0, {stated}"
    )
