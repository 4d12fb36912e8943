"""Text -> Job: YAML or JSON, overrides, flags. Owns how a mistake in a job is said to its author.

Refuses to know stores: a job file lies on this machine. Relative paths inside a job stay as written, so they are
relative to the current directory and not to the job file. The invariant: all that is wrong is said at once, and no
value under `options` and no URL that holds a secret is ever repeated in a message.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from jobs.document import variables
from jobs.document.origin import Origin
from jobs.document.parsing import DEEPEST, VARIABLES, parse, too_deep
from jobs.errors import JobError, offenders, one_of
from jobs.job import Job, read_with
from jobs.section.base import Beside, Change, Missing, Section, long_form, refuse_with, under
from jobs.section.canonical import canonical
from jobs.section.columns import misplaced
from jobs.section.input import Input
from jobs.section.output import Output

_FLAGS = "the command line"
_PYTHON = ""  # a job that has no name, and needs none: its author has it before them
_SEVERAL = "models"  # whose keys are those of `model`, and of `columns.inputs`
_FLAGGED = tuple(("input", name) for name in ("where", "limit", "sample", "only_rejects"))  # keys that have a flag
_MOST_TEXT = 16 * 2**20  # characters of a job file: a device has no end

Key = tuple[str | int, ...]


def load_job(
    text: str,
    name: str,
    overrides: Sequence[Change] = (),
    base: str | None = None,
    vars: Mapping[str, object] | None = None,
    origin: Origin | None = None,
) -> Job:
    """The Job that `text` describes.

    text:      YAML or JSON.
    name:      of the file, for messages; "": it is in none.
    overrides: 'KEY=VALUE' with a dotted key (see `dotted`) and a YAML value: 'workers.count=2', 'columns.keep=[a, b]'.
               The last one wins. A short form on the way is the section that it stands for: `age: years` is
               `age: {column: years}`. In Python also {dotted key: value}.
    base:      folder or URL that relative URLs start from; None: they stay as written.
    vars:      variable -> value, for `${variable}` in a text of the job; it wins over a default under 'vars'.
    origin:    what `${env:NAME}` and `${date:FORMAT}` are made of; None: the environment and the time of this process.
    raises:    JobError listing every problem with its key path.
    """
    what = f"job file {name!r}" if name else "the text of the job"
    document = parse(text, what)
    if not isinstance(document, dict):
        raise JobError(f"cannot use {what}: it is {_kind(document)}; expected {one_of(_keys(()))}")
    job = _job(document, name, overrides, vars or {}, origin)
    return job if base is None else _based(job, base)


def job_from(
    model: str,
    input: Sequence[str],
    output: str,
    signature: str | None = None,
    maps: Sequence[str] = (),
    outputs: Sequence[str] = (),
    keep: Sequence[str] = (),
    overrides: Sequence[Change] = (),
    vars: Mapping[str, object] | None = None,
    origin: Origin | None = None,
) -> Job:
    """The Job that flags alone describe.

    maps:    'TENSOR=COLUMN', or 'TENSOR=f0,f1' to stack several columns into one input. As in CSV, a name with a comma
             stands in double quotes, and so does the empty name.
    outputs: 'TENSOR', or 'TENSOR=COLUMN' to rename one; none: all.
    vars, origin: as for `load_job`; without vars, no text holds a variable.
    keep:    what `columns.keep` lists, with commas between, as in CSV; 'NEW=COLUMN' to rename one.
    raises:  JobError listing every problem.
    """
    inputs: dict[str, Any] = {}
    for tensor, text in _pairs(maps):
        columns = _unquoted(text)
        inputs[tensor] = columns[0] if len(columns) == 1 else {"stack": columns}
    renamed = [flag if "=" in flag else f"{flag}={flag}" for flag in outputs]
    document: dict[str, Any] = {
        "model": {"url": model} | ({"signature": signature} if signature is not None else {}),
        "input": {"url": list(input)},
        "columns": {"inputs": inputs, "outputs": dict(_pairs(renamed)) or None, "keep": _kept(keep)},
        "output": {"url": output},
    }
    return _job(document, _FLAGS, overrides, vars, origin)


def read_text(path: str | Path) -> str:
    """The text of a job file, which may be a pipe of the shell. raises: JobError if it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(_MOST_TEXT + 1)
        if len(text) > _MOST_TEXT:
            raise OSError(f"it has more than {_MOST_TEXT:,} characters")
        return text
    except (OSError, ValueError) as error:
        raise JobError(f"cannot read job file '{path}': {error}; expected a YAML file") from error


