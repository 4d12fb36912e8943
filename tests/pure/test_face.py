"""The face of the package: what `import runner` offers, and how little that loads."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runner
from jobs.errors import JobError, OutputError, RunnerError

ROOT = Path(__file__).parents[2]
SMALL = {"model": "m", "input": "i", "output": "o"}


def test_what_is_listed_is_meant_for_users() -> None:
    names = [name for name in dir(runner) if not name.startswith("__")]
    assert names == runner.__all__
    assert not any(inspect.ismodule(getattr(runner, name)) for name in names)
    assert all(inspect.getdoc(getattr(runner, name)) for name in names)
    offered: dict[str, Any] = {}
    exec("from runner import *", offered)
    assert sorted(set(offered) - {"__builtins__"}) == runner.__all__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'runner' has no attribute 'nope'"):
        runner.nope  # noqa: B018


def test_neither_tensorflow_nor_ray_nor_pyarrow_is_loaded_by_the_import() -> None:
    script = "import runner, sys; print([n for n in ('tensorflow', 'ray', 'pyarrow', 'IPython') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: runner.run("nope.yaml"), "cannot read job file 'nope.yaml'"),
        (lambda: runner.run(3), "cannot read a job from a number"),  # type: ignore[arg-type]
        (lambda: runner.run({"model": "m"}), "cannot use the job: 2 problems"),
        (lambda: runner.plan(SMALL, "limits.shard_rows=x"), "cannot use the job: 'limits.shard_rows' is 'x'"),
        (lambda: runner.plan("model: m\ninput: i\noutput: o", "limits.shard_rows=x"), "'limits.shard_rows' is 'x'"),
        (lambda: runner.start(SMALL, "nope"), "cannot use the override 'nope'"),
        (lambda: runner.submit(SMALL, address="http://127.0.0.1:1"), "cannot submit the job: 'model.url' is 'm'"),
        (lambda: runner.load_job("{}"), "cannot use the job: 3 problems"),
        (lambda: runner.attach(""), "some text"),
    ],
)
def test_what_a_user_can_mend_is_a_runner_error(call: Any, said: str) -> None:
    with pytest.raises(JobError) as refused:
        call()
    assert said in refused.value.message
    assert "--" not in refused.value.message


def test_an_output_is_named_by_its_folder_its_job_or_its_job_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"model: m\ninput: i\noutput: {tmp_path / 'out'}\n")
    job = runner.load_job(file)
    for place in (tmp_path / "out", str(tmp_path / "out"), job, file, str(file)):
        assert runner.status(place).state == "absent"
        assert (
            repr(runner.status(place))
            == f"<Status of '{tmp_path / 'out'}': state absent: nothing is written there yet>"
        )
    with pytest.raises(OutputError):
        runner.verify(job)
    with pytest.raises(OutputError):
        runner.rejects(file)


def test_in_ipython_an_error_is_the_users_line_and_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunnerError) as refused:
        runner.run("nope.yaml")
    *_, line, message = refused.value._render_traceback_()
    assert line.endswith('runner.run("nope.yaml")')
    assert message.startswith("JobError: cannot read job file 'nope.yaml'")
    assert "contextlib" not in "".join(refused.value._render_traceback_())
    monkeypatch.setenv("RUNNER_TRACEBACK", "1")
    assert any("FileNotFoundError" in line for line in refused.value._render_traceback_())


SCRIPT = """
from pathlib import Path

import runner

job: runner.Job = runner.Job(
    model="m",
    input=["a.parquet", Path("b.parquet")],
    columns={"inputs": {"x": "a"}, "keep": ["id"]},
    output=runner.Output(url="o"),
    workers=runner.Workers(count=2, memory="8GiB"),
    limits={"max_rejected_rows": "0.1%"},
)
other: runner.Job = job.with_("workers.count=2", {"output.url": "p"})
result: runner.Result = runner.run(runner.Job.from_yaml("job.yaml", "limits.shard_rows=5"), in_process=True)
rows: int = result.rows
handle: runner.Handle = runner.start(job, "limits.max_attempts=1")
rate: float = handle.progress.rows_per_s if handle.progress else 0.0
status: runner.Status = runner.attach(job).wait()
holds: bool = runner.verify("o", deep=True).holds
spec: runner.ModelSpec = runner.inspect("m")
plan: runner.Preflight = runner.plan(job)
try:
    runner.rejects("o").to_pandas()
except runner.RunnerError as error:
    code: int = error.exit_code
"""


def test_the_types_of_a_users_script_are_right(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    wrong = tmp_path / "wrong.py"
    wrong.write_text('import runner\n\nrunner.run("job.yaml", in_process="yes")\nrunner.Job(model="m", inputs="i")\n')
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), str(script), str(wrong)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"MYPYPATH": str(ROOT), "PATH": ""}, check=False
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert {line.partition(":")[0] for line in errors} == {"wrong.py"}, done.stdout
    assert 'Argument "in_process" to "run" has incompatible type' in done.stdout
    assert 'Unexpected keyword argument "inputs" for "Job"' in done.stdout
