"""Op packages as they are installed: what fits is found with its digest, and what does not is refused unopened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import ModelError
from runner.engine import ModelOptions, OpPackage
from runner.engine.ops.package import choose, for_another, libraries, trusted_ops
from runner.scan.ops import minor_of, tensorflow_version
from runner.scan.packages import EXTRAS, Package

HERE = tensorflow_version()
FITS = f"tensorflow=={minor_of(HERE)}.0"
ONE = Package("runner_one", ("1.0",), {"runner_one/a.so": {"A": False}, "runner_one/b.so": {"B": True, "C": True}})
TWO = Package("runner_two", ("1.0",), {"runner_two/ops.so": {"C": False, "D": False}})
TABLE = {"runner_one": ONE, "runner_two": TWO}
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """install(name, version, requires): a package as pip leaves it, with the libraries that the table has of it."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in TABLE:
        monkeypatch.setitem(EXTRAS, name, "x")

    def installed(name: str, version: str = "1.0", requires: str = FITS) -> Path:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\nRequires-Dist: {requires}\n"
        (info / "METADATA").write_text(head)
        for path in TABLE[name].libraries:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(path)
        return tmp_path

    return installed


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def options(*packages: OpPackage) -> ModelOptions:
    return ModelOptions(op_packages=packages)


def test_only_the_libraries_of_the_models_ops_are_chosen_and_a_worker_finds_them(install: Install) -> None:
    root = install("runner_one")
    chosen = choose(["runner-one", "runner_one"], {"B", "MatMul"}, TABLE)
    expected = OpPackage("runner_one", "1.0", (("runner_one/b.so", sha256("runner_one/b.so")),))
    assert (chosen.packages, chosen.notes) == ((expected,), ())
    assert list(libraries(options(*chosen.packages))) == [str(root / "runner_one/b.so")]


def test_a_package_without_ops_of_the_model_is_a_note(install: Install) -> None:
    install("runner_one")
    chosen = choose(["runner_one"], {"MatMul"}, TABLE)
    assert chosen.packages == ()
    assert chosen.notes == (
        "`op_packages` names runner_one, and the model has none of its ops: nothing of it is loaded",
    )


def test_all_that_is_wrong_with_packages_is_said_at_once(install: Install) -> None:
    install("runner_two", "3.1", "tensorflow<2.5,>=2.4")
    names = ["runner_tow", "tensorflow_decision_forests", "runner_one", "runner_two"]
    with pytest.raises(ModelError) as caught:
        choose(names, {"C"}, TABLE)
    assert caught.value.message.splitlines() == [
        "cannot use the op packages of the job:",
        "  - no package of ops 'runner_tow' is known: known are 'runner_two', 'runner_one'; the libraries of another"
        " one are named by their paths, `op_libraries: [/path/of/ops.so]`",
        "  - 'tensorflow_decision_forests' has no release for this TensorFlow: its ops are in ydf_tf, so name that one",
        "  - runner_one and runner_two both register op 'C': name one of them",
        "  - runner_one is not installed here: pip install 'savedmodel-runner[x]', here and on every worker",
        f"  - runner_two 3.1 is for tensorflow<2.5,>=2.4, and TensorFlow {HERE} is installed here: each of its releases"
        " is for one version of TensorFlow; pip install -U runner_two, or the TensorFlow that it is for",
    ]
    assert caught.value.exit_code == 2


def test_two_packages_may_share_an_op_that_the_model_does_not_have(install: Install) -> None:
    install("runner_one")
    install("runner_two")
    assert [each.name for each in choose([*TABLE], {"A", "D"}, TABLE).packages] == ["runner_one", "runner_two"]


def test_a_version_without_a_library_of_the_table_is_told(install: Install) -> None:
    (install("runner_one", "9.0") / "runner_one/a.so").unlink()
    told = r"cannot read 'runner_one/a\.so' of runner_one 9\.0: No such file .* known are the versions 1\.0"
    with pytest.raises(ModelError, match=told):
        choose(["runner_one"], {"A"}, TABLE)


def test_a_worker_refuses_what_was_not_planned(install: Install) -> None:
    planned = OpPackage("runner_one", "1.0", (("runner_one/a.so", "0" * 64),))
    with pytest.raises(
        ModelError, match=r"runner_one is not installed here: pip install runner_one==1\.0, here and on"
    ):
        list(libraries(options(planned)))
    install("runner_one")
    with pytest.raises(ModelError, match=r"a\.so': it is another one here \(SHA-256 \w{12}, planned 000000000000\)"):
        list(libraries(options(planned)))
    newer = OpPackage("runner_one", "1.1", planned.libraries)
    with pytest.raises(ModelError, match=r"runner_one 1\.0 is installed here, and 1\.1 was planned"):
        list(libraries(options(newer)))


@pytest.mark.parametrize(
    ("requires", "installed", "told"),
    [
        (["tensorflow<2.22,>=2.21.0"], "2.21.0", ""),
        (["tensorflow<2.22,>=2.21.0"], "2.22.0rc0", "tensorflow<2.22,>=2.21.0"),
        (["tensorflow<2.22,>=2.21.0"], "2.20.0", "tensorflow<2.22,>=2.21.0"),
        (["tensorflow==2.21.0"], "2.21.1", ""),
        (["tensorflow==2.21.0"], "2.22.0", "tensorflow==2.21.0"),
        (["tensorflow==2.22.0"], "2.22.0rc0", ""),
        (["numpy", "tensorflow-cpu (~=2.14.0) ; extra == 'tensorflow-cpu'"], "2.21.0", ""),
        (["not a requirement !", "tf_nightly>=2.23"], "2.21.0", "tf_nightly>=2.23"),
        ([], "2.21.0", ""),
    ],
)
def test_what_a_package_states_decides_whether_it_fits(requires: list[str], installed: str, told: str) -> None:
    assert for_another(requires, installed) == told


def test_naming_a_package_trusts_the_ops_that_the_table_has_of_it_and_no_others() -> None:
    assert trusted_ops([]) == {}
    assert trusted_ops(["ydf-tf", "unknown"]).keys() >= {"SimpleMLInferenceOpWithHandle"}
    assert "RougeL" not in trusted_ops(["ydf_tf"])
