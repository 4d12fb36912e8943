"""Models that other frameworks exported give, through the runner, what their own framework answers on the same rows.

What is typed for each beside paths is what the table of runner/README.md says, and no more.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import origins
import pytest
import yaml
from rich.console import Console

import runner
from runner.cli.view.model import render
from runner.model.saved_model import read_model
from runner.scan.program import read_programs

README = Path(__file__).parents[2] / "runner" / "README.md"


def table() -> dict[str, list[str]]:
    """Origin -> how it is exported, what is typed, what `show` says, what it was compared with."""
    section = README.read_text(encoding="utf-8").partition("\n## Origins\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {name: cells for name, *cells in rows[2:]}


def typed(cell: str) -> dict[str, Any]:
    """'`signature: a`, extra `text`' -> {'signature': 'a'}: of the section `model`."""
    keys = [text for text in re.findall("`([^`]+)`", cell) if ": " in text]
    return {key: value for text in keys for key, value in yaml.safe_load(text).items()}


TABLE = table()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, origins.Origin]:
    folder = tmp_path_factory.mktemp("origins")
    origins.write(folder)
    return origins.read(folder)


def there(written: dict[str, origins.Origin], name: str) -> origins.Origin:
    if missing := written[name].missing:
        pytest.skip(f"{missing} is not installed, or not for this TensorFlow")
    return written[name]


def test_the_table_names_each_that_is_written(written: dict[str, origins.Origin]) -> None:
    assert set(TABLE) == set(written)


@pytest.mark.parametrize("name", TABLE)
def test_it_answers_as_its_own_framework_does(
    name: str, written: dict[str, origins.Origin], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    origin = there(written, name)
    assert origins.difference(origin.answers().slice(1), origin.answers().slice(0, origins.ROWS - 1)), "rows differ"
    result = runner.run(origin.sections(tmp_path / "out", **typed(TABLE[name][1])), in_process=True, progress=False)
    assert origins.difference(result.dataset().to_table(), origin.answers()) == ""
    assert runner.verify(tmp_path / "out").holds


@pytest.mark.parametrize("name", TABLE)
def test_show_says_what_it_is(name: str, written: dict[str, origins.Origin]) -> None:
    said = shown(there(written, name).model)
    for words in re.findall('"([^"]+)"', TABLE[name][2]):
        assert words in said
    assert "may change" not in said, "all of them answer a row alike however often it is asked"


def shown(model: Path) -> str:
    console, spec = Console(width=500, file=io.StringIO()), read_model(str(model))
    with console.capture() as written:
        console.print(render(spec, programs=read_programs(spec)))
    return " ".join(written.get().split())
