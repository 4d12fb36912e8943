"""The sentence of the design, enforced: `jobs` say what, `connectors` where, `runner` who; imports point one way.

Imports hidden in functions and `import_module("...")` count too. `jobs/examples` are scripts of their own.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("runner", "connectors", "jobs")  # each may import those to its right
FILES = [
    path
    for package in OURS
    for path in sorted((ROOT / package).rglob("*.py"))
    if "examples" not in path.parts and not path.name.endswith("_pb2.py")
]
HOMES = {  # heavy or delicate library -> the only places that may import it
    "tensorflow": ("runner/engine/",),
    "keras": ("runner/engine/",),
    "ray": ("runner/cluster/",),
    "fsspec": ("connectors/store/store.py",),
    "yaml": ("jobs/load.py",),
    "filelock": ("connectors/models/cache.py", "connectors/store/scratch.py"),
    "google_crc32c": ("connectors/formats/record.py",),
    "paramiko": ("connectors/store/host_key.py",),  # what fsspec's SFTP client cannot do: believe known hosts only
}
LIBRARIES = {  # beside the standard library; numpy: the bytes of tf.Examples and of TFRecord files
    "jobs": {"pydantic", "yaml"},
    "connectors": {"pyarrow", "numpy", "fsspec", "paramiko", "filelock", "google_crc32c"},
}
ENTRANCES = ("runner/engine/", "runner/cluster/", "runner/__main__.py")


def _imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything that `source` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield node.lineno, module
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module


def _offence(path: str, module: str) -> str:
    package, name = path.split("/")[0], module.split(".")[0]
    if name in OURS and OURS.index(name) < OURS.index(package):
        return f"{package} may not know {name}"
    if not path.startswith(HOMES.get(name, path)):
        return f"{name} is imported in {' and '.join(HOMES[name])} only"
    if package in LIBRARIES and name not in {*sys.stdlib_module_names, *OURS, *LIBRARIES[package]}:
        return f"{package} does without {name}"
    return ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way_and_each_heavy_library_has_one_home(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = [(line, module, _offence(name, module)) for line, module in _imports(path.read_text(encoding="utf-8"))]
    assert [f"{name}:{line} imports {module}: {why}" for line, module, why in found if why] == []


@pytest.mark.parametrize(
    ("path", "source", "why"),
    [
        ("jobs/job.py", "def f():\n    from connectors import store", "jobs may not know connectors"),
        ("connectors/store/store.py", "import runner.worker.worker", "connectors may not know runner"),
        ("runner/worker/worker.py", "import tensorflow.python as tf", "tensorflow is imported in runner/engine/ only"),
        ("runner/driver/driver.py", "import importlib\nimportlib.import_module('ray.util')", "ray is imported in"),
        (
            "connectors/formats/parquet.py",
            "from fsspec import filesystem",
            "fsspec is imported in connectors/store/store.py only",
        ),
        ("jobs/plan.py", "import numpy", "jobs does without numpy"),
    ],
)
def test_the_rule_sees_what_breaks_it(path: str, source: str, why: str) -> None:
    assert any(why in _offence(path, module) for _, module in _imports(source))


def _modules() -> list[str]:
    names = (path.relative_to(ROOT) for path in FILES)
    light = (name for name in names if not name.as_posix().startswith(ENTRANCES))
    return [".".join(name.with_suffix("").parts).removesuffix(".__init__") for name in light]


def test_neither_tensorflow_nor_ray_is_loaded_by_any_module_that_is_not_its_home() -> None:
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'tensorflow', 'keras', 'ray'} & sys.modules.keys()\n"
        "    assert not heavy, f'{name} loads {heavy}'\n"
    )
    command = [sys.executable, "-c", script, "runner", *_modules()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_alone_loads_nothing_heavy() -> None:
    script = "import sys, runner; print(*{'tensorflow', 'ray', 'pyarrow', 'numpy', 'fsspec'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
