"""The house, enforced: which folder may import which, where each heavy library lives, and that nothing goes in circles.

Imports hidden in functions, those for types alone and `import_module("...")` count too. `jobs/examples` are scripts of
their own, and `jobs/reference.py` is one that writes a document.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("jobs", "connectors", "runner")
MOST_FILES, MOST_FLOORS = 16, 12
MOST_LINES, MOST_PARAMETERS, MOST_ATTRIBUTES, MOST_METHODS = 60, 10, 30, 25
SUITES = ("pure", "storage", "tf")

FILES = [
    path.relative_to(ROOT).as_posix()
    for package in OURS
    for path in sorted((ROOT / package).rglob("*.py"))
    if "examples" not in path.parts and not path.name.endswith("_pb2.py")
]

# Folder, or file that lies alone -> what it may import beside itself. A folder that no row names may import nothing.
MAY: dict[str, tuple[str, ...]] = {
    "jobs": (),
    "jobs/schedule": ("jobs",),
    "jobs/document": ("jobs", "jobs/reference.py"),
    "jobs/reference.py": ("jobs",),
    "jobs/load.py": ("jobs/document", "jobs"),
    "connectors": (),
    "connectors/secret.py": ("jobs",),
    "connectors/failpoint.py": ("jobs",),
    "connectors/together.py": (),
    "connectors/chain.py": ("jobs",),
    "connectors/store": ("connectors/chain.py", "connectors/together.py", "connectors/secret.py", "jobs"),
    "connectors/formats": ("connectors/store", "connectors/secret.py", "jobs"),
    "connectors/formats/arrow": ("connectors/formats", "connectors/store", "jobs"),
    "connectors/formats/tfrecord": ("connectors/formats", "connectors/store", "connectors/secret.py", "jobs"),
    "connectors/formats/text": ("connectors/formats", "connectors/store", "connectors/secret.py", "jobs"),
    "connectors/formats/typed": ("connectors/formats", "connectors/store", "connectors/secret.py", "jobs"),
    "connectors/formats/media": (
        *("connectors/formats/text", "connectors/formats", "connectors/store", "connectors/secret.py", "jobs"),
    ),
    "connectors/tables": ("connectors/formats", "connectors/store", "connectors/secret.py", "jobs"),
    "connectors/models": ("connectors/store", "connectors/secret.py", "jobs"),
    "connectors/output": (
        *("connectors/formats", "connectors/formats/tfrecord", "connectors/store", "connectors/secret.py"),
        *("connectors/failpoint.py", "jobs"),
    ),
    "connectors/output/look": (
        *("connectors/output", "connectors/formats", "connectors/store", "connectors/secret.py", "jobs"),
    ),
    "runner/tensor.py": (),
    "runner/proto": (),
    "runner/measure": ("jobs/schedule", "jobs"),
    "runner/report": ("runner/measure", "connectors/secret.py", "jobs/schedule", "jobs"),
    "runner/model": (
        *("connectors/models", "connectors/store", "connectors/secret.py"),
        *("runner/tensor.py", "runner/proto", "jobs"),
    ),
    "runner/scan": ("runner/model", "runner/tensor.py", "runner/proto", "jobs"),
    "runner/binding/cast": ("connectors/formats", "runner/tensor.py", "jobs/load.py", "jobs"),
    "runner/binding": (
        *("runner/binding/cast", "runner/model", "connectors/formats", "connectors/formats/tfrecord"),
        *("runner/tensor.py", "jobs"),
    ),
    "runner/engine": (
        *("runner/scan", "runner/model", "runner/tensor.py", "runner/proto"),
        *("connectors/formats/media", "jobs"),  # the headers of pictures
    ),
    "runner/selection": (
        "connectors/formats",
        "connectors/tables",
        "connectors/store",
        "connectors/secret.py",
        "runner/tensor.py",
        "jobs",
    ),
    "runner/batch": (
        *(
            "runner/binding",
            "runner/binding/cast",
            "connectors/output",
            "connectors/secret.py",
            "runner/tensor.py",
        ),
        "jobs",
    ),
    "runner/worker": (
        *("runner/batch", "runner/engine", "runner/binding", "runner/model", "runner/measure", "runner/selection"),
        *("runner/tensor.py", "runner/proto", "connectors/output", "connectors/formats", "connectors/store"),
        *("runner/binding/cast", "connectors/formats/tfrecord", "connectors/tables", "connectors/failpoint.py", "jobs"),
    ),
    "runner/preflight": (
        *("runner/worker", "runner/batch", "runner/engine", "runner/binding", "runner/scan", "runner/model"),
        *("runner/selection", "connectors/tables"),
        *(
            "connectors/output",
            "connectors/output/look",
            "connectors/formats",
            "connectors/formats/media",  # whether headers of pictures can be read
            "connectors/models",
            "connectors/store",
            "connectors/secret.py",
        ),
        *("runner/binding/cast", "runner/tensor.py", "jobs"),
    ),
    "runner/pool": ("runner/worker", "runner/engine", "runner/measure", "jobs/schedule", "jobs"),
    "runner/cluster": (
        *("runner/pool", "runner/worker", "runner/engine", "runner/measure", "connectors/output"),
        *("connectors/secret.py", "jobs/schedule", "jobs"),
    ),
    "runner/driver": (
        *("runner/cluster", "runner/pool", "runner/preflight", "runner/worker", "runner/engine", "runner/model"),
        *(
            "runner/measure",
            "runner/report",
            "connectors/output",
            "connectors/models",
            "connectors/store",
        ),
        *("connectors/secret.py", "connectors/failpoint.py", "jobs/schedule", "jobs"),
    ),
    "runner/compare": ("connectors/output/look", "connectors/secret.py", "jobs"),
    "runner/api.py": (
        *("runner/compare", "runner/driver", "runner/cluster", "runner/preflight", "runner/model", "runner/measure"),
        *(
            "runner/report",
            "connectors/output",
            "connectors/output/look",
            "connectors/models",
            "connectors/store",
            "jobs/load.py",
            "jobs",
        ),
    ),
    "runner/__init__.py": (
        *(
            "runner/api.py",
            "runner/compare",
            "runner/driver",
            "runner/cluster",
            "runner/preflight",
            "runner/model",
            "runner/measure",
        ),
        *("connectors/output", "connectors/output/look", "jobs/load.py", "jobs"),
    ),
    "runner/__main__.py": ("runner/cli",),
    "runner/cli": (
        *(
            "runner/__init__.py",
            "runner/compare",
            "runner/driver",
            "runner/cluster",
            "runner/preflight",
            "runner/engine",
            "runner/scan",
        ),
        *(
            "runner/binding",
            "runner/model",
            "runner/report",
            "runner/tensor.py",
            "connectors/output",
            "connectors/output/look",
        ),
        *("connectors/models", "connectors/formats", "connectors/formats/tfrecord", "connectors/store"),
        *("connectors/secret.py", "jobs/load.py", "jobs/document", "jobs"),
    ),
    "runner/cli/view": (
        *(
            "runner/compare",
            "runner/driver",
            "runner/preflight",
            "runner/scan",
            "runner/binding",
            "runner/model",
            "runner/report",
        ),
        *("runner/tensor.py", "connectors/output", "connectors/output/look", "connectors/secret.py", "jobs"),
    ),
}
MAY["runner/cli"] += ("runner/cli/view",)

# Files that lie in a folder of their own to be found, and share its parent's row: sections of a job build on its words,
# a row for the trial would put one more floor under all that stand on a worker, what an output is shaped into is one
# more thing that it may become; and models, and libraries of ops, are what their neighbours are about.
PART_OF = {
    "jobs/section": "jobs",
    "jobs/rows": "jobs",
    "runner/worker/trial": "runner/worker",
    "runner/binding/picture": "runner/binding",
    "runner/binding/shaping": "runner/binding",
    "runner/preflight/model": "runner/preflight",
    "runner/preflight/input": "runner/preflight",
    "runner/engine/ops": "runner/engine",
    "runner/scan/xla": "runner/scan",
}

HOMES: dict[str, tuple[str, ...]] = {  # heavy or delicate library -> the only places that may import it
    "tensorflow": ("runner/engine/",),
    "keras": ("runner/engine/",),
    "ray": ("runner/cluster/",),
    "fsspec": ("connectors/store/",),
    "yaml": ("jobs/document/",),
    "filelock": ("connectors/models/cache.py", "connectors/store/scratch.py"),
    "google_crc32c": ("connectors/formats/tfrecord/record.py",),
    "PIL": ("connectors/formats/media/picture.py",),
    "paramiko": ("connectors/store/sftp.py",),  # what fsspec's SFTP client cannot do: believe known hosts only
    "azure": ("connectors/store/objects.py",),  # a condition of its client, which fsspec's does not hand on
    "typer": ("runner/cli/",),
    "IPython": ("runner/report/display.py",),
}
LIBRARIES = {  # beside the standard library; numpy: the bytes of tf.Examples and TFRecord files; google: protobuf (ORC)
    "jobs": {"pydantic", "yaml"},
    "connectors": {
        *("pyarrow", "numpy", "fsspec", "paramiko", "azure", "filelock", "google_crc32c", "google"),
        *("PIL", "fastavro", "deltalake", "pyiceberg"),
    },
}
ENTRANCES = ("runner/engine/", "runner/cluster/", "runner/__main__.py")

Imported = tuple[int, str, str]  # line, module, name ("" for a whole module)


def _imports(source: str) -> Iterator[Imported]:
    """Everything that `source` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name, "") for name in names)
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield from ((node.lineno, module, name.name) for name in names)
            case ast.ImportFrom(level=level) if level:
                yield node.lineno, ".", ""
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module, ""


