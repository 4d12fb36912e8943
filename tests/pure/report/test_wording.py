"""Messages in the words of Python: no message that the API may raise names a flag of the command line."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import runner
from jobs.errors import Interrupted, OutputError
from runner.report.wording import in_python, python_words

ROOT = Path(__file__).parents[3]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
ELSEWHERE = (
    "runner/cli/",
    "runner/report/wording.py",
    "runner/report/page.py",
    "runner/report/style.py",
    "jobs/examples/",
    "jobs/reference.py",
)


def _texts(tree: ast.AST) -> Iterator[str]:
    """Every text with a space in it, a docstring apart; what is filled in is an X."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | inside:
            yield node.value


def _messages() -> list[str]:
    files = [path for package in ("jobs", "connectors", "runner") for path in sorted((ROOT / package).rglob("*.py"))]
    ours = [path for path in files if not path.relative_to(ROOT).as_posix().startswith(ELSEWHERE)]
    return [text for path in ours for text in _texts(ast.parse(path.read_text("utf-8"))) if FLAG.search(text)]


def test_no_message_names_a_flag_once_it_is_in_the_words_of_python() -> None:
    told = [in_python(text) for text in _messages() if " " in text]
    assert len(told) >= 9, "there are such messages, or this test looks in the wrong place"
    others = re.compile(r"ray status --address|`runner submit|`tar [^`]*`")  # flags of other commands
    left = [text for text in told if FLAG.search(others.sub("", text))]
    assert left == [], "add the flag to FLAGS in runner/report/wording.py, and its argument to runner.run"


def test_the_arguments_that_messages_name_are_those_of_the_functions() -> None:
    named = {name for text in _messages() for name in re.findall(r"(\w+)=True", in_python(text))}
    known = {*inspect.signature(runner.run).parameters, *inspect.signature(runner.submit).parameters}
    assert named - known == {"trust"}, "and `trust` is one of `runner.Model`"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("replace it with --overwrite", "replace it with overwrite=True"),
        ("with --address HOST:6379 or --address auto", "with address='HOST:6379' or address='auto'"),
        ("cannot read 'a--overwrite' (or -x--takeover)", "cannot read 'a--overwrite' (or -x--takeover)"),
        ("see: runner rejects out/a", "see: `runner.rejects('out/a')`"),
        ("see 'runner verify'; then", "see `runner.verify(...)`; then"),
        ("run the same command to continue", "make the same call again to continue"),
        ("job.yaml: --set: 'a' is no key", "job.yaml: override: 'a' is no key"),
    ],
)
def test_what_a_message_advises_is_what_can_be_written(text: str, said: str) -> None:
    assert in_python(text) == said
    assert in_python(said) == said


def test_an_error_keeps_its_class_its_facts_and_its_trace() -> None:
    @python_words()
    def fail() -> None:
        raise OutputError("it is taken: --takeover", code="x", epoch=3)

    with pytest.raises(OutputError) as refused:
        fail()
    assert refused.value.message == "it is taken: takeover=True"
    assert refused.value.args == ("it is taken: takeover=True",)
    assert refused.value.facts == {"code": "x", "epoch": 3}


def test_ctrl_c_is_told_and_is_no_exception_that_a_loop_would_swallow() -> None:
    @python_words("interrupted; it goes on")
    def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        work()
    assert type(stopped.value) is Interrupted
    assert not isinstance(stopped.value, Exception)
    assert stopped.value._render_traceback_()[-1] == "Interrupted: interrupted; it goes on"
