"""show, plan, run and status in a process of their own, without Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]
JobFile = Callable[..., Path]


def test_help_lists_the_commands_in_the_order_in_which_a_user_meets_them(command: Command) -> None:
    done = command("--help", TERM="dumb", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    _, commands = done.stdout.split(" Commands ")
    assert [line.split()[1] for line in commands.splitlines() if line.startswith("│ ")] == [
        *("show", "init", "plan", "run"),
        *("status", "verify", "rejects", "diff", "sweep"),
        *("scan", "call", "schema", "submit", "jobs", "cache"),
    ]


def test_show_tells_what_a_model_declares(command: Command, half_plus_two: Path) -> None:
    done = command("show", str(half_plus_two))
    assert done.returncode == 0, done.stderr
    for fact in ("serving_default", "slow", "picky", "float32", "serve"):
        assert fact in done.stdout
    declared = json.loads(command("show", str(half_plus_two), "--json").stdout)
    assert "serving_default" in json.dumps(declared)


def test_show_does_not_import_tensorflow_or_ray(half_plus_two: Path) -> None:
    code = (
        "import sys; from runner.cli.main import app\n"
        f"app(['show', {str(half_plus_two)!r}], standalone_mode=False)\n"
        "print([name for name in ('tensorflow', 'ray', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_scan_finds_a_plain_model_harmless_without_loading_it(command: Command, half_plus_two: Path) -> None:
    done = command("scan", str(half_plus_two))
    assert done.returncode == 0, done.stderr
    assert f"{half_plus_two}: harmless" in done.stdout
    assert json.loads(command("scan", str(half_plus_two), "--json").stdout)["refused"] == []


def test_a_run_does_not_wait_for_imports_that_it_does_not_need(
    job_file: JobFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow imports pandas for some conversions, where it is installed: half a second for nothing."""
    monkeypatch.chdir(tmp_path)
    code = (
        "import sys; from runner.cli.main import app\n"
        f"app(['run', {str(job_file())!r}, '--in-process', '--quiet'], standalone_mode=False)\n"
        "print([name for name in ('tensorflow', 'ray', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_plan_says_what_would_be_done_and_writes_nothing(command: Command, job_file: JobFile, tmp_path: Path) -> None:
    job_file()
    done = command("plan", "job.yaml", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["rows"], plan["files"], plan["shards"]) == (2000, 2, 4)
    assert plan["output_schema"] == {"id": "int64", "y": "float"}
    assert "2,000 rows" in command("plan", "job.yaml").stdout
    assert not (tmp_path / "out").exists()


def test_a_job_runs_and_the_same_command_again_touches_nothing(
    command: Command, job_file: JobFile, tmp_path: Path, require_half_plus_two: Callable[[Path, int], None]
) -> None:
    job_file()
    first = command("run", "job.yaml", "--in-process")
    assert first.returncode == 0, first.stderr
    assert "2,000 rows in 4 parts" in first.stdout
    require_half_plus_two(tmp_path / "out", 2000)

    assert "too short to tell what held it" in first.stdout
    assert first.stdout.count("rows/s") == 1
    (page,) = (tmp_path / "out").glob("_run/*/report.html")
    assert str(page) in first.stdout
    report = json.loads(page.with_suffix(".json").read_text())
    assert ("ray" in report["phases"], list(report["phases"])[-1]) == (False, "stop")
    assert (report["input"]["files"], report["columns"][0]["role"]) == (2, "input")
    assert report["versions"]["tensorflow"]

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second = command("run", "job.yaml", "--in-process")
    assert second.returncode == 0, second.stderr
    assert "already done: 2,000 rows in 4 parts" in second.stdout
    assert f", finished {report['ended_at'][:10]}" in second.stdout
    assert f"report: {page.parent / 'reports' / '000001.html'}" in second.stdout
    assert "to run it again: --overwrite" in second.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    status = json.loads(command("status", "out", "--json").stdout)
    assert (status["state"], status["rows_done"], status["shards_done"]) == ("finished", 2000, 4)
    assert "finished" in command("status", "out").stdout


def test_flags_alone_make_a_job(
    command: Command, half_plus_two: Path, write_numbers: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_numbers(tmp_path / "in", files=1)
    flags = ["--model", str(half_plus_two), "--input", str(source), "--output", "out", "--map", "x=x", "--keep", "id"]
    done = command("run", *flags, "--fetch", "y=half", "--signature", "slow", "--in-process", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 1000
    assert pq.read_schema(next((tmp_path / "out").glob("part-*"))).names == ["id", "half"]


def test_a_different_job_on_the_same_output_is_refused_naming_what_differs(command: Command, job_file: JobFile) -> None:
    job_file()
    assert command("run", "job.yaml", "--in-process").returncode == 0
    other = command("run", "job.yaml", "--in-process", "--set", "columns.keep=[]")
    assert other.returncode == 2
    assert "keep" in other.stderr


def test_arrow_files_are_read_and_written(command: Command, half_plus_two: Path, tmp_path: Path) -> None:
    table = pa.table({"id": range(10), "x": pa.array(range(10), pa.float32())})
    with pa.ipc.new_file(tmp_path / "numbers.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    flags = ["--model", str(half_plus_two), "--input", "numbers.arrow", "--output", "out", "--keep", "id"]
    done = command("run", *flags, "--in-process", "--set", "output.format=arrow")
    assert done.returncode == 0, done.stderr
    with pa.ipc.open_file(next((tmp_path / "out").glob("part-*.arrow"))) as reader:
        assert reader.read_all()["y"].to_pylist() == [x / 2 + 2 for x in range(10)]


MISTAKES: dict[str, tuple[dict[str, object], list[str], list[str]]] = {
    "a misspelt key": ({"worker": {"count": 2}}, [], ["job.yaml", "'worker'", "workers"]),
    "a missing model": ({"model": {"url": "nowhere"}}, [], ["nowhere"]),
    "an unknown signature": ({}, ["model.signature=serve"], ["'serve'", "'serving_default'"]),
    "an unknown tag": ({}, ["model.tags=[gpu]"], ["gpu", "serve"]),
    "a missing column": ({"columns": {"inputs": {"x": "xs"}}}, [], ["'xs'", "'x'"]),
    "an unknown output": ({"columns": {"outputs": ["z"]}}, [], ["'z'", "'y'"]),
    "a kept column that is not there": ({"columns": {"keep": ["idd"]}}, [], ["'idd'", "'id'"]),
    "an input that matches nothing": ({"input": {"url": "in/*.parq"}}, [], ["in/*.parq"]),
    "an output that cannot be written": ({"output": {"url": "/proc/nothing/out"}}, [], ["/proc/nothing/out"]),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda name: name.replace(" ", "-"))
def test_a_wrong_job_is_one_paragraph_and_exit_2(
    mistake: str, command: Command, job_file: JobFile, tmp_path: Path
) -> None:
    sections, overrides, names = MISTAKES[mistake]
    job_file(**sections)
    done = command("run", "job.yaml", "--in-process", *(word for key in overrides for word in ("--set", key)))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for name in names:
        assert name in done.stderr
    assert not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize("output", ["in", "in/scores"], ids=["the-input-folder", "inside-it"])
def test_an_output_that_would_become_input_is_refused(output: str, command: Command, job_file: JobFile) -> None:
    job_file(input={"url": "in"}, output={"url": output})
    done = command("run", "job.yaml", "--in-process")
    assert done.returncode == 2, done.stderr
    assert "read its own output" in done.stderr


def test_an_output_beside_what_a_glob_means_is_fine(command: Command, job_file: JobFile) -> None:
    job_file(input={"url": "in/numbers-*.parquet"}, output={"url": "in/scores"})
    for _ in range(2):
        assert command("run", "job.yaml", "--in-process").returncode == 0


def test_an_input_of_no_rows_gives_an_empty_table_and_success(
    command: Command, job_file: JobFile, tmp_path: Path
) -> None:
    job_file()
    for path in (tmp_path / "in").iterdir():
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert command("run", "job.yaml", "--in-process").returncode == 0
    (part,) = (tmp_path / "out").glob("part-*")
    assert pq.read_table(part).schema.names == ["id", "y"]
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_a_folder_of_arrow_files_needs_no_format(command: Command, half_plus_two: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table = pa.table({"x": pa.array([2.0], pa.float32())})
    with pa.ipc.new_file(tmp_path / "in" / "numbers.arrow", table.schema) as writer:
        writer.write_table(table)
    done = command("run", "--model", str(half_plus_two), "--input", "in", "--output", "out", "--in-process", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 1


def test_a_file_that_is_not_parquet_is_named(command: Command, job_file: JobFile, tmp_path: Path) -> None:
    job_file()
    (tmp_path / "in" / "page.parquet").write_text("<html>not found</html>")
    done = command("run", "job.yaml", "--in-process")
    assert done.returncode == 2, done.stderr
    assert "page.parquet" in done.stderr


def test_a_null_found_while_running_is_exit_65_and_names_the_row(
    command: Command, job_file: JobFile, tmp_path: Path
) -> None:
    job_file()
    bad = pa.table({"id": [0, 1, 2], "x": pa.array([1.0, None, 3.0], pa.float32())})
    pq.write_table(bad, tmp_path / "in" / "numbers-bad.parquet")
    done = command("run", "job.yaml", "--in-process")
    assert done.returncode == 65, done.stderr
    for fact in ("'x'", "numbers-bad.parquet' row group 0 row 1"):
        assert fact in done.stderr
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_keras_file_is_explained(command: Command, job_file: JobFile, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"PK")
    job_file(model={"url": "model.keras"})
    done = command("run", "job.yaml", "--in-process")
    assert done.returncode == 2
    assert "model.export" in done.stderr


def test_a_job_file_together_with_flags_is_refused(command: Command, job_file: JobFile) -> None:
    job_file()
    done = command("run", "job.yaml", "--model", "elsewhere")
    assert done.returncode == 2
    assert "--model" in done.stderr


def test_an_option_that_does_not_exist_is_a_usage_error(command: Command) -> None:
    done = command("run", "--nonsense")
    assert done.returncode == 2
    assert "--nonsense" in done.stderr


def test_a_package_of_the_same_name_in_the_current_folder_is_explained(command: Command, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    assert command("status", "out").returncode == 5  # a folder without __init__.py, of job files perhaps, does no harm
    (tmp_path / "jobs" / "__init__.py").touch()
    done = command("status", "out")
    assert done.returncode != 0
    assert "something of that name comes first on sys.path" in done.stderr


def test_a_log_in_json_is_a_line_per_event(command: Command, job_file: JobFile) -> None:
    job_file()
    done = command("run", "job.yaml", "--in-process", "--log-format", "json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    succeeded = [line["shard"] for line in lines if line["event"] == "attempt_succeeded"]
    assert sorted(succeeded) == [0, 1, 2, 3]  # two shards are in hand at a time: either may be done first
    assert [line["event"] for line in lines[-2:]] == ["progress", "done"]
    assert (lines[-1]["rows"], lines[-1]["rows_run"]) == (2000, 2000)
    assert len({line["run"] for line in lines}) == 1
    refused = command("run", "job.yaml", "--in-process", "--log-format", "xml")
    assert refused.returncode == 2
    assert "choose 'text' or 'json'" in refused.stderr


def test_a_risky_setting_that_ends_a_process_is_told_in_one_sentence_and_no_shard_is_blamed(
    command: Command, job_file: JobFile, half_plus_two: Path, tmp_path: Path
) -> None:
    job = job_file(model={"url": str(half_plus_two), "mixed_precision": "float16"})
    faults = {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": "W1.child=abort", "ONEDNN_MAX_CPU_ISA": "DEFAULT"}
    done = command("run", str(job), "--in-process", "--quiet", **faults)
    assert done.returncode == 70, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: cannot run signature 'serving_default' of model '{half_plus_two}' here: a process")
    assert "was ended by SIGABRT and said: a library meets failpoint 'W1.child' and aborts; suspected: " in line
    assert "`model: {mixed_precision: float16}` together with ONEDNN_MAX_CPU_ISA=DEFAULT in the environment" in line
    assert list((tmp_path / "out").glob("part-*")) == []


def test_a_process_that_dies_in_its_first_call_says_why(command: Command, job_file: JobFile) -> None:
    done = command("run", str(job_file()), "--in-process", RUNNER_TEST_BUILD="1", RUNNER_FAILPOINTS="W1.trial=abort")
    assert done.returncode == -signal.SIGABRT
    assert "or called it with a few rows; it said last: a library meets failpoint 'W1.trial'" in done.stderr