class _Reader:
    """See `jobs.job.Reader`."""

    def read(self, source: str | Path, overrides: Sequence[Change], vars: Mapping[str, object]) -> Job:
        if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
            return load_job(source, _PYTHON, overrides, vars=vars)
        if not isinstance(source, str | Path):
            raise JobError(f"cannot read a job from {_kind(source)}: expected the path of a job file, or its text")
        return load_job(read_text(source), str(source), overrides, vars=vars)

    def changed(self, job: Job, changes: Sequence[Change]) -> Job:
        document = job.model_dump(mode="json", exclude_unset=True, by_alias=True)
        if job.input.held is not None:
            document["input"] = job.input
        return _validated(document, _PYTHON, _changed(document, changes)).naming(job.named)


def _refusal(section: type[Section], error: ValidationError, given: Mapping[str, Any]) -> JobError:
    place = next((tuple(home.split(".")) for home in _places(section)), ())
    document: dict[str, Any] = dict(given)
    for name in reversed(place):
        document = {name: document}
    return _refused(_problems(error, document, _PYTHON, {}, place), _PYTHON)


read_with(_Reader())
refuse_with(_refusal)


def output_from(url: str, options: Sequence[str] = ()) -> Output:
    """The output that a command looks at. options: 'NAME=VALUE' of its store. raises: JobError."""
    return job_from("-", ["-"], url, overrides=[f"output.options.{option}" for option in options]).output


def job_document(job: Job) -> dict[str, Any]:
    """The job as plain JSON values without what is at its default; `Job.model_validate` is the inverse."""
    return job.model_dump(mode="json", exclude_defaults=True, by_alias=True)


def job_text(job: Job) -> str:
    """A job file that says `job`, with nothing left to be filled in; `load_job` is the inverse."""
    return canonical(variables.escaped(job_document(job)))


def _job(
    document: dict[str, Any],
    name: str,
    overrides: Sequence[Change],
    given: Mapping[str, object] | None = None,
    origin: Origin | None = None,
) -> Job:
    """given: the values of variables; None: a text holds none."""
    used = variables.names(document)
    for section in ("model", "input", "output"):
        if section in document:
            document[section] = long_form(document[section])
    if isinstance(document.get("models"), dict):
        document["models"] = {name: long_form(model) for name, model in document["models"].items()}
    changed = _changed(document, overrides)
    if given is None:
        return _validated(document, name, changed)
    resolved = variables.resolved(document, given, used, origin or Origin.current())
    if resolved.problems:
        raise _refused(resolved.problems, name)
    return _validated(resolved.document, name, changed).naming(resolved.named)


def _changed(document: dict[str, Any], changes: Sequence[Change]) -> dict[Key, str]:
    """Put all of them into `document`; returns their key paths, each with the flag that made the change."""
    made: dict[Key, str] = {}
    for change in changes:
        if isinstance(change, str):
            made[_override(document, change)] = "--set"
        elif isinstance(change, Mapping):
            paths = [_put(document, _split(f"{key}=")[0], value) for key, value in change.items()]
            made |= {path: f"--{path[-1]}".replace("_", "-") if path in _FLAGGED else "--set" for path in paths}
        else:
            raise JobError(f"cannot change the job by {_kind(change)}: expected 'KEY=VALUE', or {{KEY: value}}")
    return made


def _validated(document: dict[str, Any], name: str, changed: Mapping[Key, str]) -> Job:
    try:
        return Job.model_validate(document)
    except ValidationError as error:
        raise _refused(_problems(error, document, name, changed), name) from None


