"""The command that was typed, and the one that continues what it began.

Refuses to know what a run does. The invariant: what is said to continue a run removes nothing that the run finished,
and works where it is read: a run that was submitted is continued where it was submitted from.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import get_args, get_type_hints

from connectors.secret import redact

_ONCE = ("--overwrite", "--takeover")  # they begin anew, or end another driver: what follows shall do neither


def typed() -> str:
    """The command that runs, as one types it in a shell."""
    return shlex.join(["runner", *sys.argv[1:]])


def pinned(dated: Mapping[str, str]) -> list[str]:
    """The flags by which the typed command means the same on another day. dated: variable -> value, see `Named`."""
    return [word for name, text in dated.items() for word in ("--var", f"{name}={text}")]


def to_continue(*flags: type, dated: Mapping[str, str] | None = None) -> str:
    """The command that continues this run, without secrets. flags: the dataclasses that the command's flags are of.

    dated: as for `pinned`: what was begun before midnight is continued after it.

    RUNNER_COMMAND wins: `runner submit` sets it to what was typed there, because this process was started with the name
    of a file that only the cluster has.
    """
    try:
        words = shlex.split(os.environ.get("RUNNER_COMMAND", ""))
    except ValueError:  # set by somebody else, and no command of a shell
        words = []
    words = words or ["runner", *sys.argv[1:], *pinned(dated or {})]
    return redact(shlex.join(without(words, _ONCE, valued(*flags))))


def without(words: Sequence[str], dropped: Collection[str], takers: Collection[str]) -> list[str]:
    """`words` of a command line but for the flags in `dropped`, however often they are there.

    takers: options whose value is the next word, which stays whatever it looks like, as do the words behind `--`.
    """
    kept: list[str] = []
    is_value = False
    for at, word in enumerate(words):
        if word == "--" and not is_value:
            return kept + list(words[at:])
        if is_value or word not in dropped:
            kept.append(word)
        is_value = not is_value and word in takers
    return kept


def valued(*flags: type) -> set[str]:
    """The options of dataclasses of flags that take a value, as they are typed."""
    names: set[str] = set()
    for group in flags:
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            kind, *about = get_args(hints[field.name])
            # typer keeps the first name of an option where its default is, until the command is made.
            said = [word for one in about for word in (one.default, *(one.param_decls or ()))]
            declared = [word for word in said if isinstance(word, str) and word.startswith("-")]
            if kind is not bool:
                names.update(declared or [f"--{field.name.replace('_', '-')}"])
    return names
