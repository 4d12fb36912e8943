"""Trial and warm-up with real models: what a few rows prove, what is refused by name, and what they leave alone."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.attempt import Failure, Success, attempt
from jobs.errors import ModelError, PoisonError
from jobs.job import Job
from jobs.section.limits import Limits
from runner.driver.launch import RunOptions, launch
from runner.engine import EngineOptions
from runner.preflight.preflight import preflight
from runner.preflight.shape import batch_sizes
from runner.worker.trial.trial import Trial
from runner.worker.warm_up import REQUESTS
from runner.worker.worker import Worker

_SCRIPT = """
import sys, tensorflow as tf

def vector(dtype=tf.float32, size=None):
    return tf.TensorSpec([size], dtype, name="x")

class Odd(tf.Module):
    @tf.function(input_signature=[vector()])
    def fine(self, x):
        return {"y": x * 2, "name": tf.strings.as_string(x), "list": tf.stack([x, x], 1)}

    @tf.function(input_signature=[vector()])
    def total(self, x):
        # The signature says that its size is unknown; it is 1.
        return {"y": x * 2, "total": tf.unique(0 * x).y + tf.reduce_sum(x)}

    @tf.function(input_signature=[vector()])
    def centred(self, x):
        return {"y": x - tf.reduce_mean(x)}

    @tf.function(input_signature=[vector()])
    def summed(self, x):
        return {"y": tf.cumsum(x)}

    @tf.function(input_signature=[vector()])
    def first(self, x):
        return {"y": 0 * x + x[0]}

    @tf.function(input_signature=[vector(tf.string)])
    def backwards(self, x):
        return {"y": tf.reverse(x, [0])}

    @tf.function(input_signature=[vector()])
    def never(self, x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x < 0), ["never: no row is good"])]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[vector()])
    def one_row(self, x):
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x)[0], 1)]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[vector()])
    def noisy(self, x):
        return {"y": x + tf.random.uniform(tf.shape(x))}

    @tf.function(input_signature=[vector()])
    def no_kernel(self, x):
        state = tf.zeros([1, 1, 4])
        cudnn = tf.raw_ops.CudnnRNN(
            input=tf.reshape(x, [1, -1, 1]) * tf.ones([1, 1, 4]), input_h=state, input_c=state, params=tf.zeros([100]),
            is_training=False)
        return {"y": x + tf.reduce_sum(cudnn.output)}

    @tf.function(input_signature=[vector(size=16)])
    def sixteen(self, x):
        return {"y": x * 2}

    @tf.function(input_signature=[vector()])
    def eight(self, x):
        # Only 8 rows fit, although the signature takes any number; its output says so.
        return {"y": x * tf.fill([8], 2.0)}

    @tf.function(input_signature=[vector()])
    def hidden_eight(self, x):
        return {"y": tf.raw_ops.PlaceholderWithDefault(input=x * tf.fill([8], 2.0), shape=[None])}

    @tf.function(input_signature=[vector()])
    def placed(self, x):
        return {"y": x + tf.range(8.0)}

    @tf.function(input_signature=[vector()])
    def table(self, x):
        return {"y": tf.range(8.0) + 0 * tf.reduce_sum(x)}

    @tf.function(input_signature=[vector()])
    def picky(self, x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x >= 1), ["below one"])]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[vector()])
    def batched(self, x):
        twice = tf.nondifferentiable_batch_function(1, 8, 50_000, allowed_batch_sizes=[4, 8])(lambda x: x * 2)
        return {"y": tf.ensure_shape(twice(x), [None])}

    @tf.function(input_signature=[vector(tf.string)])
    def parsed(self, x):
        return {"y": tf.io.parse_example(x, {"a": tf.io.FixedLenFeature([], tf.float32)})["a"]}

    @tf.function(input_signature=[vector(), tf.TensorSpec([None, 2], tf.float32, name="w")])
    def two_inputs(self, x, w):
        clean = tf.where(tf.math.is_nan(x), 0.0, x)
        return {"patched": clean + 1, "plain": x + 0 * clean, "of_w": tf.reduce_sum(w, 1), "fixed": 0 * w[:, 0] + 1}

    @tf.function(input_signature=[vector()])
    def patched(self, x):
        return {"y": tf.where(tf.math.is_nan(x), 0.0, x) + 1, "name": tf.strings.as_string(0 * x)}

    @tf.function(input_signature=[vector()])
    def dense(self, x):
        return {"y": tf.reduce_sum(tf.nn.relu(tf.nn.bias_add(x[:, None] @ tf.ones([1, 4]), tf.range(1.0, 5.0))), 1)}

