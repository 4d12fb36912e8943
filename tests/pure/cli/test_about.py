"""What the command says of itself: versions, and how a shell completes it; nothing heavy is imported for either."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import runner
from runner.cli import about

ROOT = Path(__file__).parents[3]


def _runner(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`runner` in a process of its own, which names the heavy libraries that it has loaded on its last line."""
    code = (
        "import sys\nfrom runner.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    print([name for name in ('tensorflow', 'ray', 'pyarrow') if name in sys.modules], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_versions_of_all_that_works_are_told_and_nothing_of_it_is_loaded() -> None:
    done = _runner("--version")
    assert (done.returncode, done.stderr) == (0, "[]\n")
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert told == {
        "runner": runner.__version__,
        "tensorflow": version("tensorflow"),
        "ray": version("ray"),
        "pyarrow": version("pyarrow"),
        "python": platform.python_version(),
    }
    assert json.loads(_runner("--version", "--json").stdout) == told


def test_a_library_that_is_not_there_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(about._PACKAGES, "ray", ("no-such-package-of-anyone",))
    assert about.versions()["ray"] is None


def test_json_before_a_command_is_refused_with_where_it_goes() -> None:
    done = _runner("--json", "status", "nowhere")
    assert done.returncode == 2
    assert "it goes behind the command" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_flags(shell: str) -> None:
    # Else the shell is the one that the command was typed in.
    shown = _runner("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.returncode == 0, shown.stderr
    assert "_RUNNER_COMPLETE=complete_" in shown.stdout
    words = {"bash": {"COMP_WORDS": "runner ver", "COMP_CWORD": "1"}}.get(
        shell, {"_TYPER_COMPLETE_ARGS": "runner ver", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    )
    asked = _runner(_RUNNER_COMPLETE=f"complete_{shell}", **words)
    assert asked.stderr == "[]\n", "nothing else is loaded, or told"
    assert "verify" in asked.stdout
    assert "rejects" not in asked.stdout


def test_no_command_at_all_shows_those_that_there_are() -> None:
    done = _runner()
    assert (done.returncode, done.stderr) == (2, "[]\n")
    assert "Usage: runner" in done.stdout
    assert "verify" in done.stdout


@pytest.mark.parametrize("group", [(), ("jobs",), ("cache",)], ids=["runner", "jobs", "cache"])
def test_a_command_that_needs_another_one_answers_with_its_help_and_no_error(group: tuple[str, ...]) -> None:
    done = _runner(*group)
    assert (done.returncode, done.stderr) == (2, "[]\n")
    assert " ".join(("Usage: runner", *group, "[OPTIONS]")) in done.stdout
    assert "--help" in done.stdout
