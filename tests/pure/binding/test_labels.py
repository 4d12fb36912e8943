"""Label files as people write them: each line is a place, whatever ends it."""

from __future__ import annotations

import pytest

from runner.binding.shaping.labels import labels_digest, read_labels, repeated


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\ndog", ("cat", "dog")),
        (b"cat\r\ndog\r\n", ("cat", "dog")),
        (b"cat\r\ndog\n\n\r\n\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\ndog\n", ("cat", "dog")),
        (b"cat\n\ndog\n", ("cat", "", "dog")),
        (b"\ncat\n", ("", "cat")),
        (b" cat \n\tdog\n", (" cat ", "\tdog")),
        ("Größe\n\u2028x\n".encode(), ("Größe", "\u2028x")),
        (b"a\x0cb\x0bc\n", ("a\x0cb\x0bc",)),
    ],
    ids=str,
)
def test_a_line_is_a_label(content: bytes, expected: tuple[str, ...]) -> None:
    labels = read_labels(content, "'x.txt'")
    assert (tuple(labels), labels.problem) == (expected, "")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "'x.txt' holds no line"),
        (b"\n\r\n", "'x.txt' holds no line"),
        (b"\xef\xbb\xbf", "'x.txt' holds no line"),
        (b"cat\nd\xf6g\n", "line 2 of 'x.txt' is no UTF-8"),
        ("cat\n".encode("utf-16"), "line 1 of 'x.txt' is no UTF-8"),
    ],
    ids=str,
)
def test_what_is_no_text_of_labels_says_where(content: bytes, problem: str) -> None:
    labels = read_labels(content, "'x.txt'")
    assert (tuple(labels), labels.problem) == ((), problem)


def test_the_digest_is_of_the_labels() -> None:
    lines = [read_labels(content, "") for content in (b"cat\ndog\n", b"\xef\xbb\xbfcat\r\ndog")]
    assert labels_digest(lines[0]) == labels_digest(lines[1]) == labels_digest(["cat", "dog"])
    assert labels_digest(["dog", "cat"]) != labels_digest(["cat", "dog"])


def test_labels_of_several_places_are_named() -> None:
    assert repeated(["crane", "cat", "crane", "maillot", "maillot"]) == "2 labels 'crane', 'maillot'"
    assert repeated(["cat"]) == ""
