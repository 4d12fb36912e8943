"""Our generated messages load beside every TensorFlow and Ray that we take: the table of runner/README.md, held."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from google.protobuf import runtime_version

ROOT = Path(__file__).parents[2]
MESSAGES = sorted(path for top in ("runner", "connectors") for path in (ROOT / top).rglob("*_pb2.py"))
WANTS = re.compile(r"(>=|<)([\d.]+)")

Version = tuple[int, ...]


def number(text: str) -> Version:
    """Three numbers, as protobuf counts."""
    parts = [int(part) for part in text.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def table() -> dict[str, list[str]]:
    """Package -> lowest, its protobuf, tested, its protobuf."""
    text = (ROOT / "runner" / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Versions")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {name: cells for name, *cells in rows[2:]}


def generated_for(path: Path) -> Version:
    found = re.search(
        r"ValidateProtobufRuntimeVersion\(\s*[\w.]+,\s*(\d+),\s*(\d+),\s*(\d+),\s*'(\w*)'", path.read_text()
    )
    assert found is not None, f"{path.name} does not say for which version it was generated"
    assert found[4] == "", "a release, no candidate"
    return tuple(int(part) for part in found.group(1, 2, 3))


def taken(wanted: str, it: Version) -> bool:
    return all(it >= number(bound) if sign == ">=" else it < number(bound) for sign, bound in WANTS.findall(wanted))


def lowest(name: str) -> str:
    """The bound in pyproject.toml, which has to be the only one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (found,) = [need for need in project["dependencies"] if re.match(rf"{name}\b(?!-)", need)]
    sign, bound = re.fullmatch(rf"{name}(>=)([\d.]+)", found).groups()  # type: ignore[union-attr]
    assert sign == ">="
    return str(bound)


def test_the_messages_load_with_the_lowest_protobuf_that_is_taken() -> None:
    assert len(MESSAGES) >= 3
    said = re.search(r"are generated for ([\d.]+),", (ROOT / "runner" / "README.md").read_text(encoding="utf-8"))
    assert said is not None
    assert {generated_for(path) for path in MESSAGES} == {number(said[1])}
    assert all(generated_for(path) <= number(lowest("protobuf")) for path in MESSAGES)


@pytest.mark.parametrize("name", ["tensorflow", "ray", "protobuf"])
def test_the_table_of_versions_says_what_is_taken_and_tested(name: str) -> None:
    row = table()[name]
    assert row[0] == lowest(name)
    pinned = re.search(rf"^{name}==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    assert row[2] == pinned[1]


@pytest.mark.parametrize("name", ["tensorflow", "ray"])
def test_what_a_package_asks_of_protobuf_leaves_one_that_loads_the_messages(name: str) -> None:
    row, ours = table()[name], max(map(generated_for, MESSAGES))
    for wanted in (row[1], row[3]):
        # Any version that satisfies both bounds will do: the higher of the two is one, if nothing is below it.
        bounds = [number(bound) for sign, bound in WANTS.findall(wanted) if sign == ">="]
        assert taken(wanted, max([ours, number(lowest("protobuf")), *bounds])), f"{name}: {wanted}"
    assert taken(row[3], number(table()["protobuf"][2])), "the one that is tested"


@pytest.mark.parametrize("name", ["tensorflow", "ray"])
def test_what_is_installed_asks_of_protobuf_what_the_table_says(name: str) -> None:
    try:
        installed, needs = version(name), requires(name) or []
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    wanted = next(need.removeprefix("protobuf") for need in needs if need.startswith("protobuf") and ";" not in need)
    if installed == table()[name][2]:
        assert sorted(WANTS.findall(wanted)) == sorted(WANTS.findall(table()[name][3]))
    assert taken(wanted, number(version("protobuf"))), f"{name} {installed}: {wanted}"
    assert max(map(generated_for, MESSAGES)) <= number(version("protobuf"))


def test_a_runtime_refuses_what_is_newer_than_itself_by_a_patch_and_takes_what_is_older() -> None:
    major, minor, patch = number(version("protobuf"))[:3]
    check = runtime_version.ValidateProtobufRuntimeVersion
    for older in ((major, minor, patch), (major - 1, 0, 0)):
        check(runtime_version.Domain.PUBLIC, *older, "", "x.proto")
    with pytest.raises(runtime_version.VersionError):
        check(runtime_version.Domain.PUBLIC, major, minor, patch + 1, "", "x.proto")
