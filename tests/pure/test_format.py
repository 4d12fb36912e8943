"""What a job file may say of each format."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from jobs.format import (
    DEFAULT_CODEC,
    DEFAULT_FORMAT,
    EXAMPLES_FORMAT,
    RULES,
    Codec,
    PartFormat,
    check_codec,
    default_codec,
)
from jobs.section.input import Input


def test_every_name_of_a_format_has_rules_and_its_default_is_one_of_its_codecs() -> None:
    assert [*RULES] == [*get_args(PartFormat)]
    for rules in RULES.values():
        assert rules.default in rules.codecs
        assert {*rules.codecs} <= {*get_args(Codec)}


@pytest.mark.parametrize("name", get_args(PartFormat))
@pytest.mark.parametrize("codec", get_args(Codec))
def test_a_codec_that_a_format_does_not_have_is_refused_with_those_it_has(name: PartFormat, codec: Codec) -> None:
    refusals = {
        "arrow": f"compression '{codec}' is not part of Arrow IPC; choose zstd, lz4 or none",
        "tfrecord": f"compression '{codec}' is not read with TFRecord files; choose gzip or none",
        "csv": f"compression '{codec}' is not read with CSV files; choose none, gzip or zstd",
        "jsonl": f"compression '{codec}' is not read with JSON lines; choose none, gzip or zstd",
    }
    if codec in RULES[name].codecs:
        check_codec(name, codec)
        return
    with pytest.raises(ValueError, match="choose") as caught:
        check_codec(name, codec)
    assert str(caught.value) == refusals[name]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("tfrecord", "none"),
        ("arrow", "zstd"),
        ("parquet", "zstd"),
        ("csv", "none"),
        ("csw", "zstd"),
        (None, "zstd"),
        ([1], "zstd"),
    ],
)
def test_what_a_job_leaves_open_is_the_default_of_its_format(name: Any, codec: str) -> None:
    assert default_codec(name) == codec


def test_the_defaults_go_together() -> None:
    assert RULES[DEFAULT_FORMAT].default == DEFAULT_CODEC


def test_a_job_that_names_examples_says_its_format_by_them() -> None:
    assert Input(url="i").stated_format is None
    assert Input(url="i", format="arrow").stated_format == "arrow"
    assert Input(url="i", examples="infer").stated_format == EXAMPLES_FORMAT
    assert Input(url="i", examples="infer").format is None, "the fingerprint of a job holds what the job says"
