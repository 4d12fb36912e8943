"""What the README files say, tried out: commands and Python run, links lead somewhere, the first page is short.

Every `console` and every `python` block is run, in the order of its file, in a folder that holds what `make demo`
prepares and a copy of `jobs/examples`; a `yaml` block whose first line is `# NAME.yaml` is a file of that name there.
Each command, and each Python block, is a process of its own and ends with 0; the last command of a block with N, if the
block's info string or the comment above it says `exit N`. What a block shows beside commands are excerpts: their words
are in the output of the block, numbers and names may differ. A block under a comment `<!-- not run: reason -->` is not
run; Python is compiled all the same.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import runner

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "jobs/README.md", "connectors/README.md", "runner/README.md", "CONTRIBUTING.md"]
LINKING = [*PAGES, "CHANGELOG.md", "tests/README.md", "deploy/README.md", "benchmarks/RESULTS.md"]
FEWEST_WORDS, MOST_WORDS = 600, 900  # of README.md: a page that is read to its end

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!--(?P<text>(?:(?!-->).)*)-->\s*\Z", re.DOTALL)
_CODE = re.compile(
    r"(FILE|PAGE|ROWGROUP|ROW|RECORD|BATCH|COLUMN|MODEL|PART|TABLE|DUPLICATE|EXTENSION|UNTRUSTED|ALL)_[A-Z0-9]+(_[A-Z]+)*"
    r"|NO_(INPUT|RANGES)|INPUT_TABLE|PARTITION|MAX_(BAD_FILES|REJECTED_ROWS)"
)
_RUN = ("console", "python")
_REASON = re.compile(r"\s*not run:(?P<reason>.*)", re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block. info: what stands behind the fence. comment: the HTML comment right above it, "" if none."""

    page: str
    line: int
    info: str
    comment: str
    body: str

    @property
    def language(self) -> str:
        return (self.info.split() or [""])[0]

    @property
    def skipped(self) -> bool:
        return self.comment.lstrip().startswith("not run")

    @property
    def commands(self) -> list[str]:
        """What stands behind `$`, with the lines that a backslash continues."""
        whole = self.body.replace("\\\n", " ")
        return [line[2:].strip() for line in whole.splitlines() if line.startswith("$ ")]

    @property
    def shown(self) -> list[str]:
        """The lines that are excerpts of the output."""
        whole = self.body.replace("\\\n", " ")
        return [line for line in whole.splitlines() if line.strip() and not line.startswith("$ ")]

    @property
    def exit_code(self) -> int:
        """Of the last command."""
        stated = re.search(r"\bexit (\d+)\b", f"{self.info} {self.comment}")
        return int(stated[1]) if stated else 0


def blocks(page: str, text: str) -> list[Block]:
    made = []
    for found in _FENCE.finditer(text):
        above = _COMMENT.search(text[: found.start()])
        margin = len(found["indent"])
        body = "".join(line[margin:] if line.strip() else line for line in found["body"].splitlines(keepends=True))
        line = text.count("\n", 0, found.start()) + 1
        made.append(Block(page, line, found["info"].strip(), above["text"] if above else "", body))
    return made


def _pages(names: list[str]) -> dict[str, str]:
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).is_file()}


def _written(language: str) -> list[Block]:
    return [block for page, text in _pages(PAGES).items() for block in blocks(page, text) if block.language == language]


def _place(block: Block) -> str:
    return f"{block.page}:{block.line}"


def words(text: str) -> int:
    """What stands between white space and holds a letter or a digit; tables count, fences and comments do not."""
    plain = re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.DOTALL)
    return sum(re.search(r"\w", word) is not None for word in plain.split())


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# commands


@dataclass
class Folder:
    """Where the blocks of one page run. `ran`: what each block that has run printed and how its commands ended."""

    path: Path
    environment: dict[str, str]
    ran: dict[int, list[tuple[str, int, str]]] = field(default_factory=dict)

    def run(self, block: Block) -> list[tuple[str, int, str]]:
        """(command, exit code, output) of each command of the block; once, however often it is called for."""
        if block.line not in self.ran:
            calls = (
                [(block.body, [sys.executable, "-c", block.body])]
                if block.language == "python"
                else [(command, ["bash", "-o", "pipefail", "-c", command]) for command in block.commands]
            )
            self.ran[block.line] = [self._call(*call) for call in calls]
        return self.ran[block.line]

    def _call(self, command: str, arguments: list[str]) -> tuple[str, int, str]:
        done = subprocess.run(
            arguments,
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=110,
        )
        return command, done.returncode, done.stdout


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `make demo` prepares, and with the examples."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "jobs" / "examples", folder / "jobs" / "examples")
    prepare = [sys.executable, "-m", "jobs.examples.digits", "prepare", "--folder", "demo"]
    done = subprocess.run(prepare, cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def folder_of(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folder]:
    """folder_of(page): one for each page. The home folder is another one, and so are the copies of models in it."""
    made: dict[str, Folder] = {}

    def folder(page: str) -> Folder:
        if page not in made:
            path = tmp_path_factory.mktemp("page") / "folder"
            shutil.copytree(demo, path)
            home = tmp_path_factory.mktemp("home")
            ours = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}
            path_variable = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            made[page] = Folder(path, ours | {"PATH": path_variable, "HOME": str(home), "COLUMNS": "200"})
        return made[page]

    return folder


