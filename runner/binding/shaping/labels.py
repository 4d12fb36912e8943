"""Labels: what the places of a ranking are called, one a line of a text.

Owns how such a text is read; refuses to know where it lies. The invariant: the first line is place 0, and no line is
lost, so that a label is never another place's.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from jobs.errors import one_of
from jobs.words import counted

MOST_BYTES = 16 * 2**20  # they go to every worker


class Labels(tuple[str, ...]):
    """Labels that were read. origin: for messages. problem: why there are none; ""."""

    origin: str
    problem: str

    def __new__(cls, values: Iterable[str], origin: str, problem: str = "") -> Labels:
        made = super().__new__(cls, values)
        made.origin, made.problem = origin, problem
        return made


def read_labels(content: bytes, origin: str) -> Labels:
    """The labels of a text in UTF-8, with any ends of lines.

    A byte order mark is none of the first, and empty lines at the end are none at all: an empty one between others is.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Labels((), origin, f"line {line} of {origin} is no UTF-8")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return Labels(lines, origin, "" if lines else f"{origin} holds no line")


def labels_digest(labels: Iterable[str]) -> str:
    """SHA-256 in hex of what counts of them: neither ends of lines nor a mark at the beginning."""
    return hashlib.sha256("\n".join(labels).encode("utf-8", "surrogatepass")).hexdigest()


def repeated(labels: Sequence[str]) -> str:
    """Which labels stand for several places, in words; "": none does."""
    twice = [label for label, lines in Counter(labels).items() if lines > 1]
    return f"{counted(len(twice), 'label')} {one_of(twice)}" if twice else ""