class Counter(tf.Module):
    def __init__(self):
        super().__init__()
        self.count = tf.Variable(0.0)

    @tf.function(input_signature=[vector()])
    def counter(self, x):
        return {"y": x * 0 + self.count.assign_add(1.0)}

odd, counter = Odd(), Counter()
names = ("fine", "total", "centred", "one_row", "noisy", "no_kernel", "sixteen", "picky", "parsed",
         "two_inputs", "patched", "dense", "eight", "hidden_eight", "placed", "table", "batched", "summed", "first",
         "backwards", "never")
tf.saved_model.save(odd, sys.argv[1] + "/odd", signatures={name: getattr(odd, name) for name in names})
tf.saved_model.save(counter, sys.argv[1] + "/counter", signatures={"counter": counter.counter})
example = lambda a: tf.train.Example(features=tf.train.Features(feature={
    "a": tf.train.Feature(float_list=tf.train.FloatList(value=[a]))})).SerializeToString()
with open(sys.argv[1] + "/examples", "wb") as file:
    file.write(b"".join(len(one).to_bytes(4, "little") + one for one in map(example, [1.0, 2.0, 3.0, 4.0])))
sys.path.insert(0, sys.argv[2])
from runner.proto.runtime_pb2 import PredictionLog
from runner.proto.saved_model_pb2 import TensorProto
import os
os.makedirs(sys.argv[1] + "/odd/assets.extra")
with tf.io.TFRecordWriter(sys.argv[1] + "/odd/assets.extra/tf_serving_warmup_requests") as writer:
    def predict(name, value):
        log = PredictionLog()
        log.predict_log.request.model_spec.signature_name = name
        proto = TensorProto.FromString(tf.make_tensor_proto(value).SerializeToString())
        log.predict_log.request.inputs["x"].CopyFrom(proto)
        writer.write(log.SerializeToString())
    predict("fine", tf.constant([1.0, 2.0]))
    predict("fine", tf.constant([1.0, 2.0, 3.0]))
    predict("picky", tf.constant([0.0]))
    log = PredictionLog()
    log.classify_log.request.model_spec.signature_name = "parsed"
    log.classify_log.request.input.example_list.examples.append(example(7.0))
    writer.write(log.SerializeToString())
"""


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `odd` (with warm-up requests) and `counter`, and `examples`."""
    folder = tmp_path_factory.mktemp("odd")
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _SCRIPT, str(folder), str(Path(__file__).parents[3])]
    subprocess.run(command, check=True, env=quiet, stderr=subprocess.DEVNULL)
    return folder


MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(odd: Path, tmp_path: Path) -> MakeJob:
    """make_job(signature, model="odd", values=..., outputs=None, **sections): ids from 0, and x."""

    def make(
        signature: str, values: Any = None, model: str = "odd", outputs: list[str] | None = None, **sections: Any
    ) -> Job:
        x = pa.array(range(1, 101), pa.float32()) if values is None else values
        pq.write_table(pa.table({"id": range(len(x)), "x": x}), tmp_path / "in.parquet", row_group_size=30)
        job = {
            "model": {"url": str(odd / model), "signature": signature},
            "input": {"url": str(tmp_path / "in.parquet")},
            "columns": {"keep": ["id"], "outputs": outputs},
            "output": {"url": str(tmp_path / "out")},
        }
        return Job.model_validate(job | sections)

    return make


def worker(job: Job) -> Worker:
    return Worker(preflight(job).spec(job.output), "w1", EngineOptions(threads=1))


def tried(job: Job) -> Trial:
    return worker(job).trial()


def test_a_model_that_is_what_its_signature_says_is_proved(make_job: MakeJob) -> None:
    found = tried(make_job("fine"))
    assert (found.rows, found.proved, found.notes, found.placed) == ("input", True, (), {})