def _prepare(folder: Folder, page: str, before: int) -> None:
    """Do what stands above line `before`: write the files that the page shows, run its commands."""
    for block in blocks(page, (ROOT / page).read_text(encoding="utf-8")):
        if block.line >= before or block.skipped:
            continue
        if block.language == "yaml" and (named := re.match(r"# ([\w.-]+\.yaml)\b", block.body)):
            (folder.path / named[1]).write_text(block.body, encoding="utf-8")
        elif block.language in _RUN:
            folder.run(block)


def _missing(excerpt: str, output: str) -> list[str]:
    """Words of an excerpt that the output lacks: plain ones, in whatever their case, no numbers, paths or hashes."""
    printed = set(re.findall(r"[^\W\d_]+", output))
    plain = (word.strip("'\"`.,:;()[]%") for word in excerpt.split())
    return [word for word in plain if re.fullmatch(r"[^\W\d_]+", word) and word not in printed]


@pytest.mark.parametrize("block", _written("console"), ids=_place)
def test_a_console_block_does_what_the_page_says_or_names_why_it_is_not_run(
    block: Block, folder_of: Callable[[str], Folder]
) -> None:
    assert block.commands, f"{_place(block)}: no line of this block begins with '$ '"
    if block.skipped:
        _check_reason(block)
        return
    folder = folder_of(block.page)
    _prepare(folder, block.page, block.line)
    ended = folder.run(block)
    expected = [0] * (len(ended) - 1) + [block.exit_code]
    wrong = [
        f"$ {command}\n{output}\nexit {code}, expected {wanted}"
        for (command, code, output), wanted in zip(ended, expected, strict=True)
        if code != wanted
    ]
    assert not wrong, f"{_place(block)}\n" + "\n".join(wrong)
    printed = "\n".join(output for _, _, output in ended)
    absent = {line: missing for line in block.shown if (missing := _missing(line, printed))}
    assert not absent, f"{_place(block)} shows what was not printed: {absent}; printed was\n{printed}"


@pytest.mark.parametrize("block", _written("python"), ids=_place)
def test_a_python_block_runs_or_names_why_it_is_not_run(block: Block, folder_of: Callable[[str], Folder]) -> None:
    if block.skipped:
        _check_reason(block)
        return
    folder = folder_of(block.page)
    _prepare(folder, block.page, block.line)
    ((_, code, output),) = folder.run(block)
    assert code == 0, f"{_place(block)}\n{output}"


def _check_reason(block: Block) -> None:
    reason = _REASON.fullmatch(block.comment)
    assert reason, f"{_place(block)}: expected '<!-- not run: reason -->', found '{block.comment.strip()}'"
    assert reason["reason"].strip(), f"{_place(block)}: 'not run' needs a reason"


def test_a_block_is_read_with_its_comment_its_commands_and_its_exit_code() -> None:
    text = (
        "A page.\n\n<!-- not run: needs a cluster -->\n```console\n$ runner jobs list\n```\n\nText.\n\n"
        "```console exit 2\n$ runner scan \\\n    model  # why\nrefused: 3 ops\n```\n\n"
        "<!-- exit 65 -->\n```console\n$ false\n```\n"
    )
    first, second, third = blocks("page", text)
    assert (first.skipped, first.commands, first.line) == (True, ["runner jobs list"], 4)
    assert (second.skipped, second.exit_code, second.shown) == (False, 2, ["refused: 3 ops"])
    assert second.commands == ["runner scan      model  # why"]
    assert (third.exit_code, third.comment.strip()) == (65, "exit 65")
    assert _missing("refused: 7 ops in 'a/b'", "refused: 3 ops in x") == []
    assert _missing("refused: 7 nodes", "refused: 3 ops") == ["nodes"]
    assert words("# Two words\n\n<!-- none -->\n```\nnone\n```\n| a | b |\n| --- | --- |") == 4
    assert headings("# What happens to bad rows?\n## `run`, and more") == {"what-happens-to-bad-rows", "run-and-more"}


