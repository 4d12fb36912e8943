"""`--where`, `--limit` and `--sample`: a part of the rows, of a job file and of flags alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.job import Job
from jobs.load import load_job
from jobs.section.input import Input
from runner.cli.jobs import SubmitFlags, _folder
from runner.cli.options import JobFlags

SMALL = "model: {url: /m}\ninput: {url: /i}\noutput: {url: /o}\n"
OWN = SMALL.replace("url: /i", "url: /i, where: \"dt = '${dt}' or age > 3\", limit: 9")


def _file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    return file


def _part(rows: Input) -> tuple[str | None, int | None, float | None]:
    return rows.where, rows.limit, rows.sample


@pytest.mark.parametrize("text", [SMALL, SMALL.replace("{url: /i}", "/i")])
def test_a_job_file_and_flags_alone_take_a_part_of_the_rows(text: str, tmp_path: Path) -> None:
    flags = {"where": "age >= 18", "limit": "1e3", "sample": "0.01"}
    from_file = JobFlags(_file(tmp_path, text), **flags).read()
    alone = JobFlags(model="/m", input_=["/i"], output="/o", **flags).read()
    assert _part(from_file.input) == _part(alone.input) == ("age >= 18", 1000, 0.01)
    assert type(from_file.input.limit) is int
    assert _part(JobFlags(_file(tmp_path, text)).read().input) == (None, None, None)


def test_a_condition_stands_beside_the_one_of_the_job_and_a_number_in_its_place(tmp_path: Path) -> None:
    file = _file(tmp_path, OWN)
    job = JobFlags(file, var=["dt=1"], where="country = '${dt}' or x", limit="5").read()
    assert _part(job.input) == ("(dt = '1' or age > 3) and (country = '1' or x)", 5, None)
    changed = JobFlags(file, set_=["input.where=y"], where="x").read()
    assert changed.input.where == "(y) and (x)"
    with pytest.raises(JobError, match=r"'input.where' is true; expected text"):
        JobFlags(file, set_=["input.where=true"], where="x").read()


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("sample", "2", "--sample: 'input.sample' is 2; expected"),
        ("sample", "half", "--sample: 'input.sample' is 'half'; expected a number"),
        ("limit", "0", "--limit: 'input.limit' is 0; expected"),
        ("limit", "x", "--limit: 'input.limit' is 'x'; expected a whole number"),
        ("where", " ", "cannot use --where: "),
        ("where", "a = 1) or (b = 2", "cannot use --where: "),
        ("where", "age >> 3", "at character 6"),
    ],
)
def test_a_part_that_is_none_is_refused_by_the_name_of_its_flag(
    flag: str, value: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError) as refused:
        JobFlags(_file(tmp_path, OWN), var=["dt=1"], **{flag: value}).read()
    assert said in refused.value.message


def test_what_is_submitted_is_the_same_part_with_and_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, private = _file(tmp_path, OWN), tmp_path / "private"
    private.mkdir()
    part = {"where": "c in ('a', 'b')", "limit": "7", "sample": "0.5"}
    meant = ("(dt = '1' or age > 3) and (c in ('a', 'b'))", 7, 0.5)
    for home in (None, tmp_path):
        wanted, name, folder, flags = _folder(file, SubmitFlags(working_dir=home, var=["dt=1"], **part), private)
        monkeypatch.chdir(folder)
        sent = dict(zip(flags[::2], flags[1::2], strict=True))
        again = {flag: sent.get(f"--{flag}") for flag in part}
        read = JobFlags(Path(name), var=[sent["--var"]] if home else [], **again).read()
        assert _part(wanted.input) == _part(read.input) == meant


def test_in_python_a_part_is_a_change_like_any_other() -> None:
    job = Job.from_yaml(SMALL, {"input.where": "a", "input.limit": 7}, "input.sample=0.5")
    assert _part(job.input) == ("a", 7, 0.5)
    assert _part(load_job(SMALL, "j").with_({"input.limit": 8}).input) == (None, 8, None)
