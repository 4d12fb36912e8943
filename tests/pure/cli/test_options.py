"""Flags as dataclasses: what typer sees of a command, what the command gets, and the job that flags make."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from jobs.errors import JobError
from runner.cli.options import AsJson, JobFlags, flattened
from runner.cli.run import plan, run


@dataclass(frozen=True)
class Size:
    wide: Annotated[int, typer.Option("--wide", help="How wide.")] = 1
    high: Annotated[list[int] | None, typer.Option("--high")] = None


@dataclass(frozen=True)
class Colour:
    red: bool = False


Drawn = list[tuple[str, Size, Colour, bool]]


@pytest.fixture
def drawn() -> Drawn:
    return []


@pytest.fixture
def app(drawn: Drawn) -> typer.Typer:
    """A command `NAME [--wide N] [--high N]... [--red] [--json]` that notes what it gets."""

    @flattened
    def draw(name: str, size: Size, *, colour: Colour, as_json: AsJson = False) -> None:
        """Draw a thing."""
        drawn.append((name, size, colour, as_json))

    app = typer.Typer()
    app.command()(draw)
    return app


def test_a_command_gets_its_flags_as_the_values_that_it_declares(app: typer.Typer, drawn: Drawn) -> None:
    done = CliRunner().invoke(app, ["box", "--wide", "3", "--high", "1", "--high", "2", "--red", "--json"])
    assert done.exit_code == 0, done.output
    assert drawn == [("box", Size(3, [1, 2]), Colour(True), True)]


def test_flags_that_are_not_given_are_at_their_defaults(app: typer.Typer, drawn: Drawn) -> None:
    assert CliRunner().invoke(app, ["box"]).exit_code == 0
    assert drawn == [("box", Size(), Colour(), False)]


def test_help_lists_each_flag_where_its_dataclass_stands(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    order = [shown.index(word) for word in ("Draw a thing.", "--wide", "How wide.", "--high", "--red", "--json")]
    assert order == sorted(order)


def test_a_command_may_be_called_with_its_flags_alone() -> None:
    called: list[Size] = []

    @flattened
    def draw(size: Size) -> None:
        called.append(size)

    draw(wide=2)
    assert called == [Size(2)]


def test_two_flags_of_one_name_are_refused() -> None:
    def draw(wide: int, size: Size) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'wide'"):
        flattened(draw)


def test_plan_and_run_take_the_same_flags_as_a_job() -> None:
    flags = [*signature(JobFlags).parameters]
    assert [*signature(plan).parameters][: len(flags)] == [*signature(run).parameters][: len(flags)] == flags


def test_flags_alone_make_a_job() -> None:
    job = JobFlags(model="m", input_=["a", "b"], output="o", map_=["x=c,d"], fetch=["y=z"], keep=["id"]).read()
    assert (job.model.url, job.input.url, job.output.url) == ("m", ("a", "b"), "o")
    assert job.columns.keep == ("id",)


def test_kept_columns_stand_with_commas_on_the_command_line() -> None:
    def kept(*flags: str) -> tuple[object, ...]:
        return JobFlags(model="m", input_=["a"], output="o", keep=[*flags]).read().columns.keep

    assert kept("id,label", "user_*") == ("id", "label", "user_*")
    assert kept('"a,b",c') == ("a,b", "c")
    assert kept("all,-raw", "user=user_id") == ("all", "-raw", {"user": "user_id"})


def test_changes_of_the_command_come_after_those_of_the_user() -> None:
    flags = JobFlags(model="m", input_=["a"], output="o", set_=["output.url=p", "model.trust=false"], trust_model=True)
    job = flags.read("output.url=q")
    assert job.output.url == "q"
    assert job.model.trust


def test_ops_that_are_trusted_by_flags_come_beside_those_of_the_job() -> None:
    flags = JobFlags(model="m", input_=["a"], output="o", set_=["model.trust=[ReadFile]"], trust_op=["TFText>Sort"])
    assert flags.read().model.trust == ("ReadFile", "TFText>Sort")
    everything = JobFlags(model="m", input_=["a"], output="o", trust_op=["ReadFile"], trust_model=True)
    assert everything.read().model.trust is True
    with pytest.raises(JobError, match=r"'model.trust'.*'a b' is no name of an op"):
        JobFlags(model="m", input_=["a"], output="o", trust_op=["a b"]).read()


def test_op_packages_of_flags_come_beside_those_of_the_job_and_change_what_it_asks_for() -> None:
    flags = {"model": "m", "input_": ["a"], "output": "o"}
    named = JobFlags(**flags, set_=["model.op_packages=ydf_tf"], op_package=["tensorflow_text"]).read()  # type: ignore[arg-type]
    assert named.model.op_packages == ("ydf_tf", "tensorflow_text")
    plain, empty = (JobFlags(**flags, set_=changes).read() for changes in ([], ["model.op_packages=[]"]))  # type: ignore[arg-type]
    assert plain.fingerprint == empty.fingerprint != named.fingerprint


def test_a_job_file_goes_with_changes_but_not_with_flags(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("{model: {url: m}, input: {url: [a]}, output: {url: o}}")
    assert JobFlags(job=path, set_=["output.url=p"]).read().output.url == "p"
    with pytest.raises(JobError, match=r"cannot combine job file .* with --output, --keep: give a job file"):
        JobFlags(job=path, output="p", keep=["id"]).read()


def test_flags_that_make_no_job_are_named() -> None:
    with pytest.raises(JobError, match=r"missing --input, --output$"):
        JobFlags(model="m").read()
