"""What changes numbers, as a value: what is known of it travels, and differences name who has which value."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

from jobs.numerics import UNKNOWN, Numerics, differences, unlike
from runner.engine.numerics import processor, variables

INTEL = Numerics(
    tensorflow="2.21.0",
    onednn=True,
    xla=False,
    threads=4,
    cpu="Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz",
    isa="avx avx2 fma avx512f avx512_vnni",
    environment=(("TF_ENABLE_ONEDNN_OPTS", "1"), ("XLA_FLAGS", "--xla_cpu_enable_fast_min_max=false")),
)


def test_what_is_known_survives_json_and_another_process_as_one_object() -> None:
    again = Numerics.from_document(json.loads(json.dumps(INTEL.document())))
    assert again == INTEL
    assert again is pickle.loads(pickle.dumps(INTEL)), "a run has a million receipts"  # noqa: S301
    assert INTEL.document()["xla"] is False
    assert "tf32" not in INTEL.document(), "what is not known is left out"
    assert len(json.dumps(INTEL.document())) < 400, "every part carries it"


def test_what_an_older_version_left_out_or_someone_edited_is_not_known() -> None:
    for document in (None, {}, "2.21", {"environment": "--a"}, {"cpu": ["x"]}):
        assert Numerics.from_document(document) == UNKNOWN
    assert Numerics.from_document({"tensorflow": "3.0", "colour": "blue"}) == Numerics(tensorflow="3.0")


def test_a_difference_names_the_fact_and_who_has_which_value() -> None:
    old = replace(INTEL, onednn=False, environment=INTEL.environment[1:])
    found = differences({INTEL: ["w1", "w3", "w1"], old: ["w2"], UNKNOWN: ["w4"]})
    assert [str(one) for one in found] == [
        "onednn: on (w1, w3), off (w2)",
        "TF_ENABLE_ONEDNN_OPTS: 1 (w1, w3), not set (w2)",
    ]
    assert differences({INTEL: ["w1", "w2"], UNKNOWN: ["w3"]}) == []


def test_a_worker_is_unlike_the_first_by_any_fact_that_the_first_knew() -> None:
    assert unlike(INTEL, INTEL) == []
    other = replace(INTEL, threads=8, gpu="NVIDIA H100", environment=(("TF_DETERMINISTIC_OPS", "1"),))
    assert unlike(INTEL, other) == [
        "threads: 4 there, 8 here",
        "TF_ENABLE_ONEDNN_OPTS: 1 there, not set here",
        "XLA_FLAGS: --xla_cpu_enable_fast_min_max=false there, not set here",
        "gpu: not set there, NVIDIA H100 here",
        "TF_DETERMINISTIC_OPS: not set there, 1 here",
    ]
    older = replace(INTEL, isa="")
    assert unlike(older, INTEL) == [], "an older version did not look at it"
    assert unlike(INTEL, older) == ["isa: avx avx2 fma avx512f avx512_vnni there, not set here"]


def test_many_workers_are_counted_and_what_is_not_known_of_some_differs_from_nothing() -> None:
    gpu = replace(INTEL, gpu="NVIDIA H100", tf32=True)
    assert differences({INTEL: ["w1"], gpu: ["w2"]}) == []
    (found,) = differences({INTEL: [f"w{n}" for n in range(12)], replace(INTEL, threads=8): ["x"]})
    assert str(found).startswith("threads: 4 (w0, w1, ")
    assert str(found).endswith("w9 and 2 more), 8 (x)")


def test_the_kind_of_a_cpu_is_read_on_x86_and_on_arm() -> None:
    x86 = {"model name": "AMD EPYC 7R13", "flags": "fpu sse avx fma avx2 sha_ni"}
    assert processor(x86, "x86_64") == ("AMD EPYC 7R13", "avx avx2 fma")
    arm = {"CPU implementer": "0x41", "CPU part": "0xd40", "Features": "fp asimd sve bf16"}
    assert processor(arm, "aarch64") == ("aarch64 0x41 0xd40", "asimd sve bf16")
    assert processor({}, "arm64") == ("arm64", "")


def test_only_variables_that_change_numbers_are_kept() -> None:
    given = {"XLA_FLAGS": "--a", "AWS_SECRET_ACCESS_KEY": "x", "ONEDNN_MAX_CPU_ISA": "AVX2", "NVIDIA_TF32_OVERRIDE": ""}
    assert variables(given) == (("ONEDNN_MAX_CPU_ISA", "AVX2"), ("XLA_FLAGS", "--a"))
