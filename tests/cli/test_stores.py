"""A job whose output is on an S3 server, and the commands that look at it: by its job file, or by flags."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_servers import moto_server, new_bucket

Command = Callable[..., Any]
SECRET = "s3cr3t-canary"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("moto", reason="the S3 server for tests is not installed: moto[server]")
    with moto_server(sys.executable) as url:
        new_bucket(url, "scores")
        yield url


def test_an_output_on_s3_is_written_shown_proven_and_swept_and_no_secret_is_kept(
    endpoint: str, command: Command, job_file: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"endpoint_url": endpoint, "key": "env:CANARY_KEY", "secret": "env:CANARY_SECRET"}
    job_file(output={"url": "s3://scores/out", "options": options})
    variables = {"CANARY_KEY": SECRET, "CANARY_SECRET": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    ran = command("run", "job.yaml", "--in-process", "--json", **variables)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["rows"] == 2000
    told = ran.stdout + ran.stderr
    for asked in (["status", "--json"], ["verify", "--deep", "--json"], ["sweep", "--dry-run", "--json"]):
        done = command(asked[0], "job.yaml", *asked[1:], **variables)
        assert done.returncode == 0, done.stderr
        told += done.stdout + done.stderr
    flags = [flag for name, value in options.items() for flag in ("--option", f"{name}={value}")]
    shown = command("status", "s3://scores/out", *flags, "--json", **variables)
    assert json.loads(shown.stdout)["state"] == "finished"
    assert SECRET not in told + shown.stdout + shown.stderr
    literal = command("status", "s3://scores/out", "--option", f"secret={SECRET}")
    assert literal.returncode == 2
    assert SECRET not in literal.stderr
    assert "env:NAME" in literal.stderr