def _refused(problems: Sequence[str], name: str) -> JobError:
    what = "cannot use the job" if name in (_FLAGS, _PYTHON) else f"cannot use job file {name!r}"
    if len(problems) == 1:
        return JobError(f"{what}: {problems[0]}")
    return JobError(f"{what}: {len(problems)} problems\n{offenders(problems)}")


def _pairs(flags: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for flag in flags:
        tensor, _, column = flag.partition("=")
        if not tensor or not column:
            raise JobError(f"cannot use the mapping {flag!r}: a side is missing; expected 'TENSOR=COLUMN'")
        if tensor in dict(pairs):
            raise JobError(f"cannot use the mapping {flag!r}: tensor {tensor!r} is mapped twice; map it once")
        pairs.append((tensor, column))
    return pairs


def _kept(flags: Sequence[str]) -> list[Any]:
    kept = [item.partition("=") for flag in flags for item in _unquoted(flag)]
    return [{name: column} if equals else name for name, equals, column in kept]


def _unquoted(text: str) -> list[str]:
    """'a,"b,c"' -> 'a' and 'b,c'."""
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error:  # a name that begins with a quotation mark
        return text.split(",")


def _based(job: Job, base: str) -> Job:
    def join(url: str) -> str:
        whole = "://" in url or url.startswith(("/", "~")) or re.match(r"\w+::[/~]", url)  # 'zip::/path' too
        return url if whole else f"{base.rstrip('/')}/{url}"

    return job.of_models(lambda model: {"url": join(model.url)}).model_copy(
        update={
            "input": job.input.model_copy(update=_moved(job.input, join)),
            "output": job.output.model_copy(update={"url": join(job.output.url)}),
        }
    )


def _moved(input: Input, join: Callable[[str], str]) -> dict[str, Any]:
    if not input.is_table:
        return {"url": tuple(map(join, input.url))}
    return {"delta" if input.delta else "iceberg": join(url) for url in input.places}


# Overrides


# A step of a dotted key: as in CSV, a name with a dot, an equals sign or a quotation mark stands in double quotes.
_QUOTE = '"'
_STEP = r'\s*(?:"(?:[^"]|"")*"\s*|[^."=\s][^.=]*)'
_OVERRIDE = re.compile(rf"({_STEP}(?:\.{_STEP})*)=")


def dotted(*path: str) -> str:
    """The key of an override: 'columns.inputs.age.cast', 'columns.inputs."user.age".cast'."""
    return ".".join(
        f'"{step.replace(_QUOTE, 2 * _QUOTE)}"' if re.search(r'[.="\s]|^$', step) else step for step in path
    )


def _split(override: str) -> tuple[tuple[str, ...], str]:
    """The path and the value of 'KEY=VALUE'. raises: JobError, without the value, which may be a secret."""
    if match := _OVERRIDE.match(override):
        steps = [step.strip() for step in re.findall(_STEP, match[1])]
        names = (step[1:-1].replace(2 * _QUOTE, _QUOTE) if step.startswith(_QUOTE) else step for step in steps)
        return tuple(names), override[match.end() :]
    key, equals, _ = override.partition("=")
    found = "no '=' is in it" if not equals else "a name before '=' is empty, or in quotes that do not end"
    shown = f"{key}=..." if equals else key
    raise JobError(f"cannot use the override {shown!r}: {found}; expected KEY=VALUE, as 'workers.count=2'")


# What stands for a section where it is text alone: the key that it is the value of. "*": any tensor.
_SHORT: dict[tuple[str, ...], str] = {
    ("columns", "inputs", "*"): "column",
    ("columns", "inputs", "*", "pad"): "to",
    ("columns", "outputs", "*"): "column",
}


def _opened(path: Key, value: Any) -> Any:
    """The section that a short form stands for; other values as they are."""
    if path == ("columns", "outputs") and isinstance(value, str | list):
        return {name: {} for name in ([value] if isinstance(value, str) else value) if isinstance(name, str)}
    path = _as_columns(path)
    named = ("columns", path[1], "*", *path[3:]) if len(path) > 2 and path[0] == "columns" else path
    key = _SHORT.get(tuple(map(str, named)))
    return {key: value} if key is not None and isinstance(value, str) else value


def _as_columns(path: Key) -> Key:
    """The path of what is said the same way under `columns`, of an input of one of several models."""
    return ("columns", *path[2:]) if path[:1] == ("models",) and path[2:3] == ("inputs",) else path


def _override(document: dict[str, Any], override: str) -> tuple[str, ...]:
    """Put one 'KEY=VALUE' into `document`; returns the key path."""
    path, text = _split(override)
    key = dotted(*path)
    if len(path) > DEEPEST:
        raise too_deep(f"the override {key[:80]!r}")
    return _put(document, path, parse(text, f"the value of override {key!r}"))


def _put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> tuple[str, ...]:
    """Put `value` at `path`; returns the path."""
    key = dotted(*path)
    if path[:-1] == ("models",) or (len(path) == 1 and path[0] in ("model", "input", "output")):
        value = long_form(value)
    if path == ("models",) and isinstance(value, dict):
        value = {name: long_form(model) for name, model in value.items()}
    section = document
    for depth, name in enumerate(path[:-1], start=1):
        section[name] = {} if section.get(name) is None else _opened(path[:depth], section[name])
        section = section[name]
        if not isinstance(section, dict):
            at = dotted(*path[:depth])
            raise JobError(
                f"cannot use the override {key!r}: {at!r} is no section but {_kind(section)}; override {at!r} whole"
            )
    section[path[-1]] = value.joined(section.get(path[-1])) if isinstance(value, Beside) else value
    return path


# Problems


def _problems(
    error: ValidationError, document: dict[str, Any], name: str, changed: Mapping[Key, str], place: Key = ()
) -> list[str]:
    """One line per key that is wrong, in the order of the sections. place: of what was checked, in `document`."""
    by_path: dict[Key, list[Any]] = {}
    for found in error.errors(include_url=False):
        detail = found | {"loc": (*place, *found["loc"])}
        by_path.setdefault(_path(detail, document), []).append(detail)
    lines = []
    for path, details in by_path.items():
        if any(len(other) > len(path) and other[: len(path)] == path for other in by_path):
            continue  # an alternative that was not meant: the problem lies deeper
        unknown = details[0]["type"] == "extra_forbidden"  # maybe a section that an override made
        made = (key for key in changed if path[: len(key)] == key or (unknown and key[: len(path)] == path))
        source = changed.get(next(made, ()), name) if name else name
        lines.append(f"{source}: " * bool(source) + _problem(path, details, document))
    return lines


def _path(detail: Any, document: Any) -> Key:
    """The key path of a problem: pydantic's location without the names of the alternatives it tried."""
    if isinstance(missing := detail.get("ctx", {}).get("error"), Missing):
        return (missing.key,)
    path: list[str | int] = []
    at = document
    for item in detail["loc"]:
        if (isinstance(at, dict) and item in at) or (isinstance(at, list) and isinstance(item, int) and item < len(at)):
            path.append(item)
            at = at[item]
        elif detail["type"] == "missing" and item == detail["loc"][-1]:
            path.append(item)
    return tuple(path)


def _problem(path: Key, details: Sequence[Any], document: Any) -> str:
    key, detail, value = dotted(*map(str, path)), details[0], _at(document, path)
    if detail["type"] == "extra_forbidden":
        return _unknown(path, detail["loc"])
    at = _as_columns(path)
    if len(at) == 3 and at[0] == "columns" and (hint := misplaced(str(at[1]), str(at[2]))):
        return f"cannot use {key!r}: {hint}"
    if detail["type"] == "missing" or isinstance(detail.get("ctx", {}).get("error"), Missing):
        return f"{key!r} is missing; no job goes without it"
    if detail["type"] == "value_error" and not path:  # of the job itself
        return str(detail["ctx"]["error"])
    if detail["type"] == "value_error":  # a sentence of ours, which knows what may be shown
        return f"cannot use {key!r}: {detail['ctx']['error']}"
    expected = " or ".join(dict.fromkeys(_expected(alternative) for alternative in details))
    if detail["type"] == "model_type" and (path in (("model",), ("input",), ("output",)) or path[:-1] == ("models",)):
        table = path == ("input",) and not isinstance(value, str | int | float | list | dict | None)
        expected = (
            f"its url, {expected}, or a table of pandas, Polars or pyarrow" if table else f"its url, or {expected}"
        )
    if detail["type"] == "string_type" and not isinstance(value, dict | list | None):
        expected += ", in quotes"
    return f"{key!r} is {_kind(value) if 'options' in path else _shown(value)}; expected {expected}"


def _unknown(path: Key, location: Key) -> str:
    *sections, name = map(str, path)
    known = _keys(location[:-1])
    owner = repr(".".join(sections)) if sections else "a job"
    near = get_close_matches(name, known, n=1)
    homes = list(dict.fromkeys(_homes(name)))
    said = f"{name!r} is no key of {owner}; "
    sections = [*map(str, _as_columns(tuple(sections)))]
    hint = misplaced(*sections[1:]) if len(sections) == 3 else ""
    # A tensor may have such a name, too; then this key is nearly one of its rule.
    if hint and (not near or any(home.endswith(f".TENSOR.{sections[2]}") for home in homes)):
        return said + hint
    if near:
        said += f"did you mean {near[0]!r}?" + " " * bool(homes)
    if homes:
        return f"{said}{name!r} is a key of {' and '.join(repr(home) if home else 'the job itself' for home in homes)}"
    return said if near else f"{said}it has {one_of(known)}"


def _homes(name: str, section: type[BaseModel] = Job, path: str = "") -> Iterator[str]:
    """The paths of the sections that have a key of this name."""
    if name in _names(section):
        yield path
    for key, field in _names(section).items():
        if key != _SEVERAL and (inner := _section_in(field.annotation)) is not None:
            below, named = inner
            yield from _homes(name, below, f"{path}.{key}".lstrip(".") + under(key) * named)


def _places(wanted: type[Section], section: type[BaseModel] = Job, path: str = "") -> Iterator[str]:
    """Where sections of that type stand in a job."""
    for key, field in sorted(_names(section).items(), key=lambda named: named[0] == _SEVERAL):
        if (inner := _section_in(field.annotation)) is not None:
            below, named = inner
            place = f"{path}.{key}".lstrip(".") + under(key) * named
            yield from [place] if below is wanted else _places(wanted, below, place)


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le:,}",
    "int_type": "a whole number",
    "literal_error": "{expected}",
    "model_type": "keys and values",
    "string_too_short": "some text",
    "string_type": "text",
    "too_short": "at least {min_length}",
    "tuple_type": "a list",
}


