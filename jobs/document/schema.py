"""What a job file may say, as a JSON Schema: editors complete keys by it, and mark what is misspelt.

Keys, types, bounds and defaults come from `jobs.job`, and meanings from `jobs.reference`. The invariant: what the
schema refuses is no job. Short forms are found by trying them, so that one that `jobs.job` learns is in it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from jobs.document.parsing import VARIABLES
from jobs.job import Job
from jobs.reference import meaning, reads, sections, size
from jobs.section.columns import REST
from jobs.section.number import parse_budget, parse_bytes

Schema = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_KEYWORDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_VARIABLE: Schema = {"$ref": "#/$defs/variable"}
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_SIZE: Schema = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?([eE]\+?\d+)?\s*(([KkMmGgTt][Ii]?)?[Bb])?\s*$"}
_SHARE: Schema = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}
_NULL: Schema = {"type": "null"}
# What a short form looks like, its kind, and its schema. Of one kind the first that is taken counts.
_FORMS: tuple[tuple[Any, str, Schema], ...] = (
    ("x", "string", _TEXT),
    ("max", "string", {"const": "max"}),
    (["x"], "array", _TEXTS),
    (None, "null", _NULL),
    (True, "boolean", {"const": True}),
    ({"multiple_of": 8}, "object", {"$ref": "#/$defs/Pad"}),
    ({"x": "x"}, "object", {"type": "object", "additionalProperties": _TEXT}),
)
_SECTIONS = {
    "model": "which SavedModel, and how it is called",
    "models": "several SavedModels that score the same rows in one pass, each under a name: instead of `model`",
    "input": "the rows: files, and how they are read",
    "columns": "which column feeds which tensor, and what is written",
    "output": "where the parts are written, and in which form",
    "workers": "what each worker needs, and how many there are",
    "limits": "how large pieces are, and what may go wrong",
}


def job_schema() -> Schema:
    """The schema of a job file."""
    whole = Job.model_json_schema(by_alias=True)
    definitions: Schema = whole["$defs"]
    for path, section in sections(Job):
        keys = {field.alias or name: field for name, field in section.model_fields.items()}
        definitions[section.__name__] = _object(
            definitions[section.__name__],
            {
                name: _property(section, name, field, described, meaning(f"{path}.{name}"))
                for (name, field), described in zip(
                    keys.items(), (definitions[section.__name__]["properties"][name] for name in keys), strict=True
                )
            },
        )
    properties: Schema = {
        VARIABLES: {
            "description": "variable: value, for `${variable}` in the texts of the job; those that a command gives win."
            " `${env:NAME}` and `${date-1d:%Y-%m-%d}` need no value",
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"},
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        }
    }
    for name, described in whole["properties"].items():
        form = next(one for one in described.get("anyOf", [described]) if one != _NULL)
        if name == "models":
            forms = list(_forms(form))
        else:
            forms = [{"$ref": form["$ref"]}, *(one for one in _short(Job, name, [{"type": "object"}]) if one != _NULL)]
        properties[name] = {"description": _SECTIONS[name], **_alternatives(forms)}
    return {
        "$schema": _DRAFT,
        "title": "A job of savedmodel-runner",
        **_object(whole, properties),
        "oneOf": [{"required": ["model"]}, {"required": ["models"]}],
        "$defs": {**definitions, "variable": {"type": "string", "pattern": r"\$\{"}},
    }


def _object(described: Schema, properties: Schema) -> Schema:
    required = {"required": described["required"]} if "required" in described else {}
    return {"type": "object", "properties": properties, **required, "additionalProperties": False}


def _property(section: type[BaseModel], name: str, field: Any, described: Schema, meaning: str) -> Schema:
    default = described.get("default")
    nullable = {"type": "null"} in described.get("anyOf", ())
    if reads(parse_bytes, field):
        forms = [{"type": "integer", "exclusiveMinimum": 0}, _SIZE, _VARIABLE]
        default = size(default) if default is not None else None
    elif reads(parse_budget, field):
        forms = [{"type": "integer", "minimum": 0}, _SHARE, _VARIABLE]
    else:
        forms = list(_forms(described))
        forms += [form for form in _short(section, name, forms) if form not in forms]
        for form in forms:
            if form.get("type") == "object" and _takes(section, name, {REST: True}):
                form["properties"] = {REST: {"const": True}}
    if nullable and _NULL not in forms:
        forms.append(_NULL)
    shown = {} if default in (None, [], {}) else {"default": default}
    return {"description": meaning, **shown, **_alternatives(forms)}


def _alternatives(forms: list[Schema]) -> Schema:
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _forms(described: Schema) -> Iterator[Schema]:
    """The alternatives of a value in the keywords of JSON Schema, and a variable where one stands for no text."""
    if "anyOf" in described:
        seen: list[Schema] = []
        for one in described["anyOf"]:
            seen += [form for form in _forms(one) if form not in seen]
        yield from seen
        return
    plain = {_KEYWORDS.get(key, key): value for key, value in described.items() if key not in ("title", "default")}
    if plain.get("type") == "array":
        if "minLength" in plain:
            plain["minItems"] = plain.pop("minLength")
        plain["items"] = _one(plain["items"])
    elif isinstance(plain.get("additionalProperties"), dict):
        if "minLength" in plain:
            plain["minProperties"] = plain.pop("minLength")
        plain["additionalProperties"] = _one(plain["additionalProperties"])
    yield plain
    if plain.get("type") in ("integer", "number", "boolean") or "enum" in plain or "const" in plain:
        yield _VARIABLE


def _one(described: Schema) -> Schema:
    """What stands under each name of a map, or in a list."""
    forms = list(_forms(described))
    if "$ref" in described:
        name = described["$ref"].rpartition("/")[2]
        section = next(section for _, section in sections(Job) if section.__name__ == name)
        forms += _taken(lambda value: _valid(section, value) is None, {"object"})
    return _alternatives(forms)


def _short(section: type[BaseModel], name: str, forms: list[Schema]) -> list[Schema]:
    """The short forms of a key that `forms` does not have."""
    if {} in forms:  # anything goes
        return []
    kinds = {"object" if "$ref" in form and form != _VARIABLE else form.get("type", "") for form in forms}

    return _taken(lambda value: _takes(section, name, value), kinds)


def _takes(section: type[BaseModel], name: str, value: Any) -> bool:
    """Whatever the section misses beside it."""
    error = _valid(section, {name: value})
    return error is None or not any(detail["loc"][:1] == (name,) for detail in error.errors(include_url=False))


def _taken(takes: Callable[[Any], bool], kinds: set[str]) -> list[Schema]:
    """The forms that are taken, of kinds that are not there yet."""
    found: dict[str, Schema] = {}
    for value, kind, form in _FORMS:
        if kind not in kinds and kind not in found and takes(value):
            found[kind] = form
    return list(found.values())


def _valid(section: type[BaseModel], value: Any) -> ValidationError | None:
    try:
        section.model_validate(value)
    except ValidationError as error:
        return error
    return None
