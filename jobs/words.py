"""Counts as words: one shard, two shards. Refuses to know where they are said."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 shard`, `2,000 shards`, `0 copies`. plural: where more than a noun follows, or an odd one."""
    return f"{count:,} {noun if count == 1 else plural or _plural(noun)}"


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