def _expected(detail: Any) -> str:
    said: str = detail["msg"].removeprefix("Input should be ")
    return _EXPECTED.get(detail["type"], said).format_map(detail.get("ctx", {}))


def _keys(location: Key) -> list[str]:
    """The keys of the section at `location`, which may name tensors and alternatives in between."""
    section: type[BaseModel] = Job
    tensor = False  # whether the next item is the name of one
    for item in location:
        field = None if tensor else section.model_fields.get(str(item))
        tensor = False
        if field is not None and (inner := _section_in(field.annotation)) is not None:
            section, tensor = inner
    return [*_names(section), *([VARIABLES] if section is Job else [])]


def _names(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a section as a job file has them."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section_in(annotation: Any, named: bool = False) -> tuple[type[BaseModel], bool] | None:
    """The section that a key holds, and whether it stands in a map, under the names of tensors."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, named
    named = named or get_origin(annotation) is dict
    return next((inner for one in get_args(annotation) if (inner := _section_in(one, named))), None)


def _at(document: Any, path: Key) -> Any:
    for item in path:
        document = document.get(item) if isinstance(document, dict) else document[item]
    return document


def _shown(value: Any) -> str:
    """A scalar as it is written, quoted and cut; anything else by its kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float) and value != "":
        return repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}..."
    return _kind(value)


def _kind(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value):
        return "empty"
    if isinstance(value, list | dict) and not value:
        return "an empty list" if isinstance(value, list) else "an empty section"
    kinds = {dict: "a section", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a {type(value).__name__}")
