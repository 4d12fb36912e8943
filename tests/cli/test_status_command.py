"""`runner status` as a script asks it: exit codes, several jobs at once, and the output that a job file names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]


@pytest.fixture
def done(command: Command, job_file: Callable[..., Path], tmp_path: Path) -> Path:
    """A finished output; `job.yaml` names it."""
    job_file()
    ran = command("run", "job.yaml", "--in-process", "--quiet")
    assert ran.returncode == 0, ran.stderr
    return tmp_path / "out"


def rewritten(output: Path, **facts: object) -> None:
    """What its last driver said, changed; and without `_SUCCESS`."""
    (output / "_SUCCESS").unlink(missing_ok=True)
    document = max(output.glob("_run/*/epochs/*.json"))
    document.write_text(json.dumps(json.loads(document.read_text()) | facts))


def test_the_exit_code_says_how_far_a_job_is(command: Command, done: Path) -> None:
    assert command("status", "out").returncode == 0
    rewritten(done, host="elsewhere", ended="")
    assert command("status", "out").returncode == 3
    assert command("status", "out", "--json").returncode == 3
    for ended in ("failed", "interrupted"):
        rewritten(done, ended=ended)
        assert command("status", "out").returncode == 4
    assert command("status", "out", "--watch").returncode == 4
    assert command("status", "nowhere").returncode == 5
    assert json.loads(command("status", "nowhere", "--json").stdout)["state"] == "absent"
    full = Path("/dev/full")
    if full.exists():
        with full.open("w") as stream:
            failed = subprocess.run(
                [sys.executable, "-m", "runner", "status", "nowhere"], stdout=stream, cwd=done.parent, check=False
            )
        assert failed.returncode == 2, "an answer that cannot be read is none"


def test_the_jobs_below_a_folder_are_listed_and_the_worst_decides(command: Command, done: Path) -> None:
    parent = done.parent / "nights"
    for name in ("2026-11-28", "2026-11-29", "more/2026-11-30"):
        shutil.copytree(done, parent / name)
    listed = command("status", "nights")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["2026-11-28", "finished"],
        ["2026-11-29", "finished"],
        ["more/2026-11-30", "finished"],
    ]
    assert "2,000 of 2,000  100%  4 of 4" in lines[1]
    rewritten(parent / "2026-11-28", host="elsewhere", ended="")
    assert command("status", "nights").returncode == 3
    (next((parent / "2026-11-29").glob("_run/*/plan.json"))).write_text("torn")
    seen = command("status", "nights", "--json")
    assert seen.returncode == 4
    answer = json.loads(seen.stdout)
    assert [(job["name"], job["state"]) for job in answer["jobs"]] == [
        ("2026-11-28", "running"),
        ("2026-11-29", "unreadable"),
        ("more/2026-11-30", "finished"),
    ]
    assert answer["jobs"][1]["error"]["class"] == "OutputError"
    assert answer["cut"] == ""
    shown = command("status", "nights").stdout.splitlines()
    assert [line.split()[:2] for line in shown[2:3]] == [["2026-11-29", "unreadable"]]
    refused = command("status", "nights", "--watch")
    assert refused.returncode == 2
    assert "cannot watch 3 jobs at once: name one of those below: '2026-11-28'" in refused.stderr


@pytest.mark.parametrize("look", [["status"], ["verify"], ["rejects"], ["sweep"]])
def test_a_job_file_with_its_changes_names_the_output(command: Command, done: Path, look: list[str]) -> None:
    done.rename(done.parent / "elsewhere")
    seen = command(*look, "job.yaml", "--set", "output.url=elsewhere", "--json")
    assert seen.returncode == 0, seen.stdout
    assert json.loads(seen.stdout)["output"].endswith("elsewhere")
    refused = command(*look, "elsewhere", "--set", "output.url=elsewhere")
    assert (refused.returncode, "is no job file" in refused.stderr) == (2, True)
    typo = command(*look, "jop.yaml")
    assert (typo.returncode, "cannot read job file 'jop.yaml'" in typo.stderr) == (2, True)


@pytest.mark.parametrize("look", ["status", "verify", "rejects", "sweep"])
def test_options_of_the_store_go_with_a_folder_and_with_a_job_file(command: Command, done: Path, look: str) -> None:
    """A local folder takes none, which is said of both in the same words."""
    by_folder = command(look, "out", "--option", "anon=true")
    by_job = command(look, "job.yaml", "--option", "anon=true")
    assert by_folder.returncode == by_job.returncode == 2
    assert by_folder.stderr == by_job.stderr
    assert "No such option" not in by_folder.stderr
