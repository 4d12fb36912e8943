"""What the pages show of job files is taken as it is printed: each fragment as part of a job, each block as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from jobs.document.parsing import parse
from jobs.document.schema import job_schema
from jobs.document.variables import names
from jobs.errors import JobError
from jobs.load import load_job

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "jobs/README.md", "connectors/README.md", "runner/README.md", "CONTRIBUTING.md"]
_FENCE = re.compile(r"^ *```(?P<info>[^\n`]*)\n(?P<body>.*?)^ *```[ \t]*$", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"\{?[a-z_]+: ")

EDITOR = Draft202012Validator(job_schema())  # takes whatever is a job

Placed = Callable[[dict[str, Any]], dict[str, Any]]


def _rule(fragment: dict[str, Any]) -> dict[str, Any]:
    fed = {} if fragment.keys() & {"stack", "example", "constant"} else {"column": "c"}
    return {"columns": {"inputs": {"t": fed | fragment}}}


# Where a fragment may stand: as it is, under a section, or as the rule of a tensor, or inside of that.
PLACES: list[Placed] = [
    lambda fragment: fragment,
    *(
        lambda fragment, section=section: {section: fragment}  # type: ignore[misc]
        for section in ("model", "input", "columns", "output", "workers", "limits")
    ),
    _rule,
    lambda fragment: _rule({"example": {"columns": ["c"]} | fragment}),
    lambda fragment: {"columns": {"outputs": {"t": fragment}}},
    lambda fragment: {"input": {"schema": fragment}},
    *(lambda fragment, table=table: {"input": {table: "t"} | fragment} for table in ("delta", "iceberg")),  # type: ignore[misc]
]


def refusals(fragment: dict[str, Any]) -> list[str]:
    """Why no job can hold `fragment`; none where one can."""
    whys = []
    for placed in PLACES:
        document: dict[str, Any] = {"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}}
        if "models" in placed(fragment):  # instead of one
            del document["model"]
        for section, keys in placed(fragment).items():
            both = isinstance(keys, dict) and isinstance(document.get(section), dict)
            document[section] = document[section] | keys if both else keys
        given_input = placed(fragment).get("input", {})
        if {"delta", "iceberg"} & given_input.keys():  # instead of a url
            del document["input"]["url"]
        if named := document.get("vars"):  # each is to stand somewhere
            document["output"] = {"url": "/".join(f"${{{name}}}" for name in named)}
        given = dict.fromkeys(names(document) - set(named or ()), "1")
        try:
            text = yaml.safe_dump(document)
            load_job(text, "a recipe", vars=given)
            EDITOR.validate(parse(text, "a recipe"))
            return []
        except JobError as error:
            whys.append(error.message)
    return whys


def fragments(text: str) -> Iterator[str]:
    """What stands between backticks and is a map of keys, as a job file has them."""
    for found in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
        if _KEY.match(found):
            yield found.replace("\\|", "|")


def _written() -> list[tuple[str, str]]:
    return [(page, found) for page in PAGES for found in dict.fromkeys(fragments((ROOT / page).read_text("utf-8")))]


@pytest.mark.parametrize(("page", "fragment"), _written())
def test_a_fragment_is_taken_as_it_is_printed(page: str, fragment: str) -> None:
    read = yaml.safe_load(fragment)
    assert isinstance(read, dict), f"{page} shows `{fragment}`, which is no YAML of keys and values"
    assert refusals(read) == [], f"{page} shows `{fragment}`"


def test_the_pages_show_fragments_and_a_wrong_one_is_seen() -> None:
    assert len(_written()) > 40
    text = (
        'Write `{inputs: {example: {columns: [age, "f*"]}}}`, or `gpus: 2`; not `env:NAME`, `{index, value}`, `a b: c`.'
    )
    wrong, right = fragments(text)
    assert refusals(yaml.safe_load(right)) == []
    assert any("'example' is a key of a tensor" in why for why in refusals(yaml.safe_load(wrong)))
    assert refusals({"features": {"stack": "f*"}}), "it does not say where it stands"


@pytest.mark.parametrize("page", PAGES)
def test_a_block_that_is_a_job_file_is_one(page: str) -> None:
    for found in _FENCE.finditer((ROOT / page).read_text("utf-8")):
        if found["info"].startswith("yaml"):
            read = yaml.safe_load(found["body"])
            if read.keys() >= {"model", "input", "output"}:
                load_job(found["body"], page)
                EDITOR.validate(parse(found["body"], page))
            else:
                assert refusals(read) == [], f"{page}:\n{found['body']}"