def test_an_output_that_does_not_follow_the_rows_is_refused_by_name(make_job: MakeJob) -> None:
    with pytest.raises(ModelError, match=r"output 'total' of signature 'total' .* shape \[1\] for 3 rows.*\[y\]"):
        tried(make_job("total"))
    assert tried(make_job("total", outputs=["y"])).proved


def test_an_output_that_depends_on_the_rows_beside_is_refused(make_job: MakeJob) -> None:
    with pytest.raises(ModelError, match=r"output 'y' .* depend on the rows beside a row"):
        tried(make_job("centred"))
    assert tried(make_job("centred", limits={"batch_rows": 1})).proved  # nothing is beside it then


def test_a_signature_that_takes_one_row_a_call_says_so(make_job: MakeJob) -> None:
    with pytest.raises(ModelError, match=r"cannot give 2 rows a call .*set `limits: \{batch_rows: 1\}`"):
        tried(make_job("one_row"))
    assert tried(make_job("one_row", limits={"batch_rows": 1})).proved


def test_random_answers_are_told_and_not_refused(make_job: MakeJob) -> None:
    made = worker(make_job("noisy"))
    found = made.trial()
    assert not found.proved
    assert found.notes == (), "the plan told it already"
    made._spec = dataclasses.replace(made._spec, draws=False)  # as where only the answers show it
    assert "are other numbers at every call" in made.trial().notes[0]


def test_where_bits_count_random_answers_are_refused_by_the_plan_and_by_the_trial(make_job: MakeJob) -> None:
    for signature, model, why in (("noisy", "odd", "RandomUniform"), ("counter", "counter", "AssignAddVariableOp")):
        with pytest.raises(ModelError, match=rf"cannot promise equal bits for signature '{signature}' .*\({why}\)"):
            preflight(make_job(signature, model=model, limits={"reproducible": True}))
    made = worker(make_job("noisy"))
    made._spec = dataclasses.replace(made._spec, limits=Limits(reproducible=True))  # as where no op tells
    with pytest.raises(ModelError, match=r"outputs 'y' of signature 'noisy' .* differ between two equal calls"):
        made.trial()
    assert tried(make_job("fine", limits={"reproducible": True})).proved


def test_a_missing_kernel_is_named(make_job: MakeJob) -> None:
    with pytest.raises(PoisonError, match=r"has no kernel of its op 'CudnnRNN'.* \[a call with 1 row\]") as refusal:
        tried(make_job("no_kernel"))
    facts = refusal.value.facts
    assert (facts["op"], facts["code"], facts["signature"], facts["rows"]) == (
        "CudnnRNN",
        "MODEL_FAULT",
        "no_kernel",
        1,
    )


def test_a_model_with_a_fixed_batch_is_proved(make_job: MakeJob) -> None:
    assert tried(make_job("sixteen")).proved


@pytest.mark.parametrize(("signature", "model"), [("eight", {}), ("hidden_eight", {"batch": 8})])
def test_a_graph_for_8_rows_is_given_8_whatever_its_signature_says(
    make_job: MakeJob, tmp_path: Path, signature: str, model: dict[str, int]
) -> None:
    job = make_job(signature, limits={"shard_rows": 1})  # each row group is a shard: 1 to 20 rows
    job = job.model_copy(update={"model": job.model.model_copy(update=model)})
    with pq.ParquetWriter(tmp_path / "in.parquet", pa.schema([("id", pa.int64()), ("x", pa.float32())])) as writer:
        for rows in range(1, 21):
            ids = range(rows * rows, rows * rows + rows)
            writer.write_table(pa.table({"id": ids, "x": pa.array(ids, pa.float32())}))
    assert preflight(job).batch_rows == 8
    assert tried(job).proved
    assert launch(job, RunOptions(in_process=True)).rows == 210
    for rows, part in enumerate(sorted((tmp_path / "out").glob("part-*")), start=1):
        ids = range(rows * rows, rows * rows + rows)
        assert pq.read_table(part).to_pydict() == {"id": [*ids], "y": [2.0 * row for row in ids]}


@pytest.mark.parametrize("signature", ["placed", "table"])
def test_answers_that_depend_on_the_place_of_a_row_are_refused(make_job: MakeJob, signature: str) -> None:
    with pytest.raises(ModelError, match=r"output 'y' .* depend on the rows beside a row, or on its place"):
        tried(make_job(signature, values=pa.array([5.0] * 40, pa.float32())))


