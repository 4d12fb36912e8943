"""The exception tree: what survives a trip between processes, and what a message offers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from jobs import errors
from jobs.errors import (
    CapacityError,
    DataError,
    DeviceError,
    InternalError,
    JobError,
    MemoryLimitError,
    ModelCallError,
    OutputError,
    PoisonError,
    RunnerError,
    StoppedError,
    StorageError,
    SupersededError,
    UnreachableError,
    WorkerError,
    offenders,
    one_of,
    out_of_threads,
)

FACTS = {
    "code": "PAGE_CRC",
    "row_group": 4,
    "share": 0.5,
    "message": "a fact of this name",
    "self": "and of this",
    "cls": 1,
}


def _tree(root: type[RunnerError]) -> list[type[RunnerError]]:
    return [root, *(below for child in root.__subclasses__() for below in _tree(child))]


@pytest.mark.parametrize("kind", _tree(RunnerError))
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling_with_its_facts(kind: type[RunnerError], protocol: int) -> None:
    error = kind("no column 'a': it has 'b'", **FACTS)
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
    assert type(again) is kind
    assert (again.message, str(again), again.facts) == (error.message, f"PAGE_CRC: {error.message}", FACTS)
    assert (again.exit_code, again.failure_class) == (kind.exit_code, kind.failure_class)


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ("cannot read 'a'", "FILE_MAGIC", "FILE_MAGIC: cannot read 'a'"),
        ("ROW_NULL: row 4 holds null", "ROW_NULL", "ROW_NULL: row 4 holds null"),
        ("shard 3 would fail again: ROW_NULL: null", "ROW_NULL", "shard 3 would fail again: ROW_NULL: null"),
        ("no room to read", "oom", "oom: no room to read"),
        ("it is gone", None, "it is gone"),
    ],
)
def test_the_text_of_an_error_says_its_code_once(message: str, code: str | None, said: str) -> None:
    assert str(RunnerError(message, **({"code": code} if code else {}))) == said


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (RuntimeError("can't start new thread"), True),
        (OSError("Unknown error: Failed to launch worker thread: Resource temporarily unavailable"), True),
        (RuntimeError("another thread"), False),
    ],
)
def test_a_process_without_threads_lacks_capacity(error: Exception, lacks: bool) -> None:
    refused = out_of_threads(error)
    assert (refused is not None) == lacks
    assert refused is None or (refused.exit_code, refused.facts["resumable"]) == (69, True)


@pytest.mark.parametrize(
    ("error", "condemns", "ends_process"),
    [
        (DeviceError("INTERNAL"), False, True),
        (MemoryLimitError("a row", rows=1), True, True),
        (MemoryLimitError("two rows", rows=2), False, False),
        (MemoryLimitError("no figure"), False, False),
        (StorageError("no answer", rows=1), False, False),
    ],
)
def test_a_sick_device_ends_its_process_and_a_row_too_large_condemns_its_shard(
    error: RunnerError, condemns: bool, ends_process: bool
) -> None:
    assert (error.condemns, error.ends_process) == (condemns, ends_process)


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (JobError("no such column"), 2, False),
        (DataError("a null", code="ROW_NULL"), 65, False),
        (OutputError("does not hold", exit_code=65), 65, False),
        (CapacityError("no cluster"), 69, True),
        (StorageError("no answer"), 70, True),
        (UnreachableError("nobody there"), 69, True),
        (WorkerError("a node was lost"), 70, True),
        (MemoryLimitError("no room"), 70, True),
        (ModelCallError("the same batch fails again"), 70, False),
        (PoisonError("no process survives it"), 70, False),
        (InternalError("a check of our own"), 70, False),
        (RunnerError("the driver said 2", exit_code=2), 2, False),
        (SupersededError("another one took over"), 75, True),
        (StoppedError("a signal", exit_code=143), 143, True),
    ],
)
def test_an_error_says_whether_to_run_the_same_command_again(error: RunnerError, code: int, retry: bool) -> None:
    assert (error.ends_with, error.retry) == (code, retry)


@pytest.mark.parametrize("kind", _tree(RunnerError))
def test_every_error_is_a_document_of_plain_values(kind: type[RunnerError]) -> None:
    facts = {"code": "PAGE_CRC", "row_group": 4, "where": Path("a"), "share": 0.5, "exit_code": 77}
    document = json.loads(json.dumps(kind("cannot read 'a'", **facts).document()))
    assert document == {
        "code": "PAGE_CRC",
        "class": kind.__name__,
        "message": "PAGE_CRC: cannot read 'a'",
        "exit_code": 77,
        "retry": kind("", exit_code=77).retry,
        "facts": {"row_group": 4, "where": "a", "share": 0.5},
    }
    assert kind("it is gone").document()["code"] is None


def test_the_tree_is_the_one_drawn_at_the_top_of_the_file() -> None:
    drawing = (errors.__doc__ or "").splitlines()
    codes = {0: 70}
    for line in drawing:
        if "──" not in line:
            continue
        branch, _, words = line.partition("── ")
        name, *rest = words.split()
        depth = 1 + len(branch) // 4
        codes[depth] = int(rest[0]) if rest[0].isdigit() else codes[depth - 1]
        assert getattr(errors, name).exit_code == codes[depth], name
    drawn = " ".join(drawing)
    assert [
        kind.__name__ for kind in _tree(RunnerError) if kind.__module__ == "jobs.errors" and kind.__name__ not in drawn
    ] == []


def test_the_choices_begin_with_the_nearest_name_and_end_after_ten() -> None:
    names = [f"column_{index}" for index in range(30)] + ["user_id"]
    assert one_of(names, "user_ids").startswith("'user_id', 'column_0', ")
    assert one_of(names).endswith("'column_9' and 21 more")
    assert one_of(["a", "b"]) == "'a', 'b'"
    assert one_of([]) == "none"


def test_offenders_are_listed_a_line_each_and_counted_beyond_twenty() -> None:
    lines = offenders([f"problem {index}" for index in range(25)]).splitlines()
    assert lines[0] == "  - problem 0"
    assert lines[-1] == "  - and 5 more"
    assert len(lines) == 21
