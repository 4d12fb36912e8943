"""Text -> a document of plain values: YAML or JSON, with the keys as they were written.

Owns how large a document may be, and that nothing in it is run; refuses to know what a key means, but for `vars`, whose
values are texts. The invariant: of two equal keys none wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from typing import Any

import yaml

from jobs.errors import JobError
from jobs.section.number import Unquoted

# Of a job file. The deepest key of a job lies 7 levels down, and a constant has as many as its tensor.
DEEPEST = 64
MOST_VALUES = 2_000_000  # each alias counted as all that it stands for: a million urls, and as many again
VARIABLES = "vars"  # the section of variables, in which a value is the text that was written

_MOST_DIGITS = 1000  # Python refuses to read more than 4,300. A longer number is infinite here, which no key takes.


class _Loader(yaml.SafeLoader):
    """YAML in which every key is the text that was written, and which does not grow beyond `MOST_VALUES` and `DEEPEST`.

    Keys of a job are names. Plain YAML reads the key `null` as nothing, `on` as true and `1` as a number, and
    lets the second of two equal keys win.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes: dict[str, int] = {}  # anchor -> the values below it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before, anchor = self._values, event.anchor
        if isinstance(event, yaml.AliasEvent):
            # Of an anchor that is not complete: it would hold itself.
            self._values += self._sizes.get(anchor, MOST_VALUES if anchor in self.anchors else 1)
        else:
            self._values += 1
        self._depth += 1
        if self._depth > DEEPEST or self._values > MOST_VALUES:
            found = f"{DEEPEST} levels deep" if self._depth > DEEPEST else f"{MOST_VALUES:,} values, aliases counted in"
            raise yaml.composer.ComposerError(None, None, f"it is more than {found}", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._sizes[anchor] = self._values - before
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        for key, section in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value == VARIABLES and isinstance(section, yaml.MappingNode):
                section.value = [(name, _as_written(value)) for name, value in section.value]
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        return float("inf") if len(node.value) > _MOST_DIGITS else int(self.construct_yaml_int(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                problem = f"key {key.value!r} is given twice; give it once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
            key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _as_written(node: yaml.Node) -> yaml.Node:
    """A value as the text that stands there: 1.10, 007 and 2026-11-01 are no numbers and no day."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        return node
    return yaml.ScalarNode("tag:yaml.org,2002:str", node.value, node.start_mark, node.end_mark, node.style)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("!exponent", lambda loader, node: Unquoted(node.value))
_Loader.add_implicit_resolver(
    "!exponent", re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]{1,4}$"), [*"-+.0123456789"]
)


def parse(text: str, what: str) -> Any:
    if text.lstrip().startswith("{"):  # JSON, which YAML takes too, but for tabs; `{a: b}` alone is YAML only
        try:
            document = json.loads(
                text,
                object_pairs_hook=lambda pairs: _unique(pairs, what),
                parse_int=lambda digits: float("inf") if len(digits) > _MOST_DIGITS else int(digits),
            )
        except json.JSONDecodeError:
            pass
        except RecursionError:
            raise too_deep(what) from None
        else:
            if _deeper(document, DEEPEST):
                raise too_deep(what)
            return document
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = where + ", ".join(filter(None, [error.context, error.problem]))
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # An impossible date, or a tag on what is no such value, is an error of the code that would make it.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise JobError(f"cannot read {what}: {reason}; expected YAML or JSON")


def too_deep(what: str) -> JobError:
    return JobError(f"cannot read {what}: it is more than {DEEPEST} levels deep; expected a job")


def _deeper(value: Any, levels: int) -> bool:
    """Whether sections and lists lie in each other more than so many levels deep."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(one, levels - 1) for one in inner)


def _unique(pairs: Sequence[tuple[str, Any]], what: str) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise JobError(f"cannot read {what}: key {key!r} is given twice; give it once")
        mapping[key] = value
    return mapping
