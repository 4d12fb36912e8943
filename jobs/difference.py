"""Where two plan documents differ, in the words of a job file: the answer to "why is this output refused?"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.words import counted

_LONGEST = 80  # characters of a value that a message shows


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first field in which the plan `now` is not the plan `then`; "" where they are equal.

    then, now:  `Plan.document()`.
    returns:    "columns.keep: ['id'] then, [] now", "input file 's3://in/a' changed: size 10 then, 12 now".
    """
    return next(_differences(then, now), "")


def other_variables(then: Mapping[str, Any], now: Mapping[str, str]) -> str:
    """The variables that were others when the plan was made, as far as both are known: "dt: '1' then, '2' now"."""
    changed = (name for name in now if name in then and then[name] != now[name])
    return ", ".join(f"{name}: {_shown(then[name])} then, {_shown(now[name])} now" for name in changed)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    yield from _fields("protocol", then.get("protocol"), now.get("protocol"))
    yield from _fields("", then.get("identity"), now.get("identity"))
    yield from _files(then.get("files") or [], now.get("files") or [])
    cuts = then.get("shards") or [], now.get("shards") or []
    if cuts[0] != cuts[1]:
        yield f"limits.shard_bytes or limits.shard_rows: {counted(len(cuts[0]), 'shard')} then, {len(cuts[1])} now"


def _fields(name: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _fields(f"{name}.{key}" if name else key, then.get(key), now.get(key))
    elif json.dumps(then, sort_keys=True) != json.dumps(now, sort_keys=True):
        yield f"{name}: {_shown(then)} then, {_shown(now)} now"


def _files(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> Iterator[str]:
    before, after = ({file["url"]: file for file in files} for files in (then, now))
    for url in sorted({*before, *after}):
        if url not in after:
            yield f"input file '{url}' was part of the input then, and is not now"
        elif url not in before:
            yield f"input file '{url}' is new"
        else:
            yield from _file(url, before[url], after[url])


def _file(url: str, then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for field in ("size", "version"):
        if then[field] != now[field]:
            yield f"input file '{url}' changed: {field} {then[field]} then, {now[field]} now"
    if [group[0] for group in then["row_groups"]] != [group[0] for group in now["row_groups"]]:
        yield f"input file '{url}' changed: its row groups hold other numbers of rows"
    elif then["row_groups"] != now["row_groups"]:
        yield f"columns: other columns of input file '{url}' are read"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