def test_a_graph_that_hides_how_many_rows_it_takes_is_told_with_what_to_write(make_job: MakeJob) -> None:
    with pytest.raises(
        ModelError, match=r"'y' has the shape \[8\] for 1 row; .* or `model: \{batch: 8\}` if its graph"
    ):
        tried(make_job("hidden_eight"))


def test_the_batch_of_a_job_makes_another_plan(make_job: MakeJob) -> None:
    job = make_job("hidden_eight")
    other = job.model_copy(update={"model": job.model.model_copy(update={"batch": 8})})
    assert preflight(job).plan.identity["model"].get("batch") is None
    assert preflight(other).plan.identity["model"]["batch"] == 8
    assert preflight(job).plan.id != preflight(other).plan.id


@pytest.mark.parametrize("batch_rows", ["auto", 256])
def test_a_model_that_batches_by_itself_gets_full_batches_over_row_groups(
    make_job: MakeJob, batch_rows: str | int, tmp_path: Path
) -> None:
    job = make_job("batched", limits={"batch_rows": batch_rows})
    ready = preflight(job)
    assert (ready.batch_rows, ready.most_batch_rows, ready.spec(job.output).most_rows) == (8, 8, 8)
    assert ready.scanned.batching is not None
    assert ready.scanned.batching.wait_s == 0.05
    result = launch(job, RunOptions(in_process=True), warn=lambda story: None)
    assert result.rows == 100
    assert result.account is not None
    use = next(iter(result.account.uses.values()))
    assert use.most_rows == 8
    # 12 full calls, and one of 4 rows that waits; row groups have 30, whose rests would wait three times more.
    assert 0.05 <= use.seconds["run"] < 0.15


def test_two_bad_rows_prove_nothing_and_are_no_refusal(make_job: MakeJob) -> None:
    found = tried(make_job("picky", pa.array([0.0, 0.5], pa.float32())))
    assert (found.proved, found.rows) == (False, "input")
    assert "below one" in found.unproved
    for values in ([0.0, 2.0, 3.0], [2.0, 0.0, 3.0]):
        assert tried(make_job("picky", pa.array(values, pa.float32()))).proved, "the other rows show it"


@pytest.mark.parametrize("signature", ["summed", "first"])
def test_a_row_that_depends_on_earlier_rows_ends_the_job_before_a_shard_is_given_out(
    make_job: MakeJob, tmp_path: Path, signature: str
) -> None:
    with pytest.raises(ModelError, match=r"output 'y' .* depend on the rows beside a row"):
        launch(make_job(signature), RunOptions(in_process=True))
    assert list((tmp_path / "out").glob("part-*")) == []


def test_what_equal_rows_cannot_show_is_told_and_the_first_batch_whose_rows_differ_shows_it(make_job: MakeJob) -> None:
    said: list[str] = []
    values = pa.array(["same"] * 30 + [f"row {number}" for number in range(60)] + ["same"] * 10)
    with pytest.raises(ModelError, match=r"output 'y' .* depend on the rows .* row group 1 row") as ended:
        launch(make_job("backwards", values), RunOptions(in_process=True), warn=said.append)
    assert ended.value.exit_code == 2
    assert "it is not proved that each row of the outputs of signature 'backwards'" in said[0]


def test_a_model_that_refuses_every_row_is_at_fault_and_no_row_is_rejected(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("never", limits={"on_bad_row": "reject", "max_rejected_rows": "100%"})
    with pytest.raises(PoisonError, match=r"it refuses every row that was tried, .*: .*never: no row is good"):
        launch(job, RunOptions(in_process=True))
    assert list((tmp_path / "out").rglob("*reject*")) == []


@pytest.mark.parametrize("signature", ["never", "no_kernel"])
def test_a_model_that_is_not_tried_is_at_fault_with_its_first_batch_and_no_row_is_rejected(
    make_job: MakeJob, tmp_path: Path, signature: str
) -> None:
    job = make_job(signature, limits={"on_bad_row": "reject", "max_rejected_rows": "100%"})
    planned = preflight(job)
    spec = dataclasses.replace(planned.spec(job.output), repeatable=False, sample=None)
    stuck = Worker(spec, "w1", EngineOptions(threads=1))
    failure = stuck.attempt(attempt(planned.plan, planned.plan.shards[0], 1, 1, "0" * 12))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, PoisonError)
    assert failure.error.facts["code"] == "MODEL_FAULT"
    given = dataclasses.replace(attempt(planned.plan, planned.plan.shards[0], 2, 1, "1" * 12), works=True)
    again = stuck.attempt(given)
    assert isinstance(again, Success) == (signature == "never"), "another worker's rows went well"


