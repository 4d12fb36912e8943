"""Valid files, damaged in thousands of ways: bytes flipped, cut out, swapped. Nothing dies, and nothing is silent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from decoding import content

from runner.worker.child import Child, ChildEnded

CASES, AT_ONCE = 1000, 50  # of each of four files
COMPRESSIONS = {"parquet": ("snappy", "zstd"), "arrow": ("none", "zstd")}
# Told by their codes; a row group that is short or long, a page or a batch that does not decode, a file that is none.
CODED = ("FILE_", "PAGE_", "ROWGROUP_", "BATCH_INVALID", "COLUMN_", "MemoryLimitError")


def mutations(whole: bytes, seed: int) -> Iterator[bytes]:
    """Every kind of damage, in a place drawn anew each time; a third of it near the end, where the footer is."""
    draw = random.Random(seed)
    while True:
        data = bytearray(whole)
        first = len(data) - 700 if draw.random() < 0.35 else 0
        at = draw.randrange(max(0, first), len(data))
        match draw.choice(("flip", "flip", "byte", "cut", "truncate", "swap", "zero", "double")):
            case "flip":
                data[at] ^= 1 << draw.randrange(8)
            case "byte":
                data[at] = draw.randrange(256)
            case "cut":
                del data[at : at + draw.randint(1, 40)]
            case "truncate":
                del data[at:]
            case "swap":
                other, size = draw.randrange(len(data)), draw.randint(1, 30)
                data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
            case "zero":
                size = draw.randint(1, 30)
                data[at : at + size] = bytes(size)
            case "double":
                data[at:at] = data[at : at + draw.randint(1, 40)]
        yield bytes(data)


def outcomes(kind: str, files: list[bytes]) -> Iterator[str]:
    """One word for each file; a process that dies of one is told, and the others are decoded by the next."""
    child: Child | None = None
    try:
        for start in range(0, len(files), AT_ONCE):
            waiting = [files[start : start + AT_ONCE]]
            while waiting:
                some = waiting.pop()
                try:
                    child = child or Child("decoding:decoder", kind, memory=2 * 2**30)
                    yield from child.ask(some, 60)
                except ChildEnded as ended:
                    child = None
                    if len(some) == 1:
                        yield f"died: {ended.story}"
                    else:
                        waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
    finally:
        if child is not None:
            child.close()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("compression", [0, 1])
def test_a_damaged_file_gives_equal_rows_or_an_error_with_a_code(kind: str, compression: int) -> None:
    whole = content(kind, COMPRESSIONS[kind][compression])
    source = mutations(whole, seed=compression)
    files = [next(source) for _ in range(CASES)]
    assert list(outcomes(kind, [whole])) == ["equal"]
    found = list(outcomes(kind, files))
    assert len(found) == CASES
    counts = Counter(found)
    allowed = {"equal", "other schema"}  # another schema is told when it is bound
    if kind == "arrow":
        allowed.add("other values")  # Arrow IPC has no checksums: a flipped value is a value
    strange = {word: count for word, count in counts.items() if word not in allowed and not word.startswith(CODED)}
    assert strange == {}, counts
    assert sum(count for word, count in counts.items() if word.startswith(CODED)) > CASES / 4, counts


def test_a_process_that_dies_while_decoding_is_told_with_its_file() -> None:
    """The fuzz itself can go red: a decoder that dies is no success."""
    with pytest.raises(ChildEnded, match="SIGABRT"):
        Child("signal:raise_signal", 6)