@cache
def _source(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _file(module: str, name: str) -> str:
    """The file of ours that `from module import name` reads, "" where it is none of ours."""
    base = module.replace(".", "/")
    for path in (f"{base}/{name}.py", f"{base}/{name}/__init__.py", f"{base}.py", f"{base}/__init__.py"):
        if "//" not in path and "/." not in path and (ROOT / path).is_file():
            return path
    return ""


def _room(path: str) -> str:
    """The row of MAY that speaks for a file: its own, or its folder's."""
    folder = path.rpartition("/")[0]
    return path if path in MAY else PART_OF.get(folder, folder)


def _offence(path: str, module: str, name: str = "") -> str:
    """Why `path` may not import this; "" where it may."""
    library, package = module.split(".")[0], path.split("/")[0]
    if module == ".":
        return "imports are absolute"
    if library not in OURS:
        if not path.startswith(HOMES.get(library, (path,))):
            return f"{library} is imported in {' and '.join(HOMES[library])} only"
        if package in LIBRARIES and library not in {*sys.stdlib_module_names, *LIBRARIES[package]}:
            return f"{package} does without {library}"
        return ""
    target = _file(module, name)
    if not target:
        return "there is no such module"
    here, there = _room(path), _room(target)
    if here not in MAY:
        return f"no row of MAY names '{here}'"
    if here != there and there not in MAY[here]:
        return f"MAY['{here}'] is {MAY[here]}, without '{there}'"
    if target != path and name.startswith("_") and not name.startswith("__") and target == _file(module, ""):
        return f"'{name}' belongs to {target} alone"
    return ""


def _offences(path: str, source: str) -> list[str]:
    checked = ((line, module, name, _offence(path, module, name)) for line, module, name in _imports(source))
    return [f"{path}:{line} imports {module} {name}: {why}" for line, module, name, why in checked if why]


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_what_the_row_of_its_folder_allows(path: str) -> None:
    assert _offences(path, _source(path)) == []


@pytest.mark.parametrize("path", FILES)
def test_no_file_reaches_for_an_underscore_of_another_module(path: str) -> None:
    tree = ast.parse(_source(path))
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if _file(node.module, alias.name) != _file(node.module, "")
    }
    assert _private_reaches(tree, modules) == []