# pages


@pytest.mark.parametrize("page", LINKING)
def test_every_link_of_a_page_leads_to_a_file_and_to_a_heading_of_it(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    dead = []
    for target in _LINK.findall(re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in headings(path.read_text(encoding="utf-8"))):
            dead.append(target)
    assert dead == []


def test_the_first_page_is_short_and_names_how_to_begin() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert FEWEST_WORDS <= words(text) <= MOST_WORDS
    assert "make demo" in text
    assert "make test" in text


def test_every_folder_of_modules_is_on_the_map_of_the_house_and_no_other() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## The map of the house\n")[2]
    listed = re.findall(r"^\| `([\w/]+)/` \|", section.partition("\n## ")[0], flags=re.MULTILINE)
    folders = {str(path.parent.relative_to(ROOT)) for path in _modules()}
    assert len(listed) == len(set(listed))
    assert set(listed) == {"jobs"} | folders - {"connectors", "runner", "jobs/examples"}


@pytest.mark.parametrize("page", ["jobs/README.md", "connectors/README.md", "runner/README.md"])
def test_a_reference_begins_with_its_contents_in_the_order_of_its_headings(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    contents = text.partition("Contents:")[2].partition("\n\n")[0]
    titles = re.findall(r"^## +(.+?) *$", _FENCE.sub("", text), flags=re.MULTILINE)
    listed = [target.removeprefix("#") for target in _LINK.findall(contents)]
    assert listed == [anchor for title in titles for anchor in headings(f"## {title}")]


def test_every_code_that_the_product_knows_is_in_the_table_of_codes_and_no_other() -> None:
    sources = [path.read_text(encoding="utf-8") for path in _modules()]
    texts = [node.value for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    text = (ROOT / "connectors/README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)` \|", text.partition("\n## Codes\n")[2].partition("\n## ")[0], flags=re.MULTILINE)
    assert {text for text in texts if isinstance(text, str) and _CODE.fullmatch(text)} <= set(table)
    assert [code for code in table if not any(code in source for source in sources)] == []
    assert len(table) == len(set(table))


def test_every_key_of_the_documents_is_in_the_table_of_documents(folder_of: Callable[[str], Folder]) -> None:
    page = "jobs/README.md"  # its commands leave outputs, one of them with rejected rows
    folder = folder_of(page)
    _prepare(folder, page, before=sys.maxsize)
    text = (ROOT / "connectors/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text.partition("\n## The documents\n")[2].partition("\n## ")[0]))
    made = [path for success in folder.path.glob("*/_SUCCESS") for path in success.parent.rglob("*") if path.is_file()]
    keys = {name: set[str]() for name in ("_SUCCESS", ".json", ".parquet")}
    for path in made:
        if path.suffix in (".parquet", ".rejects"):
            footer = pq.read_schema(path) if path.parent.name == "rejects" else None
            header = json.loads((pq.read_metadata(path).metadata or {})[b"runner.commit"])
            keys[".parquet"] |= {*header, *(footer.names if footer is not None else ())}
        elif (path.suffix or path.name) in keys:
            document = json.loads(path.read_text(encoding="utf-8"))
            parts = document.get("parts")
            listed = parts if isinstance(parts, list) else []
            keys[path.suffix or path.name] |= {*document, *(key for part in listed for key in part)}
    assert all(keys.values())
    assert {key for some in keys.values() for key in some} - named == set()


def _modules() -> list[Path]:
    return [path for package in ("jobs", "connectors", "runner") for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_targets_that_the_makefile_has(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = re.findall(r"(?:`|^\$ )make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(named) <= targets


def test_the_map_names_every_folder_of_the_house() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    homes = [
        path.parent for package in ("jobs", "connectors", "runner") for path in (ROOT / package).glob("*/__init__.py")
    ]
    folders = {f"{home.relative_to(ROOT).as_posix()}/" for home in homes} - {"jobs/examples/"}
    assert set(re.findall(r"^\| `((?:jobs|connectors|runner)/\w+/)` \|", text, flags=re.MULTILINE)) == folders


@pytest.mark.parametrize("block", _written("python"), ids=_place)
def test_a_python_block_compiles_and_names_only_what_there_is(block: Block) -> None:
    compile(block.body, _place(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    tree = ast.parse(block.body)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="runner"), attr=name):
                assert hasattr(runner, name), f"{_place(block)}: there is no 'runner.{name}'"
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in (
                "runner",
                "jobs",
                "connectors",
            ):
                there = importlib.import_module(module)
                absent = [alias.name for alias in names if not hasattr(there, alias.name)]
                assert not absent, f"{_place(block)}: there is no {absent} in '{module}'"
