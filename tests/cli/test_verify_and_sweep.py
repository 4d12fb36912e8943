"""verify, sweep, status and the flags of run as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectors.output.epoch import Process

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]
JobFile = Callable[..., Path]


@pytest.fixture
def done(command: Command, job_file: JobFile, tmp_path: Path) -> Path:
    """The output of a finished job of 2,000 rows in 4 parts."""
    job_file()
    ran = command("run", "job.yaml", "--in-process")
    assert ran.returncode == 0, ran.stderr
    return tmp_path / "out"


def parts(output: Path) -> dict[str, bytes]:
    return {part.name: part.read_bytes() for part in sorted(output.glob("part-*"))}


def test_verify_says_that_every_row_is_there_and_what_is_wrong_if_not(command: Command, done: Path) -> None:
    for flags in ([], ["--deep"]):
        held = command("verify", "out", *flags)
        assert held.returncode == 0, held.stdout + held.stderr
        assert "every input row is in exactly one place: 2,000 of 2,000 rows in 4 of 4 parts" in held.stdout
    lost, changed = sorted(done.glob("part-*"))[:2]
    lost.unlink()
    pq.write_table(pq.read_table(changed), changed)  # the same rows, and no commit header
    (done / "part-more.parquet").write_bytes(b"junk")
    broken = command("verify", "out", "--json")
    assert broken.returncode == 65
    found = {problem["name"]: problem["kind"] for problem in json.loads(broken.stdout)["problems"]}
    assert found == {lost.name: "missing", changed.name: "altered", "part-more.parquet": "foreign"}
    told = command("verify", "out")
    assert told.returncode == 65
    for fact in ("does not hold", lost.name, changed.name, "part-more.parquet", "1,000 of 2,000 rows"):
        assert fact in told.stdout


def test_a_finished_job_that_lost_a_part_does_not_exit_0(command: Command, done: Path) -> None:
    lost = min(done.glob("part-*"))
    lost.unlink()
    again = command("run", "job.yaml", "--in-process")
    assert again.returncode == 2
    assert lost.name in again.stderr
    assert "runner verify" in again.stderr
    assert "--repair" in again.stderr


def test_a_repair_computes_what_verify_misses_and_says_so_before(command: Command, done: Path) -> None:
    lost, cut, *whole = sorted(done.glob("part-*"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-9])
    before = {part: part.stat().st_mtime_ns for part in whole}
    shown = command("status", "out")
    assert "incomplete" in shown.stdout
    assert "finished" not in shown.stdout
    assert "1 of 4 parts are missing" in shown.stdout
    for said in (shown.stdout, command("verify", "out").stdout, command("plan", "job.yaml").stdout):
        assert "--repair" in said
    planned = json.loads(command("plan", "job.yaml", "--repair", "--json").stdout)["outlook"]
    assert (planned["state"], planned["lost"], planned["shards_done"]) == ("resumed", 2, 2)
    refused = command("run", "job.yaml", "--in-process", "--repair", "--overwrite")
    assert refused.returncode == 2
    repaired = command("run", "job.yaml", "--in-process", "--repair", "--json")
    assert repaired.returncode == 0, repaired.stderr
    assert json.loads(repaired.stdout)["rows_run"] == 1000
    assert before == {part: part.stat().st_mtime_ns for part in whole}
    assert command("verify", "out", "--deep").returncode == 0
    assert json.loads(command("status", "out", "--json").stdout)["state"] == "finished"
    again = command("run", "job.yaml", "--in-process", "--repair")
    assert "already done" in again.stdout


def test_plan_says_what_run_would_meet_takes_its_flags_and_ends_as_it_would(command: Command, done: Path) -> None:
    def planned(*flags: str) -> tuple[int, dict[str, object]]:
        said = command("plan", "job.yaml", "--json", *flags)
        return said.returncode, json.loads(said.stdout)["outlook"]

    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    assert planned()[1]["state"] == "finished"
    flags = (
        "--in-process",
        "--quiet",
        "--require-env",
        "PATH",
        "--log-format",
        "text",
        "--address",
        "h:1",
        "--takeover",
    )
    code, outlook = planned("--overwrite", *flags)
    assert (code, outlook["state"], outlook["removed"], outlook["error"]) == (0, "new", 5, None)
    code, outlook = planned("--set", "columns.keep=[]")
    assert (code, outlook["state"]) == (2, "refused")
    told = command("plan", "job.yaml", "--set", "columns.keep=[]")
    ran = command("run", "job.yaml", "--set", "columns.keep=[]", "--in-process")
    assert (told.returncode, ran.returncode, told.stderr) == (2, 2, "")
    refused = ran.stderr.removeprefix("error: ").strip()
    assert refused in " ".join(told.stdout.split())
    assert "2,000 rows in 20 row groups" in told.stdout, "the rest of its answer is there, too"
    assert command("plan", "job.yaml", "--require-env", "NOT_SET_HERE").returncode == 2
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*")}


def test_an_output_that_is_not_there_is_an_error_of_the_user(command: Command, tmp_path: Path) -> None:
    missing = command("verify", "nowhere")
    assert missing.returncode == 2
    assert "nowhere" in missing.stderr
    assert "absent" in command("status", "nowhere").stdout
    assert not (tmp_path / "nowhere").exists()


def test_overwrite_replaces_another_job_and_leaves_files_of_others(command: Command, done: Path) -> None:
    before = parts(done)
    (done / "notes.txt").write_text("mine")
    changed = ["run", "job.yaml", "--in-process", "--set", "columns.keep=[]"]
    refused = command(*changed)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert parts(done) == before
    replaced = command(*changed, "--overwrite")
    assert replaced.returncode == 0, replaced.stderr
    assert before.keys().isdisjoint(parts(done))
    assert (done / "notes.txt").read_text() == "mine"
    assert command("verify", "out", "--deep").returncode == 0


def test_overwrite_computes_a_finished_job_again(command: Command, done: Path) -> None:
    again = command("run", "job.yaml", "--in-process", "--overwrite", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows_run"] == 2000
    assert command("verify", "out", "--deep").returncode == 0


def test_a_driver_on_another_host_is_in_the_way_until_it_is_taken_over(
    command: Command, done: Path, tmp_path: Path
) -> None:
    success = done / "_SUCCESS"
    success.unlink()
    document = min(done.glob("_run/*/epochs/*.json"))
    rival = json.loads(document.read_text()) | {"host": "elsewhere", "pid": 7, "ended": ""}
    document.write_text(json.dumps(rival))
    refused = command("run", "job.yaml", "--in-process")
    assert refused.returncode == 75
    for fact in ("'elsewhere'", "pid 7", "--wait-for-driver 6m", "--takeover"):
        assert fact in refused.stderr
    assert not success.exists()
    running = json.loads(command("status", "out", "--json").stdout)
    assert (running["state"], running["host"]) == ("running", "elsewhere")
    assert running["heartbeat_age_s"] < 300
    taken = command("run", "job.yaml", "--in-process", "--takeover", "--json")
    assert taken.returncode == 0, taken.stderr
    assert json.loads(taken.stdout)["rows_run"] == 0
    assert success.exists()


def test_status_shows_a_person_what_happened(command: Command, done: Path) -> None:
    shown = command("status", "out").stdout
    for fact in ("finished", "2,000 of 2,000 (100%)", "4 of 4", "epoch 1", Process.current().host):
        assert fact in shown
    assert json.loads(command("status", "out", "--json").stdout)["ended"] == "finished"


def test_sweep_removes_what_dead_attempts_left_and_says_so(command: Command, done: Path) -> None:
    plan = next(path for path in (done / "_run").iterdir() if path.is_dir())
    left = plan / "staging" / f"e1-a1-{'0' * 12}"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"half")
    before = parts(done)
    dry = command("sweep", "out", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "would remove 1 folder" in dry.stdout
    assert left.exists()
    swept = command("sweep", "out")
    assert swept.returncode == 0, swept.stderr
    assert left.name in swept.stdout
    assert not left.exists()
    assert parts(done) == before
    assert "nothing to remove" in command("sweep", "out").stdout
    assert any(done.iterdir())


def test_what_an_overwritten_job_left_goes_on_request(command: Command, done: Path) -> None:
    (old,) = [path for path in (done / "_run").iterdir() if path.is_dir()]
    other = command("run", "job.yaml", "--in-process", "--overwrite", "--set", "limits.shard_rows=1000")
    assert other.returncode == 0, other.stderr
    dry = command("sweep", "job.yaml", "--old-plans", "--dry-run")
    assert re.search(
        rf"^would remove 1 old plan \(.* KiB\) from .*\n  would remove  _run/{old.name}: \d+ files, ", dry.stdout
    )
    assert old.exists()
    swept = command("sweep", "out", "--old-plans")
    assert swept.returncode == 0, swept.stderr
    assert "removed 1 old plan (" in swept.stdout
    assert not old.exists()
    assert command("verify", "out", "--deep").returncode == 0