def _private_reaches(tree: ast.AST, modules: set[str]) -> list[str]:
    """Lines that read `module._name`."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
    ]


@pytest.mark.parametrize(
    ("path", "source", "why"),
    [
        ("jobs/job.py", "def f():\n    from connectors.store import store", "MAY['jobs'] is (), without"),
        ("jobs/job.py", "from jobs.schedule.event import Tick", "MAY['jobs'] is (), without 'jobs/schedule'"),
        ("connectors/store/store.py", "import runner.worker.worker", "MAY['connectors/store'] is"),
        (
            "runner/binding/bind.py",
            "if TYPE_CHECKING:\n    from runner.worker import worker",
            "MAY['runner/binding'] is",
        ),
        ("runner/worker/worker.py", "import tensorflow.python as tf", "tensorflow is imported in runner/engine/ only"),
        ("runner/driver/driver.py", "import importlib\nimportlib.import_module('ray.util')", "ray is imported in"),
        ("connectors/formats/parquet.py", "from fsspec import filesystem", "fsspec is imported in connectors/store/"),
        ("jobs/plan.py", "import numpy", "jobs does without numpy"),
        ("runner/newer/thing.py", "from jobs.job import Job", "no row of MAY names 'runner/newer'"),
        ("runner/driver/launch.py", "from runner.driver.ending import _heading", "'_heading' belongs to"),
        ("runner/driver/launch.py", "from .ending import accounted", "imports are absolute"),
        ("runner/driver/launch.py", "from runner.worker.nothing import x", "there is no such module"),
    ],
)
def test_a_forbidden_import_shows_the_row_that_forbids_it(path: str, source: str, why: str) -> None:
    assert any(why in line for line in _offences(path, source))


# Circles and floors


def _graph(rooms: bool) -> dict[str, set[str]]:
    """File -> files it imports, or the same for the rows of MAY. A package on the way to a module does not count."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        for _, module, name in _imports(_source(path)):
            target = _file(module, name) if module.split(".")[0] in OURS else ""
            here, there = (_room(path), _room(target)) if rooms else (path, target)
            if target and here != there:
                graph.setdefault(here, set()).add(there)
                graph.setdefault(there, set())
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of the graph, as a path that ends where it begins; [] where there is none."""
    state: dict[str, int] = {}
    way: list[str] = []

    def walk(node: str) -> list[str]:
        state[node] = 1
        way.append(node)
        for target in sorted(graph.get(node, ())):
            if state.get(target) == 1:
                return [*way[way.index(target) :], target]
            if target not in state and (met := walk(target)):
                return met
        way.pop()
        state[node] = 2
        return []

    for node in sorted(graph):
        if node not in state and (met := walk(node)):
            return met
    return []


def floors(graph: Mapping[str, set[str]]) -> int:
    """How many folders stand on each other: 1 for one that imports nothing of ours. A file that lies alone is none."""

    @cache
    def height(node: str) -> int:
        below = max((height(below) for below in graph.get(node, ())), default=0)
        return below + (not node.endswith(".py"))

    return max(map(height, graph))


@pytest.mark.parametrize("rooms", [False, True], ids=["files", "folders"])
def test_nothing_imports_in_a_circle(rooms: bool) -> None:
    assert circle(_graph(rooms)) == []


def test_the_house_has_few_floors() -> None:
    assert floors(_graph(rooms=True)) <= MOST_FLOORS


def test_a_circle_and_a_floor_too_many_are_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == 3
    assert floors({"a": {"b.py"}, "b.py": {"c"}, "c": set()}) == 2


# Folders


def _crowded(files: Sequence[str]) -> dict[str, int]:
    """Folders with too many files, `__init__.py` counted."""
    count = Counter(path.rpartition("/")[0] for path in files)
    return {folder: files for folder, files in count.items() if files > MOST_FILES}


def test_a_folder_holds_few_files() -> None:
    assert _crowded(FILES) == {}
    assert _crowded([f"runner/cli/{number}.py" for number in range(17)]) == {"runner/cli": 17}


def _too_large(source: str) -> list[str]:
    """What is too large in a module: functions by lines and parameters, classes by attributes and methods."""
    large = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            named = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            parameters = len([name for name in named if name not in ("self", "cls")])
            if lines > MOST_LINES or parameters > MOST_PARAMETERS:
                large.append(f"{node.name}: {lines} lines, {parameters} parameters")
        elif isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            fields = {
                one.target.id
                for one in node.body
                if isinstance(one, ast.AnnAssign | ast.AugAssign) and isinstance(one.target, ast.Name)
            }
            stored = {
                one.attr
                for one in ast.walk(node)
                if isinstance(one, ast.Attribute)
                and isinstance(one.ctx, ast.Store)
                and isinstance(one.value, ast.Name)
                and one.value.id == "self"
            }
            if len(methods) > MOST_METHODS or len(fields | stored) > MOST_ATTRIBUTES:
                large.append(f"{node.name}: {len(methods)} methods, {len(fields | stored)} attributes")
    return large


def test_no_function_and_no_class_is_too_large() -> None:
    large = {path: sizes for path in FILES if (sizes := _too_large((ROOT / path).read_text()))}
    most = f"{MOST_LINES} lines, {MOST_PARAMETERS} parameters, {MOST_METHODS} methods, {MOST_ATTRIBUTES} attributes"
    assert not large, f"at most {most}"


def test_what_is_too_large_is_seen() -> None:
    body = "\n".join(f"    x{line} = {line}" for line in range(MOST_LINES))
    parameters = ", ".join(f"p{number}" for number in range(MOST_PARAMETERS + 1))
    methods = "\n".join(f"    def m{number}(self): self.a{number % 3} = 1" for number in range(MOST_METHODS + 1))
    attributes = "\n".join(f"    a{number}: int = 0" for number in range(MOST_ATTRIBUTES + 1))
    for source, size in {
        f"def f():\n{body}": f"f: {MOST_LINES + 1} lines, 0 parameters",
        f"def f(self, *, {parameters}): ...": f"f: 1 lines, {MOST_PARAMETERS + 1} parameters",
        f"class C:\n{methods}": f"C: {MOST_METHODS + 1} methods, 3 attributes",
        f"class C:\n{attributes}": f"C: 0 methods, {MOST_ATTRIBUTES + 1} attributes",
    }.items():
        assert _too_large(source) == [size]


def test_every_folder_is_packaged_and_says_its_question() -> None:
    packages = {path.removesuffix("/__init__.py") for path in FILES if path.endswith("/__init__.py")}
    folders = {path.rpartition("/")[0] for path in FILES}
    listed = tomllib.loads(_source("pyproject.toml"))["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({folder.replace("/", ".") for folder in packages | {"jobs/examples"}})
    assert folders == packages, "a folder without __init__.py is in no wheel"
    silent = [f for f in sorted(packages - {*OURS}) if "?" not in (ast.get_docstring(_tree(f)) or "").split("\n")[0]]
    assert silent == [], "the first line of an __init__.py is the question that its folder answers"


def _tree(folder: str) -> ast.Module:
    return ast.parse(_source(f"{folder}/__init__.py"))


def test_every_row_of_the_table_is_of_something_that_exists() -> None:
    rooms = {_room(path) for path in FILES}
    assert set(MAY) == rooms | ({"connectors", "runner/__main__.py"} & set(MAY))
    assert {allowed for row in MAY.values() for allowed in row} <= set(MAY)


# What is loaded


def _modules() -> list[str]:
    light = (path for path in FILES if not path.startswith(ENTRANCES) and path != "jobs/reference.py")
    return [path.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in light]


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


# Tests


def test_no_two_test_files_have_one_name() -> None:
    count = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, files in count.items() if files > 1] == []


def test_a_folder_of_tests_has_the_name_of_the_folder_that_it_tests() -> None:
    """Below tests/pure, tests/storage and tests/tf; what tests several folders at once lies there itself."""
    rooms = {folder.rpartition("/")[2] for folder in MAY if "/" in folder}
    folders = {path.parent.name for suite in SUITES for path in (ROOT / "tests" / suite).glob("*/test_*.py")}
    assert folders <= rooms


def test_the_names_of_a_schema_are_looked_up_and_never_searched() -> None:
    """`schema.names` makes a list of all names each time: in a loop over columns, that is quadratic."""
    searched = [
        f"{path}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(_source(path)))
        if _searches_names(node)
    ]
    assert not searched, "use `runner.binding.naming.count` or `schema.get_all_field_indices`"


def _searches_names(node: ast.AST) -> bool:
    match node:
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Attribute(attr="names", value=holder)]):
            return "schema" in ast.unparse(holder) or "raw" in ast.unparse(holder)
        case ast.Call(func=ast.Attribute(attr="count" | "index", value=ast.Attribute(attr="names"))):
            return True
    return False
