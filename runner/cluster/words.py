"""The last words of a worker that died: in the file that Ray keeps of what it printed, on the node where it lived.

Owns where that file is and who reads it; refuses to know what follows. The invariant: only a file that tells of a crash
is believed: a process that was killed from outside says nothing of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.cluster.quiet import NodeAffinitySchedulingStrategy, ray
from runner.engine.quiet import crash_of, last_words, tail


@dataclass(frozen=True, slots=True)
class Home:
    """Where a worker lives, and the file that its standard error goes to; "" where that is none."""

    node_id: str
    log: str


def home() -> Home:
    """Of this process."""
    try:
        log = str(Path("/proc/self/fd/2").readlink())
    except OSError:  # no Linux
        log = ""
    return Home(ray.get_runtime_context().get_node_id(), log if log.startswith("/") else "")


def last_words_of(dead: Home) -> Any:
    """The reference of a sentence on how a worker died; "" where its file tells of no crash."""
    there = NodeAffinitySchedulingStrategy(dead.node_id, soft=False)
    return ray.remote(_read).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(dead.log)


def _read(log: str) -> str:
    """In a task on that node."""
    try:
        file = os.open(log, os.O_RDONLY)
    except OSError:
        return ""
    try:
        text = tail(file)
    finally:
        os.close(file)
    words, signal = last_words(text), crash_of(text)
    return f"it was ended by {signal} at its first calls" + (f" and said: {words}" if words else "") if signal else ""
