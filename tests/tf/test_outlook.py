"""What `plan` says of an output, and what `run` then does: through many states of it the two agree."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import runner
from connectors.output.outlook import Outlook
from jobs.errors import RunnerError, StoppedError
from jobs.job import Job
from runner.driver.launch import RunOptions, Stopper, launch
from runner.driver.result import Result

ROWS, BAD = 40, 3  # four shards of ten rows; three rows of the third one are null

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, half_plus_two: Path) -> Path:
    """The input, and outputs to begin with: `finished`, `half` (two of four shards), `other` (of another job)."""
    home = tmp_path_factory.mktemp("outlook")
    (home / "in").mkdir()
    table = pa.table(
        {"id": range(ROWS), "x": pa.array([float(n) if n not in (21, 22, 23) else None for n in range(ROWS)])}
    )
    pq.write_table(table, home / "in" / "a.parquet", row_group_size=10)
    launch(job(home, half_plus_two, "finished"), RunOptions(in_process=True))
    launch(job(home, half_plus_two, "other", keep=[]), RunOptions(in_process=True))
    for name, overwrite in (("half", False), ("overwritten", True)):
        stopper = Stopper()
        with pytest.raises(StoppedError):
            launch(
                job(home, half_plus_two, name),
                RunOptions(in_process=True, overwrite=overwrite),
                stopper=stopper,
                watch=lambda at, stopper=stopper: at.shards_done >= 2 and stopper.stop(StoppedError("by the test")),
            )
        for number in (2, 3):  # it may have done them all meanwhile
            for pattern in (
                f"part-{number:05d}-*",
                f"_run/*/receipts/{number:05d}.json",
                f"_run/*/rejects/{number:05d}-*",
            ):
                for path in (home / name).glob(pattern):
                    path.unlink()
    return home


def job(home: Path, model: Path, output: str, keep: list[str] | None = None, **limits: Any) -> Job:
    return Job.model_validate(
        {
            "model": {"url": str(model)},
            "input": {"url": [str(home / "in")]},
            "columns": {"keep": ["id"] if keep is None else keep, "inputs": {"x": {"column": "x", "cast": "nearest"}}},
            "output": {"url": str(home / output)},
            "workers": {"cpus": 1},
            "limits": {"shard_rows": 10, "batch_rows": 10, "on_bad_row": "reject", "max_rejected_rows": BAD} | limits,
        }
    )


# what somebody did to an output


def part(number: int) -> Callable[[Path], Path]:
    return lambda out: sorted(out.glob("part-*"))[number]


def lose(of: Callable[[Path], Path]) -> Change:
    return lambda out: of(out).unlink()


def cut(of: Callable[[Path], Path]) -> Change:
    return lambda out: os.truncate(of(out), of(out).stat().st_size - 20)


def below_run(pattern: str) -> Callable[[Path], Path]:
    return lambda out: min(out.glob(f"_run/*/{pattern}"))


def put(name: str, content: bytes = b"x") -> Change:
    return lambda out: (out / name).write_bytes(content)


def edit(of: Callable[[Path], Path], **facts: object) -> Change:
    return lambda out: of(out).write_text(json.dumps(json.loads(of(out).read_text()) | facts))


def alive(out: Path) -> None:
    """As if its last driver wrote from another host."""
    epoch = max(out.glob("_run/*/epochs/*.json"))
    document = json.loads(epoch.read_text()) | {"host": "elsewhere", "pid": 7}
    epoch.write_text(json.dumps({name: value for name, value in document.items() if name != "ended"}))


def silent(out: Path) -> None:
    alive(out)
    for epoch in out.glob("_run/*/epochs/*.json"):
        os.utime(epoch, (epoch.stat().st_atime - 900, epoch.stat().st_mtime - 900))


def without_receipts(out: Path) -> None:
    shutil.rmtree(below_run("receipts")(out))


def without_parts(out: Path) -> None:
    for one in out.glob("part-*"):
        one.unlink()


def nothing(out: Path) -> None:
    return None


SUCCESS = lambda out: out / "_SUCCESS"  # noqa: E731
OVERWRITE, REPAIR = {"overwrite": True}, {"repair": True}


@dataclass(frozen=True)
class Case:
    """before: the output to begin with, "" for none. says: the state that `plan` has to name, and what is done."""

    says: tuple[str, int]
    before: str
    change: Change = nothing
    how: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None


CASES = {
    "nothing there": Case(("new", 0), ""),
    "a readme": Case(("new", 0), "", put("README.md")),
    "half done": Case(("resumed", 2), "half"),
    "half done, and overwritten": Case(("new", 0), "half", how=OVERWRITE),
    "half done by an overwrite": Case(("resumed", 2), "overwritten"),
    "half done by an overwrite, and again": Case(("resumed", 2), "overwritten", how=OVERWRITE),
    "half done by an overwrite, and taken over": Case(
        ("resumed", 2), "overwritten", alive, OVERWRITE | {"takeover": True}
    ),
    "finished": Case(("finished", 4), "finished"),
    "finished, and overwritten": Case(("new", 0), "finished", how=OVERWRITE),
    "finished, and _SUCCESS is gone": Case(("resumed", 4), "finished", lose(SUCCESS)),
    "finished, and the plan is gone": Case(("finished", 4), "finished", lose(below_run("plan.json"))),
    "finished, and _SUCCESS is of somebody else": Case(("refused", 0), "finished", put("_SUCCESS", b"")),
    "the same, and overwritten": Case(("refused", 0), "finished", put("_SUCCESS", b""), OVERWRITE),
    "finished, and a part is lost": Case(("refused", 0), "finished", lose(part(1))),
    "the same, and overwritten ": Case(("new", 0), "finished", lose(part(1)), OVERWRITE),
    "finished, and a part is cut": Case(("refused", 0), "finished", cut(part(1))),
    "finished, and the manifest is gone": Case(("refused", 0), "finished", lose(below_run("manifest-*"))),
    "finished, and the manifest is edited": Case(("refused", 0), "finished", edit(below_run("manifest-*"), v=9)),
    "finished, and a table beside": Case(("refused", 0), "finished", put("more.parquet")),
    "the same, and overwritten  ": Case(("refused", 0), "finished", put("more.parquet"), OVERWRITE),
    "half done, and a part is lost": Case(("resumed", 1), "half", lose(part(0))),
    "half done, and receipts are gone": Case(("resumed", 2), "half", without_receipts),
    "half done, and only receipts are there": Case(("resumed", 0), "half", without_parts),
    "half done, a part is cut and has no receipt": Case(
        ("refused", 0), "half", lambda out: (without_receipts(out), cut(part(0))(out))
    ),
    "half done, and the plan is gone": Case(("resumed", 2), "half", lose(below_run("plan.json"))),
    "half done, and the plan is edited": Case(("refused", 0), "half", edit(below_run("plan.json"), protocol=7)),
    "the same, and overwritten   ": Case(("new", 0), "half", edit(below_run("plan.json"), protocol=7), OVERWRITE),
    "half done, and a driver lives": Case(("refused", 0), "half", alive),
    "the same, and overwritten    ": Case(("refused", 0), "half", alive, OVERWRITE),
    "the same, and taken over": Case(("resumed", 2), "half", alive, {"takeover": True}),
    "the same, overwritten and taken over": Case(("new", 0), "half", alive, OVERWRITE | {"takeover": True}),
    "half done, and its driver is silent": Case(("resumed", 2), "half", silent),
    "finished, a part is lost, and repaired": Case(("resumed", 3), "finished", lose(part(2)), REPAIR),
    "finished, a part is cut, and repaired": Case(("resumed", 3), "finished", cut(part(1)), REPAIR),
    "finished, the rejects are lost, and repaired": Case(
        ("resumed", 3), "finished", lose(below_run("rejects/*")), REPAIR
    ),
    "finished, the manifest is gone, and repaired": Case(
        ("resumed", 4), "finished", lose(below_run("manifest-*")), REPAIR
    ),
    "finished, and repaired": Case(("finished", 4), "finished", how=REPAIR),
    "half done, a part is cut, and repaired": Case(("resumed", 1), "half", cut(part(0)), REPAIR),
    "half done, a driver lives, and repaired": Case(("refused", 0), "half", alive, REPAIR),
    "nothing there, and repaired": Case(("new", 0), "", how=REPAIR),
    "another job, and repaired": Case(("refused", 0), "other", how=REPAIR),
    "another job": Case(("refused", 0), "other"),
    "another job, and overwritten": Case(("new", 0), "other", how=OVERWRITE),
    "another job, and its driver lives": Case(
        ("refused", 0), "other", lambda out: (lose(SUCCESS)(out), alive(out)), OVERWRITE
    ),
    "finished, and the budget is smaller": Case(("finished", 4), "finished", limits={"max_rejected_rows": 1}),
    "all done but _SUCCESS, and the budget is smaller": Case(
        ("refused", 0), "finished", lose(SUCCESS), limits={"max_rejected_rows": 1}
    ),
}


def seen(out: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}


def timeless(error: RunnerError) -> str:
    return re.sub(r"last heard [^;]*", "last heard", error.message)


def ran(wanted: Job, how: dict[str, Any]) -> Result | RunnerError:
    try:
        return launch(wanted, RunOptions(in_process=True, **how))
    except RunnerError as error:
        return error


@pytest.mark.parametrize("name", CASES)
def test_a_plan_says_what_the_run_then_does(name: str, home: Path, half_plus_two: Path, tmp_path: Path) -> None:
    case = CASES[name]
    out = tmp_path / "out"
    if case.before:
        shutil.copytree(home / case.before, out)
    else:
        out.mkdir()
    case.change(out)
    wanted, how = job(home, half_plus_two, str(out), **(case.limits or {})), case.how or {}
    before = seen(tmp_path)
    ready = runner.plan(wanted, in_process=True, **how)
    told = ready.outlook
    assert isinstance(told, Outlook)
    assert seen(tmp_path) == before, "it wrote something"
    assert (told.state, told.shards_done) == case.says, told.story
    did = ran(wanted, how)
    if isinstance(did, RunnerError):
        assert told.error is not None, f"{told.story}, and {did.message}"
        assert (told.state, type(told.error), timeless(told.error)) == ("refused", type(did), timeless(did))
        assert told.error.ends_with == did.ends_with
    else:
        assert told.error is None, f"{told.story}, and it ran"
        assert did.rows_run == told.rows - told.rows_done
        assert (did.account is None) == (told.state == "finished")
        assert (did.rows, did.rows_rejected) == (ROWS - BAD, BAD)
        assert runner.verify(str(out), deep=True).holds


def test_a_plan_of_an_output_that_no_other_process_sees_is_refused_as_its_run_is(
    home: Path, half_plus_two: Path
) -> None:
    wanted = Job.model_validate(job(home, half_plus_two, "x").model_dump() | {"output": {"url": "memory://out"}})
    told = runner.plan(wanted).outlook
    assert told is not None
    assert told.error is not None
    assert "each process has a memory:// of its own" in told.story
    inside = runner.plan(wanted, in_process=True).outlook
    assert inside is not None
    assert inside.state == "new"


def test_a_notebook_shows_what_a_run_would_meet(home: Path, half_plus_two: Path) -> None:
    for name, story in (("half", "continues: 2 of 4 shards (20 of 40 rows) are done"), ("finished", "already done")):
        ready = runner.plan(job(home, half_plus_two, name))
        assert story in ready._repr_html_()
        assert f": {ROWS} rows of 1 file in 4 shards, " in repr(ready)
