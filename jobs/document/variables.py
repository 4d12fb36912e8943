"""`${NAME}` in the texts of a document -> the value of the variable.

Owns how a variable is written, which values there are, and which one wins; refuses to know what a text is for. The
invariants: what comes out holds no variable, a value that was given is never read for variables itself, and a message
repeats nothing of a document but the names of variables and the paths of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from jobs.document.parsing import VARIABLES
from jobs.errors import JobError, one_of
from jobs.section.number import Unquoted

_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_FOUND = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")  # '$${' stands for '${'
_MOST_LETTERS = 16 * 2**20  # of all texts that hold variables, as a job file has at most

Key = tuple[str | int, ...]


def variables_of(flags: Sequence[str]) -> dict[str, str]:
    """'NAME=VALUE' -> the value of each variable; the last one wins. raises: JobError for what is no such flag."""
    values = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals or not re.fullmatch(_NAME, name):
            raise JobError(f"cannot use the variable {name!r}: expected NAME=VALUE, as 'dt=2026-11-01'")
        values[name] = value
    return values


def names(document: Any) -> set[str]:
    """The variables that stand in the texts of a document, and in the defaults of variables."""
    return {name for text in _texts(document) for name in _FOUND.findall(text) if re.fullmatch(_NAME, name)}


def escaped(value: Any) -> Any:
    """A document whose texts mean what they say, as one where each would be read for variables."""
    if isinstance(value, dict):
        return {key: escaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [escaped(one) for one in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def resolved(document: dict[str, Any], given: Mapping[str, Any], used: set[str]) -> tuple[dict[str, Any], list[str]]:
    """The document without its section of variables, each of them replaced by its value; and all that is wrong.

    given: variable -> value; it wins over the default of the document.
    used:  variables that count as used although nothing of the document names them: a change took their place.
    """
    rest = {key: value for key, value in document.items() if key != VARIABLES}
    defaults = document.get(VARIABLES)
    if not isinstance(defaults, dict | None):
        return rest, [f"{VARIABLES!r} holds no names of variables; expected `{VARIABLES}: {{NAME: VALUE}}`"]
    made = _Resolution(defaults or {}, given)
    rest = made.value(rest, ())
    problems = list(made.problems)
    if made.missing:
        flags = " ".join(f"--var {name}=..." for name in made.missing)
        problems.append(
            f"no value for variable {one_of(list(made.missing))}: give {flags}, or a default"
            f" under {VARIABLES!r}; a text that is meant as it stands is written '$${{'"
        )
    named = names(document) | used
    if unused := [name for name in dict.fromkeys([*given, *(defaults or {})]) if name not in named]:
        problems.append(f"no text of the job holds {one_of([f'${{{name}}}' for name in unused])}: leave it out")
    return rest, problems


class _Resolution:
    """One document's texts and variables."""

    def __init__(self, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self.missing: dict[str, None] = {}
        self.problems: dict[str, None] = {}  # each once
        self._texts: dict[str, str | None] = {name: str(value) for name, value in given.items()}
        self._defaults: dict[str, str] = {}
        self._open: list[str] = []  # whose default is being made
        self._letters = 0
        for name, value in defaults.items():
            if not re.fullmatch(_NAME, name):
                self.problems[f"{name!r} is no name of a variable; expected letters, digits, '_' and '-'"] = None
            elif isinstance(value, list | dict | datetime):
                self.problems[f"'{VARIABLES}.{name}' is no text; expected one value, in quotes"] = None
                self._texts.setdefault(name, "")
            elif value is not None:
                self._defaults[name] = _written(value)

    def value(self, value: Any, path: Key) -> Any:
        if isinstance(value, dict):
            return {key: self.value(one, (*path, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [self.value(one, (*path, index)) for index, one in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        text = _FOUND.sub(lambda found: self._read(found, path), value)
        self._letters += len(text)
        if self._letters > _MOST_LETTERS:
            raise JobError(f"cannot use the variables of the job: they make more than {_MOST_LETTERS:,} characters")
        alone = _FOUND.fullmatch(value)
        return Unquoted(text) if alone is not None and alone[1] else text

    def _read(self, found: re.Match[str], path: Key) -> str:
        name = found[1]
        if found[0] == "$${":
            return "${"
        if name is not None and re.fullmatch(_NAME, name):
            return self._text(name) or ""
        where = ".".join(map(str, path))
        if name is not None and (kind := re.match(rf"({_NAME}):", name)):
            what = f"'${{{kind[1]}:...}}'"
        else:
            what = "'${' that no name and no '}' follow"
        self.problems[
            f"{where!r} holds {what}; expected '${{NAME}}', the value of a variable; '$${{' stands for '${{'"
        ] = None
        return ""

    def _text(self, name: str) -> str | None:
        """What a variable stands for; None where nothing says it."""
        if name in self._texts:
            return self._texts[name]
        if name in self._open:
            self.problems[f"variable {name!r} stands in its own default; give it another one"] = None
            return None
        if name not in self._defaults:
            self.missing[name] = None
            return None
        self._open.append(name)
        self._texts[name] = made = str(self.value(self._defaults[name], (VARIABLES, name)))
        self._open.pop()
        return made


def _written(value: Any) -> str:
    """The text of a default that a document of JSON or a change holds; YAML has it as text already."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else str(value)


def _texts(value: Any) -> Iterator[str]:
    """Every text of a document but its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
