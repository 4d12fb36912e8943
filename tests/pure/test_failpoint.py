"""Failpoints: inert in a production build, exact in a test build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.failpoint import Fault, configured, parse


def passing(rules: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that passes 'W6.after' three times, saying so each time."""
    steps = "for n in range(3): failpoint('W6.after'); print(n, flush=True)"
    return subprocess.run(
        [sys.executable, "-c", f"from connectors.failpoint import failpoint\n{steps}"],
        env=os.environ | {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": rules} | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_rules_name_a_place_an_effect_a_passing_and_a_file() -> None:
    assert parse("W6.after=kill@2;W3.fetch=sleep:0.5#/tmp/once;D9.after=raise;W3.run=note#/tmp/calls") == (
        Fault("W6.after", "kill", 2, None),
        Fault("W3.fetch", "sleep:0.5", None, "/tmp/once"),
        Fault("D9.after", "raise", None, None),
        Fault("W3.run", "note", None, "/tmp/calls"),
    )


@pytest.mark.parametrize("rule", ["W6.after", "W6.after=explode", "W6.after=sleep:1.2.3", "W3.run=note", "a=kill@x"])
def test_a_rule_outside_the_grammar_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="is no failpoint rule"):
        parse(rule)


def test_one_variable_alone_does_nothing() -> None:
    assert configured({"RUNNER_FAILPOINTS": "W6.after=kill"}) == ()
    assert configured({"RUNNER_FAILPOINTS": "W6.after=kill", "RUNNER_TEST_BUILD": "yes"}) == ()
    assert configured({"RUNNER_TEST_BUILD": "1"}) == ()


def test_rules_may_be_in_a_file_that_need_not_be_there(tmp_path: Path) -> None:
    environment = {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": f"@{tmp_path / 'rules'}"}
    assert configured(environment) == ()
    (tmp_path / "rules").write_text("W6.after=kill@2\n")
    assert configured(environment) == (Fault("W6.after", "kill", 2, None),)


def test_the_second_passing_kills(tmp_path: Path) -> None:
    done = passing("W6.after=kill@2")
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0"])


def test_without_the_test_flag_nothing_happens(tmp_path: Path) -> None:
    done = passing("W6.after=kill", RUNNER_TEST_BUILD="0")
    assert (done.returncode, done.stdout.split()) == (0, ["0", "1", "2"])


def test_a_file_makes_the_effect_happen_once_over_all_processes_and_holds_the_pid(tmp_path: Path) -> None:
    rules = f"W6.after=raise#{tmp_path / 'once'}"
    first, second = passing(rules), passing(rules)
    assert first.returncode == 1
    assert "failpoint 'W6.after' was set to fail" in first.stderr
    assert (second.returncode, second.stdout.split()) == (0, ["0", "1", "2"])
    assert int((tmp_path / "once").read_text()) > 1


def test_a_note_counts_passings_over_all_processes(tmp_path: Path) -> None:
    rules = f"W6.after=note#{tmp_path / 'calls'}"
    passing(rules)
    passing(rules)
    assert (tmp_path / "calls").stat().st_size == 6
