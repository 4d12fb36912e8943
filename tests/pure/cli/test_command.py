"""The command that is said to continue a run: what it leaves out, and what stays."""

from __future__ import annotations

import shlex
import sys

import pytest

from runner.cli.command import to_continue, typed, valued, without
from runner.cli.jobs import SubmitFlags
from runner.cli.options import JobFlags
from runner.cli.run import RunFlags

FLAGS = (JobFlags, RunFlags, SubmitFlags)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("run job.yaml --overwrite", "run job.yaml"),
        ("run --overwrite job.yaml --takeover", "run job.yaml"),
        ("run --overwrite --overwrite job.yaml", "run job.yaml"),
        ("run job.yaml --takeover --in-process --overwrite --quiet", "run job.yaml --in-process --quiet"),
        ("run job.yaml", "run job.yaml"),
        # What stands for a value is none of our flags.
        ("run --model m --input i --output --overwrite --overwrite", "run --model m --input i --output --overwrite"),
        ("run job.yaml --set --takeover --takeover", "run job.yaml --set --takeover"),
        ("run job.yaml --output=--overwrite --overwrite", "run job.yaml --output=--overwrite"),
        ("run --overwrite -- --overwrite", "run -- --overwrite"),
        ("run --set -- --overwrite job.yaml", "run --set -- job.yaml"),
        ("submit job.yaml --overwrite --env --takeover --takeover", "submit job.yaml --env --takeover"),
    ],
)
def test_what_continues_a_run_neither_removes_nor_takes_over(
    words: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNNER_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/runner", *shlex.split(words)])
    assert typed() == f"runner {words}"
    assert to_continue(*FLAGS) == f"runner {left}"


def test_a_run_that_was_submitted_is_continued_where_it_was_submitted_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["runner", "run", "job.json", "--address", "auto", "--require-env", "KEY"])
    monkeypatch.setenv("RUNNER_COMMAND", "runner submit 'my job.yaml' --address http://head:8265 --overwrite")
    assert to_continue(*FLAGS) == "runner submit 'my job.yaml' --address http://head:8265"
    monkeypatch.setenv("RUNNER_COMMAND", "it's no command")
    assert to_continue(*FLAGS) == "runner run job.json --address auto --require-env KEY"


def test_what_continues_a_run_is_of_the_day_on_which_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNNER_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", ["runner", "run", "job.yaml", "--overwrite"])
    dated = {"dt": "2026-11-29", "at": "11 h"}
    assert to_continue(*FLAGS, dated=dated) == "runner run job.yaml --var dt=2026-11-29 --var 'at=11 h'"
    monkeypatch.setenv("RUNNER_COMMAND", "runner submit job.yaml --var dt=2026-11-28")
    assert to_continue(*FLAGS, dated=dated) == "runner submit job.yaml --var dt=2026-11-28"


def test_what_continues_a_run_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNNER_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", ["runner", "run", "--output", "s3://me:hidden@bucket/out", "--overwrite"])
    assert "hidden" not in to_continue(*FLAGS)


def test_the_options_that_take_a_value_are_known_from_their_types() -> None:
    assert {"--set", "--input", "--address", "--only-rejects", "--env", "--working-dir"} <= valued(*FLAGS)
    assert not {"--overwrite", "--takeover", "--in-process", "--follow", "--trust-model"} & valued(*FLAGS)


def test_words_are_dropped_only_where_they_are_flags() -> None:
    assert without(["a", "--x", "--y", "--x"], ["--x"], ["--y"]) == ["a", "--y", "--x"]
