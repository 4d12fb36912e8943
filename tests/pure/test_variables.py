"""Variables of a job file: what they stand for, where, and everything that is wrong with them, at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml

from jobs.document.origin import Origin
from jobs.document.variables import variables_of
from jobs.errors import JobError
from jobs.job import Job
from jobs.load import job_from, load_job
from jobs.section.output import Output
from runner.cli.options import JobFlags, OutputFlags

JOB = """
vars: {dt: "2026-11-01", region: eu}
model: {url: models/churn}
input: {url: ["in/dt=${dt}/${region}/*.parquet", other]}
output: {url: "scores/${dt}"}
"""
SMALL = "model: {url: m}\ninput: {url: i}\noutput: {url: o}\n"
NIGHT = datetime(2026, 11, 30, 1, 30, 5, tzinfo=UTC)


def _one(text: str, now: datetime = NIGHT, **environment: str) -> str:
    """What a text of a job comes to."""
    return load_job(SMALL.replace("url: i", f'url: "{text}"'), "j", origin=Origin(environment, now)).input.url[0]


def _refusal(text: str, overrides: list[str] | None = None, vars: dict[str, object] | None = None) -> str:
    with pytest.raises(JobError) as refused:
        load_job(text, "job.yaml", overrides or [], vars=vars)
    assert refused.value.exit_code == 2
    return refused.value.message


def test_a_variable_has_its_default_and_what_is_given_wins() -> None:
    job = load_job(JOB, "job.yaml")
    assert (job.input.url, job.output.url) == (("in/dt=2026-11-01/eu/*.parquet", "other"), "scores/2026-11-01")
    assert load_job(JOB, "job.yaml", vars={"dt": "2026-11-02"}).output.url == "scores/2026-11-02"
    assert load_job(JOB, "job.yaml", ["output.url=other/${dt}", "vars.dt=2026-11-03"]).output.url == "other/2026-11-03"
    assert load_job(JOB, "job.yaml", ["vars.dt=2026-11-03"], vars={"dt": "b"}).output.url == "scores/b"


def test_a_job_of_variables_is_the_job_that_has_the_texts() -> None:
    plain = (
        JOB.replace("${dt}", "2026-11-01")
        .replace("${region}", "eu")
        .replace('vars: {dt: "2026-11-01", region: eu}', "")
    )
    job = load_job(JOB, "job.yaml")
    assert job == load_job(plain, "job.yaml")
    assert job.model_dump_json() == load_job(plain, "job.yaml").model_dump_json()
    assert type(load_job(JOB, "job.yaml", ["output.url=${dt}"]).output.url) is str


@pytest.mark.parametrize("written", ["1.10", "007", "2026-11-01", "1_000", "yes", "1e3", "0x1F", '"true"', "12:30:00"])
def test_a_default_is_the_text_that_was_written(written: str) -> None:
    text = f"vars: {{v: {written}}}\n" + SMALL.replace("url: o", 'url: "o/${v}"')
    assert load_job(text, "job.yaml").output.url == "o/" + written.strip('"')


def test_a_default_of_another_variable_may_hold_variables_and_a_value_that_is_given_never() -> None:
    text = JOB.replace("region: eu", 'region: "${dt}-${zone}", zone: "z"')
    assert load_job(text, "job.yaml").input.url[0] == "in/dt=2026-11-01/2026-11-01-z/*.parquet"
    job = load_job(text, "job.yaml", vars={"region": "${dt}"})
    assert job.input.url[0] == "in/dt=2026-11-01/${dt}/*.parquet"
    assert "'a' stands in its own default" in _refusal(
        'vars: {a: "${b}", b: "x${a}"}\n' + SMALL.replace("i}", '"${a}"}')
    )


def test_a_text_escapes_what_is_no_variable_and_dollars_alone_stay() -> None:
    text = SMALL.replace("url: i", 'url: ["a$${dt}", "b$", "$c", "d{dt}", "e$$"]')
    assert load_job(text, "job.yaml").input.url == ("a${dt}", "b$", "$c", "d{dt}", "e$$")


def test_a_key_is_no_text_that_holds_variables() -> None:
    text = SMALL + 'columns: {inputs: {"${x}": c}, keep: ["${k}"]}'
    columns = load_job(text, "job.yaml", vars={"k": "id"}).columns
    assert (list(columns.inputs), columns.keep) == (["${x}"], ("id",))


def test_a_reference_of_an_option_may_hold_a_variable_and_stays_a_reference() -> None:
    text = SMALL.replace("url: i", 'url: i, options: {key: "env:KEY_${who}", secret: "env:SECRET"}')
    assert load_job(text, "job.yaml", vars={"who": "EU"}).input.options == {"key": "env:KEY_EU", "secret": "env:SECRET"}
    told = _refusal(SMALL.replace("url: i", 'url: i, options: {secret: "${s}"}'), vars={"s": "canary"})
    assert "option 'secret' holds a literal secret" in told
    assert "canary" not in told


def test_a_variable_that_stands_alone_is_a_number_where_one_is_wanted() -> None:
    text = (
        'model: {url: m, version: "${n}", xla: "${flag}"}\ninput: {url: i}\noutput: {url: o}\n'
        'limits: {shard_rows: "${n}", shard_bytes: "${size}", max_rejected_rows: "${n}", batch_rows: "${auto}"}\n'
        'workers: {cpus: "${half}", count: "${auto}"}\n'
        'columns: {keep: "${n}", inputs: {a: {constant: "${half}"}, b: {constant: "${flag}"},'
        ' c: {constant: "${size}"}}}'
    )
    given = {"n": 7, "size": "1e6", "auto": "auto", "half": "0.5", "flag": "true"}
    job = load_job(text, "job.yaml", vars=given)
    limits = job.limits
    assert (limits.shard_rows, limits.shard_bytes, limits.max_rejected_rows, limits.batch_rows) == (7, 10**6, 7, "auto")
    assert (job.workers.cpus, job.workers.count, job.model.version, job.model.xla) == (0.5, "auto", 7, True)
    assert [column.constant for column in job.columns.inputs.values()] == [0.5, True, 1e6]
    assert job.columns.keep == ("7",)
    assert Job.model_validate_json(job.model_dump_json(by_alias=True)) == job
    assert "'limits.shard_rows' is 'x7'; expected a whole number" in _refusal(
        SMALL + 'limits: {shard_rows: "x${n}"}', vars={"n": 7}
    )
    assert load_job(SMALL + 'limits: {shard_bytes: "${n}MiB"}', "j", vars={"n": 2}).limits.shard_bytes == 2 * 2**20


def test_all_variables_without_a_value_are_told_at_once_with_how_to_give_one() -> None:
    told = _refusal(SMALL.replace("url: i", 'url: "${a}/${b}"').replace("url: o", 'url: "${c-d}"'))
    assert "no value for variable 'a', 'b', 'c-d'" in told
    assert "--var a=... --var b=... --var c-d=..." in told
    assert "'$${'" in told
    declared = _refusal("vars: {a: , b: ~}\n" + SMALL.replace("url: i", 'url: "${a}/${b}"'))
    assert "no value for variable 'a', 'b'" in declared


def test_a_variable_that_nothing_holds_is_told_whoever_gave_it() -> None:
    told = _refusal("vars: {spare: 1}\n" + SMALL, vars={"dt": "x"})
    assert "no text of the job holds '${dt}', '${spare}'" in told
    assert "no text of the job holds '${dt}'" in _refusal(SMALL.replace("url: i", 'url: "$${dt}"'), vars={"dt": "x"})


def test_a_variable_whose_text_a_change_has_replaced_counts_as_used() -> None:
    text = SMALL.replace("url: o", 'url: "scores/${dt}"')
    assert load_job(text, "job.yaml", ["output.url=elsewhere"], vars={"dt": "x"}).output.url == "elsewhere"
    assert load_job(text, "job.yaml", ["output.url=elsewhere"]).output.url == "elsewhere"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${file:a}", "'input.url' holds '${file:...}'; expected '${NAME}', the value of a variable, '${env:NAME}' or"),
        ("${env:}", "'input.url' holds '${env:...}' that names no environment variable; expected '${env:NAME}'"),
        ("${env:A-B}", "'input.url' holds '${env:...}' that names no environment variable"),
        (
            "${date:yesterday}",
            "'input.url' holds '${date:...}' whose format holds no directive; expected a format such",
        ),
        ("${date:}", "whose format holds no directive"),
        ("${date:%A, %d}", "whose format holds '%A'; expected a format such as '%Y-%m-%d', of %Y %m %d %H %M %S %j"),
        ("${date:%Y%}", "whose format holds '%'"),
        ("${date:%%Y}", "whose format holds '%%'"),
        ("${date-1w:%Y}", "with an offset that is none; expected '${date:...}', '${date-1d:...}' or '${date+2h:...}'"),
        ("${date-123456d:%Y}", "with an offset that is none"),
        ("${}", "'input.url' holds '${' that no name and no '}' follow"),
        ("${a b}", "'input.url' holds '${' that no name"),
        ("x${dt", "'input.url' holds '${' that no name"),
    ],
)
def test_what_is_no_variable_is_an_error_with_its_place(text: str, said: str) -> None:
    told = _refusal(SMALL.replace("url: i", f'url: "{text}"'))
    assert said in told
    assert "'$${' stands for '${'" in told


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("[a, b]", "'vars' holds no names of variables"),
        ("dt", "'vars' holds no names"),
        ("{dt: [1]}", "'vars.dt' is no text"),
        ("{dt: {a: 1}}", "'vars.dt' is no text"),
        ('{"a b": 1}', "'a b' is no name of a variable"),
    ],
)
def test_a_section_of_variables_that_is_none_is_refused(section: str, said: str) -> None:
    assert said in _refusal(f"vars: {section}\n" + SMALL.replace("url: i", 'url: "${dt}"'))


def test_variables_cannot_grow_beyond_any_job_file() -> None:
    doubling = ", ".join(f'v{n}: "${{v{n + 1}}}${{v{n + 1}}}"' for n in range(40))
    text = f'vars: {{{doubling}, v40: "xxxxxxxx"}}\n' + SMALL.replace("url: i", 'url: "${v0}"')
    assert "they make more than 16,777,216 characters" in _refusal(text)


def test_json_has_variables_too() -> None:
    text = (
        '{"vars": {"v": 1.5, "w": true}, "model": {"url": "m"}, "input": {"url": "${v}${w}"}, "output": {"url": "o"}}'
    )
    assert load_job(text, "job.json").input.url == ("1.5true",)


def test_a_key_that_is_nearly_vars_is_told_so() -> None:
    assert "did you mean 'vars'?" in _refusal("var: {a: 1}\n" + SMALL)


def test_flags_of_variables_are_names_and_values_and_the_last_one_wins() -> None:
    assert variables_of(["a=1", "b=x=y", "c=", "a=2"]) == {"a": "2", "b": "x=y", "c": ""}
    for wrong in ("a", "=1", "1a=2", "a b=c"):
        with pytest.raises(JobError, match="expected NAME=VALUE"):
            variables_of([wrong])


def test_flags_alone_hold_variables_too_and_an_output_that_is_no_job_file_does_not() -> None:
    job = JobFlags(model="m", input_=["in/${dt}"], output="out/${dt}", var=["dt=1"]).read()
    assert (job.input.url, job.output.url) == (("in/1",), "out/1")
    assert job_from("m", ["i"], "o/${dt}").output.url == "o/${dt}"
    assert OutputFlags("o/${dt}").read() == Output(url="o/${dt}")
    with pytest.raises(JobError, match=r"cannot use --var with 'scores': that is no job file"):
        OutputFlags("scores", var=["dt=1"]).read()


def test_every_command_that_takes_a_job_file_for_its_output_takes_its_variables(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB.replace('dt: "2026-11-01", ', ""))
    assert OutputFlags(str(file), var=["dt=9"]).read().url == "scores/9"
    assert JobFlags(job=file, var=["dt=9"]).read().output.url == "scores/9"
    with pytest.raises(JobError, match="no value for variable 'dt'"):
        OutputFlags(str(file)).read()


def test_the_document_that_is_read_is_not_changed_for_the_next_one() -> None:
    shared = yaml.safe_load(SMALL)
    assert load_job(yaml.safe_dump(shared), "j") == load_job(SMALL, "j")
    text = 'vars: {n: &n 5, m: "x${n}"}\nlimits: {shard_rows: *n}\n' + SMALL.replace("url: o", 'url: "${m}"')
    assert load_job(text, "job.yaml").limits.shard_rows == 5


@pytest.mark.parametrize(
    ("text", "comes_to"),
    [
        ("dt=${date:%Y-%m-%d}", "dt=2026-11-30"),
        ("dt=${date-1d:%Y-%m-%d}", "dt=2026-11-29"),
        ("${date-2h:%Y-%m-%d/%H}", "2026-11-29/23"),
        ("${date+1d:year=%Y/month=%m/day=%d}", "year=2026/month=12/day=01"),
        ("${date:%y%j, %H:%M:%S}", "26334, 01:30:05"),
        ("${date:%G-W%V-%u}", "2026-W49-1"),
        ("${date-365d:%Y}", "2025"),
    ],
)
def test_a_date_is_of_the_instant_in_utc_with_its_offset(text: str, comes_to: str) -> None:
    assert _one(text) == comes_to
    assert _one(text, NIGHT.astimezone(timezone(timedelta(hours=-8)))) == comes_to


def test_all_dates_of_a_job_are_of_one_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Clock:
            asked.append(tz)
            return cls(2026, 12, 31, 23, 59, 59, len(asked), tzinfo=UTC)

    monkeypatch.setattr("jobs.document.origin.datetime", Clock)
    text = SMALL.replace("url: i", 'url: "${date:%S}/${d}"').replace("url: o", 'url: "${date+1d:%S}"')
    load_job('vars: {d: "${date-1h:%S}"}\n' + text, "job.yaml")
    assert asked == [UTC]


def test_a_default_may_be_a_date_and_what_is_given_wins() -> None:
    text = 'vars: {dt: "${date-1d:%Y-%m-%d}"}\n' + SMALL.replace("url: i", 'url: "in/${dt}"')
    origin = Origin({}, NIGHT)
    assert load_job(text, "job.yaml", origin=origin).input.url == ("in/2026-11-29",)
    assert load_job(text, "job.yaml", vars={"dt": "2026-11-01"}, origin=origin).input.url == ("in/2026-11-01",)
    assert "'vars.dt' holds '${date:...}' whose format" in _refusal(text.replace("%Y-%m-%d", "%c"))


def test_the_environment_of_the_command_says_what_its_variables_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _one("in/${env:REGION}/${env:REGION}", REGION="eu") == "in/eu/eu"
    assert _one("in/${env:REGION}", REGION="${dt}") == "in/${dt}"
    monkeypatch.setenv("REGION", "us")
    text = 'limits: {shard_rows: "${env:ROWS}"}\n' + SMALL.replace("url: i", 'url: "${env:REGION}"')
    monkeypatch.setenv("ROWS", "7")
    job = load_job(text, "job.yaml")
    assert (job.input.url, job.limits.shard_rows) == (("us",), 7)
    assert Job.from_yaml(text).input.url == ("us",)
    flags = JobFlags(model="m", input_=["${env:REGION}"], output="o").read()
    assert flags.input.url == ("us",)


def test_an_unset_or_empty_variable_of_the_environment_is_told_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    told = _refusal(SMALL.replace("url: i", 'url: "${a}/${env:NOT_SET}"').replace("url: o", 'url: "${env:EMPTY}"'))
    assert "no value for variable 'a', 'env:NOT_SET', 'env:EMPTY': give --var a=..., or a default under 'vars'" in told
    assert "; set NOT_SET, EMPTY in the environment of the command, to a text that is not empty" in told
    monkeypatch.setenv("LINES", "canary\n2")
    told = _refusal(SMALL.replace("url: i", 'url: "${env:LINES}"'))
    assert "'input.url' holds '${env:...}' whose value holds a line break" in told
    assert "canary" not in told


def test_an_option_that_is_a_secret_is_a_reference_and_never_a_value_of_the_environment() -> None:
    origin = Origin({"X": "canary", "WHICH": "KEY_EU"}, NIGHT)
    for options in (
        'input: {url: i, options: {key: "${env:X}"}}',
        'input: {iceberg: a.b, catalog: {token: "a${env:X}"}}',
    ):
        with pytest.raises(JobError) as refused:
            load_job(SMALL.replace("input: {url: i}", options), "job.yaml", origin=origin)
        told = refused.value.message
        assert "'${env:X}' puts the secret itself there; write the reference 'env:X'" in told
        assert "canary" not in told
    hidden = 'vars: {k: "${env:X}"}\n' + SMALL.replace("url: i", 'url: i, options: {key: "${k}"}')
    with pytest.raises(JobError, match=r"option 'key' holds a literal secret; write a reference: 'env:NAME'"):
        load_job(hidden, "job.yaml", origin=origin)
    plain = SMALL.replace("url: i", 'url: i, options: {key: "env:${env:WHICH}", endpoint_url: "${env:X}"}')
    assert load_job(plain, "job.yaml", origin=origin).input.options == {"key": "env:KEY_EU", "endpoint_url": "canary"}


def test_a_job_tells_the_variables_of_its_texts_but_for_how_a_place_is_reached() -> None:
    text = (
        'vars: {dt: "${date-1d:%F_}", spare: "${env:A}", host: "${env:HOST}"}\n'.replace("%F_", "%d")
        + 'model: {url: m}\noutput: {url: "${spare}"}\n'
        + 'input: {url: "${dt}", options: {endpoint_url: "http://${host}"}}\n'
    )
    origin = Origin({"A": "a", "HOST": "10.0.0.1"}, NIGHT, told={"region": "eu"})
    job = load_job(text, "job.yaml", origin=origin)
    values = {"region": "eu", "dt": "29", "spare": "a", "date-1d:%d": "29", "env:A": "a"}
    assert dict(job.variables) == values
    assert job.named.found == {"date-1d:%d": "29", "env:A": "a", "env:HOST": "10.0.0.1"}
    assert job.named.dated == {"dt": "29"}
    assert load_job(text, "job.yaml", vars={"dt": "1"}, origin=origin).named.dated == {}
    assert dict(load_job(text, "job.yaml", vars={"dt": "1"}, origin=origin).variables) == {
        "region": "eu",
        "dt": "1",
        "spare": "a",
        "env:A": "a",
    }
    assert dict(job.with_("output.url=o").variables) == values
    assert dict(job.model_copy().variables) == values
    assert job == Job.from_yaml(SMALL.replace("url: i", 'url: "29", options: {endpoint_url: "http://10.0.0.1"}')).with_(
        "output.url=a"
    )
    assert dict(Job.from_yaml(SMALL).variables) == {}


def test_what_was_settled_where_a_job_was_submitted_is_not_made_again() -> None:
    text = SMALL.replace("url: i", 'url: "${date:%d}/${env:A}"')
    origin = Origin({"A": "here"}, NIGHT, {"date:%d": "29", "env:A": "there"})
    assert load_job(text, "job.yaml", origin=origin).input.url == ("29/there",)
