"""`${NAME}` in the texts of a document -> the value of the variable.

Owns how a variable is written, which values there are, and which one wins; refuses to know what a text is for, but that
an option may be a secret. The invariants: what comes out holds no variable, a value that was given is never read for
variables itself, and a message repeats nothing of a document but the names of variables and the paths of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from jobs.document.origin import ENVIRONMENT, Origin, is_found
from jobs.document.parsing import VARIABLES
from jobs.errors import JobError, one_of
from jobs.job import Named
from jobs.section.base import is_literal_secret
from jobs.section.number import Unquoted

_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_FOUND = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")  # '$${' stands for '${'
_MOST_LETTERS = 16 * 2**20  # of all texts that hold variables, as a job file has at most
_REACHED = ("options", "catalog")  # sections that say how a place is reached; they change no row

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


@dataclass(frozen=True, slots=True)
class Resolved:
    """A document without variables.

    problems: all that is wrong. named: the variables that its texts held.
    """

    document: dict[str, Any]
    problems: list[str]
    named: Named


def resolved(document: dict[str, Any], given: Mapping[str, Any], used: set[str], origin: Origin) -> Resolved:
    """The document without its section of variables, each of them replaced by its value.

    given: variable -> value; it wins over the default of the document.
    used:  variables that count as used although nothing of the document names them: a change took their place.
    """
    rest = {key: value for key, value in document.items() if key != VARIABLES}
    defaults = document.get(VARIABLES)
    if not isinstance(defaults, dict | None):
        problem = f"{VARIABLES!r} holds no names of variables; expected `{VARIABLES}: {{NAME: VALUE}}`"
        return Resolved(rest, [problem], Named())
    made = _Resolution(defaults or {}, given, origin)
    rest = made.value(rest, ())
    problems = list(made.problems)
    if made.missing:
        problems.append(_without_value(list(made.missing)))
    named = names(document) | used
    if unused := [name for name in dict.fromkeys([*given, *(defaults or {})]) if name not in named]:
        problems.append(f"no text of the job holds {one_of([f'${{{name}}}' for name in unused])}: leave it out")
    return Resolved(rest, problems, made.named())


def _without_value(missing: list[str]) -> str:
    """How to give a value to each of them."""
    found = [name.removeprefix(ENVIRONMENT) for name in missing if is_found(name)]
    flags = " ".join(f"--var {name}=..." for name in missing if not is_found(name))
    ways = [f"give {flags}, or a default under {VARIABLES!r}"] if flags else []
    ways += [f"set {', '.join(found)} in the environment of the command, to a text that is not empty"] if found else []
    said = "; ".join(ways)
    return f"no value for variable {one_of(missing)}: {said}; a text that is meant as it stands is written '$${{'"


class _Resolution:
    """One document's texts and variables."""

    def __init__(self, defaults: Mapping[str, Any], given: Mapping[str, Any], origin: Origin) -> None:
        self.missing: dict[str, None] = {}
        self.problems: dict[str, None] = {}  # each once
        self._given, self._origin = given, origin
        self._texts: dict[str, str | None] = {name: str(value) for name, value in given.items()}
        self._defaults: dict[str, str] = {}
        self._shown: dict[str, None] = {}  # those that stand in texts which may be shown, in this order
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
        if len(path) > 1 and path[-2] in _REACHED and is_literal_secret(str(path[-1]), text):
            self._refuse_secret(value, path)
        alone = _FOUND.fullmatch(value)
        return Unquoted(text) if alone is not None and alone[1] else text

    def named(self) -> Named:
        """See `Named`; first the variables that the job names itself, last those that stand in their defaults."""
        texts = {name: text for name, text in self._texts.items() if text is not None}
        told = {name: texts[name] for name in self._reached(sorted(self._shown, key=is_found)) if name in texts}
        found = {name: text for name, text in texts.items() if is_found(name)}
        dated = {name: texts[name] for name in self._defaults if name in texts and self._is_dated(name)}
        return Named({**self._origin.told, **told}, found, dated)

    def _reached(self, names: Sequence[str]) -> list[str]:
        """These, and all that stand in defaults which were taken."""
        reached = dict.fromkeys(names)
        queue = [*reached]
        for name in queue:
            inner = _FOUND.findall(self._defaults.get(name, "")) if name not in self._given else ()
            queue += [one for one in inner if one not in reached]
            reached |= dict.fromkeys(inner)
        return [*reached]

    def _is_dated(self, name: str) -> bool:
        return any(is_found(one) and not one.startswith(ENVIRONMENT) for one in self._reached([name]))

    def _refuse_secret(self, value: str, path: Key) -> None:
        """Where it comes from the environment, which a reference names; else the option itself is refused later."""
        for name in _FOUND.findall(value):
            if name.startswith(ENVIRONMENT) and self._texts.get(name):
                self.problems[
                    f"cannot use {'.'.join(map(str, path))!r}: '${{{name}}}' puts the secret itself there; write the"
                    f" reference '{name}', which is read where it is needed"
                ] = None

    def _read(self, found: re.Match[str], path: Key) -> str:
        name = found[1]
        if found[0] == "$${":
            return "${"
        if name is not None and (is_found(name) or re.fullmatch(_NAME, name)):
            if path[:1] != (VARIABLES,) and not any(part in _REACHED for part in path):
                self._shown[name] = None
            return (self._found(name, path) if is_found(name) else self._text(name)) or ""
        if name is not None and (kind := re.match(rf"({_NAME}):", name)):
            what = f"'${{{kind[1]}:...}}'"
        else:
            what = "'${' that no name and no '}' follow"
        self._misspelt(
            path, f"{what}; expected '${{NAME}}', the value of a variable, '${{env:NAME}}' or '${{date:...}}'"
        )
        return ""

    def _found(self, name: str, path: Key) -> str | None:
        """What a variable stands for that no one gives; None where nothing says it."""
        if name not in self._texts:
            try:
                self._texts[name] = self._origin.value(name)
            except ValueError as wrong:
                kind = "env" if name.startswith(ENVIRONMENT) else "date"
                self._misspelt(path, f"'${{{kind}:...}}' {wrong}")
                self._texts[name] = ""
        if self._texts[name] is None:
            self.missing[name] = None
        return self._texts[name]

    def _misspelt(self, path: Key, what: str) -> None:
        self.problems[f"{'.'.join(map(str, path))!r} holds {what}; '$${{' stands for '${{'"] = None

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