def test_rows_are_made_up_where_the_smallest_row_group_is_large(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.preflight.shape._NUMBER_BYTES", 10)
    for signature, dtype in (("fine", pa.float32()), ("sixteen", pa.float32())):
        found = tried(make_job(signature, pa.array(range(100), dtype)))
        assert (found.rows, found.proved) == ("made up", True)
    with pytest.raises(ModelError, match="depend on the rows beside a row"):
        tried(make_job("centred"))


def test_a_model_that_a_call_would_change_is_left_alone(make_job: MakeJob) -> None:
    made = worker(make_job("counter", model="counter"))
    assert made.warm_up.calls == 0
    assert made.trial() == Trial("none", False), "the plan told that a call would change its state"


# NaN in inputs


def test_the_outputs_that_a_nan_does_not_reach_are_named_and_those_that_do_not_depend_on_it_are_not(
    make_job: MakeJob,
) -> None:
    columns = {"inputs": {"x": "x", "w": {"stack": ["x", "x"]}}}
    found = tried(make_job("two_inputs", columns=columns))
    assert found.unseen == {"x": ("patched",)}, "it reaches 'plain' and 'of_w'; 'fixed' has NaN from 'w'"
    assert found.notes == (), "no null becomes NaN"
    one_by_one = tried(make_job("two_inputs", columns=columns, limits={"batch_rows": 1}))
    assert one_by_one.unseen == found.unseen
    rejecting = make_job("two_inputs", columns=columns, limits={"nan_output": "reject", "on_bad_row": "reject"})
    assert tried(rejecting).unseen == found.unseen, "a NaN in x shows in 'plain', so that the row is rejected"


def test_a_nan_that_shows_in_no_output_is_refused_where_rows_are_rejected_by_it(make_job: MakeJob) -> None:
    rejecting = {"nan_output": "reject", "on_bad_row": "reject"}
    with pytest.raises(ModelError, match=r"a NaN in 'x' does not reach 'y' on this machine.*`nonfinite: reject` sets"):
        tried(make_job("patched", limits=rejecting))
    for said in ("reject", "pass"):
        found = tried(make_job("patched", limits=rejecting | {"nonfinite": said}))
        assert found.unseen == ({"x": ("y",)} if said == "pass" else {}), "where no NaN comes in, none is tried"
        assert found.notes == ()


@pytest.mark.parametrize("said", [None, "reject", "pass"])
def test_nulls_that_become_nan_and_have_clean_answers_are_told(make_job: MakeJob, said: str | None) -> None:
    columns = {"inputs": {"x": {"column": "x", "null": "nan"}}}
    limits = {"nonfinite": said, "on_bad_row": "reject"}
    found = tried(make_job("patched", columns=columns, limits=limits))
    assert found.unseen == {"x": ("y",)}
    assert len(found.notes) == (said != "pass")
    assert all("a NaN in 'x' does not reach 'y' on this machine: `null: nan` gives" in note for note in found.notes)


def test_a_row_that_refuses_a_nan_shows_it(make_job: MakeJob) -> None:
    found = tried(make_job("picky"))  # asserts that x >= 1, which a NaN is not
    assert (found.unseen, found.proved) == ({}, True)


def test_what_the_trial_says_of_a_dense_layer_is_what_rows_get_on_this_machine(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(
        "dense", pa.array([1, None, 3], pa.float32()), columns={"inputs": {"x": {"column": "x", "null": "nan"}}}
    )
    assert preflight(job).warnings == [
        "`null: nan` of 'x' may have clean answers: Relu behind MatMul may make numbers of NaN on a CPU, and"
        " `nan_output` sees nothing of it then"
    ]
    warned: list[str] = []
    result = launch(job, RunOptions(in_process=True), warn=warned.append)
    hidden = bool(warned)
    answers = pq.read_table(next((tmp_path / "out").glob("part-*")))["y"].to_pylist()
    assert (answers[0], answers[2]) == (14.0, 22.0)
    assert math.isnan(answers[1]) != hidden
    assert (result.nan_rows, result.nonfinite_rows, result.unseen_rows) == (not hidden, 1, hidden)
    if answers[1] == 0:  # oneDNN fused the layer
        assert hidden
        assert "a NaN in 'x' does not reach 'y' on this machine" in warned[0]


def test_plan_says_what_run_will_ask(make_job: MakeJob) -> None:
    def warnings(signature: str, **limits: Any) -> list[str]:
        return preflight(make_job(signature, limits={"on_bad_row": "reject"} | limits)).warnings

    (story,) = warnings("dense", nan_output="reject")
    assert "`nan_output: reject` may miss a NaN in 'x': Relu behind MatMul" in story
    assert "`nonfinite: reject` or `nonfinite: pass`" in story
    assert warnings("dense", nan_output="reject", nonfinite="pass") == []
    assert warnings("dense", nan_output="reject", nonfinite="reject") == []
    assert warnings("dense") == []
    assert warnings("fine", nan_output="reject") == []


# warm-up


def test_the_requests_of_the_model_and_the_batches_of_the_job_warm_it_up(make_job: MakeJob) -> None:
    made = worker(make_job("fine", limits={"batch_rows": 20}))
    found = made.warm_up
    assert (found.requests, found.rows, found.note) == (2, "input", "")
    assert found.calls == 4  # 3 rows twice, and batches of 10 and 20
    assert found.seconds > 0


def test_serialised_examples_warm_up_a_classify_signature(make_job: MakeJob, odd: Path) -> None:
    content, examples = (odd / "examples").read_bytes(), []
    while content:
        size = int.from_bytes(content[:4], "little")
        examples.append(content[4 : 4 + size])
        content = content[4 + size :]
    made = worker(make_job("parsed", pa.array(examples, pa.binary())))
    assert (made.warm_up.requests, made.warm_up.note) == (1, "")
    assert made.trial().proved


def test_a_warm_up_that_fails_is_noted_and_harms_nothing(make_job: MakeJob, odd: Path, tmp_path: Path) -> None:
    picky = worker(make_job("picky")).warm_up
    assert "warm-up request 1" in picky.note
    assert picky.calls > 0
    copy = tmp_path / "copy"
    shutil.copytree(odd / "odd", copy)
    (copy / REQUESTS).write_bytes(b"\x05\0\0\0\0\0\0\0crc!five")
    found = worker(make_job("fine", model=str(copy))).warm_up
    assert "is no TFRecord file, or was cut off" in found.note
    assert found.calls > 0


def test_batch_sizes_are_those_of_the_plan(make_job: MakeJob) -> None:
    plan = preflight(make_job("fine")).plan  # row groups of 30, 30, 30 and 10
    assert batch_sizes(plan, 30, exact=False) == (30, 10)
    assert batch_sizes(plan, 1000, exact=False) == (30, 10)
    assert batch_sizes(plan, 20, exact=False) == (10, 20)
    assert batch_sizes(plan, 64, exact=True) == (64,)


# in a whole job, in this process


def test_what_the_trial_refuses_ends_the_job_before_a_shard_is_given_out(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(PoisonError, match="has no kernel of its op 'CudnnRNN'") as ended:
        launch(make_job("no_kernel"), RunOptions(in_process=True))
    assert ended.value.exit_code == 70
    assert list((tmp_path / "out").glob("part-*")) == []
    assert list((tmp_path / "out").glob("_run/*/receipts/*")) == []


def test_what_the_trial_found_is_told_once_and_the_warm_up_is_reported_apart(make_job: MakeJob) -> None:
    said: list[str] = []
    job = make_job("noisy", workers={"count": 2}, limits={"shard_rows": 30})
    result = launch(job, RunOptions(in_process=True), warn=said.append)
    assert len(said) == 1
    assert "may draw random numbers" in said[0]
    assert result.rows == 100
    assert result.report["warm_up_seconds"] > 0


def test_the_session_tells_where_ops_run(make_job: MakeJob) -> None:
    made = worker(make_job("fine"))
    placed = made._engine.placed(made._sample.feeds([0, 1]), ["y"])
    assert placed["CPU"]["Mul"] == 1
