"""`limits: {reproducible: true}` with a model whose last bits depend on a batch's size and on a row's place in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from connectors.output.directory import OutputDirectory
from jobs.attempt import Failure, attempt
from jobs.errors import CapacityError, StoppedError
from jobs.job import Job
from jobs.numerics import Numerics
from runner import engine
from runner.driver.launch import RunOptions, Stopper, launch
from runner.engine import EngineOptions
from runner.preflight.preflight import preflight
from runner.worker.worker import Worker

ROWS, GROUP, WIDTH = 600, 90, 37
NULL, REFUSED = (3, 40, 250, 251, 599), (17, 90, 130, 400)
IN_PROCESS = RunOptions(in_process=True)
USUAL: dict[str, Any] = {"shard_rows": 180, "batch_rows": 13, "on_bad_row": "reject", "max_rejected_rows": "50%"}
KEPT = USUAL | {"reproducible": True}

ENDED = StoppedError("stopped by the test")

Make = Callable[..., Job]
Bits = dict[int, bytes]  # id -> the bytes of its row


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bad/rows.parquet`: 600 rows in row groups of 90, nine of them bad; `mended/rows.parquet`: none is."""
    home = tmp_path_factory.mktemp("reproducible")
    for name in ("bad", "mended"):
        f = np.random.default_rng(5).standard_normal((ROWS, WIDTH), np.float32)
        f[list(REFUSED), 0] = -100.0 if name == "bad" else 0.0
        null = np.zeros(f.shape, np.bool_)
        null[list(NULL), 1] = name == "bad"
        values = pa.array(f.reshape(-1), mask=null.reshape(-1))
        table = pa.table({"id": range(ROWS), "f": pa.FixedSizeListArray.from_arrays(values, WIDTH)})
        (home / name).mkdir()
        pq.write_table(table, home / name / "rows.parquet", row_group_size=GROUP, write_page_checksum=True)
    return home


@pytest.fixture(scope="module")
def make(home: Path, half_plus_two: Path) -> Make:
    """make(output, limits, input, ...): a job of these rows, into a folder of its own."""

    def job(output: str, limits: Mapping[str, Any] = KEPT, input: str = "bad", **sections: Any) -> Job:
        document: dict[str, Any] = {
            "model": {"url": str(half_plus_two), "signature": "delicate"},
            "input": {"url": str(home / input / "*.parquet")},
            "columns": {"keep": ["id"]},
            "output": {"url": str(home / f"out-{output}")},
            "workers": {"cpus": 1},
            "limits": limits,
        }
        return Job.model_validate(document | sections)

    return job


def bits(job: Job) -> Bits:
    """Of every row that was written."""
    table = pa.concat_tables(pq.read_table(part) for part in sorted(Path(job.output.url).glob("part-*")))
    p = table["p"].combine_chunks().to_numpy_ndarray()
    s = table["s"].to_numpy()
    return {id: p[row].tobytes() + s[row].tobytes() for row, id in enumerate(table["id"].to_pylist())}


def scored(job: Job) -> Bits:
    launch(job, IN_PROCESS)
    return bits(job)


def attempts(job: Job, shards: int = 4, isolated: bool = False, first: Numerics | None = None, **options: Any) -> Bits:
    """The rows of the first shards, which a worker carries one by one; of those that it may write.

    first: numerics of the first worker of the output. options: of each attempt.
    """
    ready = preflight(job)
    output = OutputDirectory(job.output, ready.plan.id, len(ready.plan.shards))
    output.claim(ready.plan, takeover=True)
    if first is not None:
        output.first_numerics(first)
    worker = Worker(ready.spec(job.output), "w1", EngineOptions(threads=1), isolated=isolated)
    with closing(worker):
        for shard in ready.plan.shards[:shards]:
            done = worker.attempt(attempt(ready.plan, shard, 2, 1, "0" * 12, isolated=isolated, **options))
            if isinstance(done, Failure):
                raise done.error
    return bits(job)


def differing(one: Bits, other: Bits) -> int:
    """Of the rows that both have, how many differ in a bit."""
    return sum(one[id] != other[id] for id in one.keys() & other.keys())


@pytest.fixture(scope="module")
def found(make: Make) -> Bits:
    """What one worker writes that meets nothing but bad rows."""
    rows = scored(make("first"))
    assert sorted(rows) == [id for id in range(ROWS) if id not in NULL + REFUSED]
    return rows


def test_the_plan_holds_the_size_of_all_batches_and_only_where_bits_count(make: Make) -> None:
    stated, auto = preflight(make("plan")), preflight(make("plan", KEPT | {"batch_rows": "auto"}))
    for ready, rows in ((stated, 13), (auto, 128)):
        assert (ready.batch_rows, ready.most_batch_rows, ready.binding.batch_rows) == (rows, rows, rows)
        assert ready.plan.identity["limits"]["batch_rows"] == rows
        assert ready.spec(ready.job.output).batch_sizes == (rows,)
    assert stated.plan.id != auto.plan.id
    usual = [preflight(make("plan", USUAL | {"batch_rows": rows})).plan.id for rows in (13, 128)]
    assert usual[0] == usual[1] != stated.plan.id
    compiled = make("plan", model=stated.job.model.model_dump() | {"xla": True})
    assert preflight(compiled).binding.batch_rows == 13


def test_without_it_the_size_of_a_batch_and_rejected_neighbours_change_bits(make: Make) -> None:
    usual = scored(make("usual", USUAL))
    assert differing(usual, scored(make("larger", USUAL | {"batch_rows": 50}))) > 20
    assert differing(usual, scored(make("usual-mended", USUAL, "mended"))) > 5
    assert differing(usual, attempts(make("halved", USUAL), halvings=2)) > 5


def test_two_workers_and_other_shards_write_the_same_bits(make: Make, found: Bits) -> None:
    assert scored(make("two-workers", KEPT | {"shard_rows": 90}, workers={"cpus": 1, "count": 2})) == found


def test_a_run_that_was_stopped_is_continued_with_the_same_bits_and_only_by_workers_like_the_first(
    make: Make, found: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, stopper = KEPT | {"shard_rows": 90}, Stopper()
    job, other = make("stopped", limits), make("stopped", limits, workers={"cpus": 2})
    with pytest.raises(StoppedError):
        launch(job, IN_PROCESS, stopper=stopper, watch=lambda at: at.shards_done and stopper.stop(ENDED))
    assert set() < bits(job).keys() < found.keys()

    said: list[str] = []
    monkeypatch.setattr("jobs.schedule.draw._BACK_OFF_S", 0.0)
    monkeypatch.setattr(engine, "_pool_threads", [engine.pool_threads(1) + 1])  # as in another process
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(CapacityError) as caught:
        launch(other, IN_PROCESS, warn=said.append)
    assert caught.value.exit_code == 69
    assert re.search(r"threads: \d there, \d here; ONEDNN_MAX_CPU_ISA: not set there, AVX2 here", caught.value.message)
    assert "`workers.cpus` decides the threads" in caught.value.message
    assert len(said) == 1, "three starts were tried, and one is told"

    monkeypatch.undo()
    assert scored(job) == found
    assert launch(other, RunOptions(in_process=True, overwrite=True)).rows == len(found), "with a new first worker"


def test_the_neighbours_of_bad_rows_have_the_bits_that_they_have_beside_good_ones(make: Make, found: Bits) -> None:
    mended = scored(make("mended", input="mended"))
    assert (len(mended), differing(mended, found)) == (ROWS, 0)


def test_attempts_after_lack_of_memory_and_isolated_ones_write_the_same_bits(make: Make, found: Bits) -> None:
    assert attempts(make("tired"), halvings=3, safe_rows={"f[37]": 4}) == found
    few = KEPT | {"shard_rows": 90}
    alone = attempts(make("isolated", few), shards=1, isolated=True)
    assert (len(alone), differing(alone, found)) == (87, 0)
    with pytest.raises(CapacityError, match=r"tensorflow: 1\.0 there"):
        attempts(make("elsewhere", few), shards=1, isolated=True, first=Numerics("1.0"))


def test_a_row_group_that_cannot_be_read_moves_no_row_of_another(make: Make, found: Bits, home: Path) -> None:
    path = home / "bad" / "rows.parquet"
    (home / "torn").mkdir()
    chunk, content = pq.read_metadata(path).row_group(2).column(0), bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    (home / "torn" / "rows.parquet").write_bytes(bytes(content))
    torn = scored(make("torn", KEPT | {"on_bad_file": "skip", "max_bad_files": "100%"}, "torn"))
    assert (len(found) - len(torn), differing(found, torn)) == (88, 0)


# Outside CI: whatever is killed


@pytest.fixture(scope="module")
def padded(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """f (rows, longest) -> p (rows, 5), s (rows,), of lists that are filled up with zeros to the longest of a batch."""
    tf = tensorflow

    class Padded(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="f")])
        def score(self, f: Any) -> Any:
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(f[:, 0] > -90), ["out of its domain"])]):
                sums = tf.reduce_sum(tf.where(f == 0, 0.0, tf.math.log1p(tf.exp(f))), 1)
            return {"p": tf.sigmoid(sums[:, None] / [10.0, 20.0, 30.0, 40.0, 50.0]), "s": tf.reduce_sum(f, 1)}

    path, module = tmp_path_factory.mktemp("padded") / "model", Padded()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(path), signatures={"delicate": module.score})
    return path


@pytest.mark.surprises
@pytest.mark.timeout(570)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_killed_the_bytes_of_all_columns_are_the_same(
    seed: int, half_plus_two: Path, padded: Path, tmp_path: Path, saw: Callable[[str], None]
) -> None:
    draw = np.random.default_rng(seed)
    lists, sizes = bool(seed % 2), draw.integers(1, 900, 8).tolist()
    bad = 0
    for number, rows in enumerate(sizes):
        lengths = draw.integers(1, 40, rows) if lists else np.full(rows, WIDTH)
        first = np.where(draw.random(rows) < 0.01, -100.0, 0.5)
        f = [[one, *draw.standard_normal(length)] for one, length in zip(first, lengths - 1, strict=True)]
        bad += int((first < 0).sum())
        column = pa.array(f, pa.list_(pa.float32()) if lists else pa.list_(pa.float32(), WIDTH))
        table = pa.table({"id": np.arange(rows) + sum(sizes[:number]), "f": column})
        pq.write_table(table, tmp_path / f"in-{number}.parquet", row_group_size=int(draw.integers(20, 400)))
    document: dict[str, Any] = {
        "model": {"url": str(padded if lists else half_plus_two), "signature": "delicate"},
        "input": {"url": str(tmp_path / "in-*.parquet")},
        "columns": {"keep": ["id"], "inputs": {"f": {"column": "f", "pad": "max"} if lists else {"column": "f"}}},
        "workers": {"cpus": 1},
        "limits": KEPT | {"shard_rows": 300, "batch_rows": [13, "auto", 50, 7][seed]},
    }

    def runs(name: str, *flags: str, **environment: str) -> tuple[Bits, int]:
        """Until all is written: the bits, and how many runs it took."""
        file, job = tmp_path / f"{name}.yaml", document | {"output": {"url": str(tmp_path / name)}}
        file.write_text(yaml.safe_dump(job))
        command = [sys.executable, "-m", "runner", "run", str(file), "--quiet", *flags]
        for number in range(1, 9):
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=200)
            if not done.returncode:
                return bits(Job.model_validate(job)), number
        raise AssertionError(done.stderr)

    def faults(name: str, *effects: str) -> dict[str, str]:
        """Each once, over all processes, at a batch that chance chooses."""
        rules = [f"{one}@{draw.integers(1, 40)}#{tmp_path}/{name}{at}" for at, one in enumerate(effects)]
        return {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": ";".join(rules)}

    found, _ = runs("first", "--in-process")
    assert len(found) == sum(sizes) - bad
    killed, times = runs("killed", "--in-process", **faults("k", "W3.run=kill", "W3.run=kill", "W3.run=raise"))
    on_ray, _ = runs("ray", "--set", "workers.count=2", **faults("r", "W3.run=kill", "W3.run=kill", "W3.run=raise"))
    limits = document["limits"] | {"reproducible": False, "batch_rows": 29}
    document["limits"] = limits
    usual, _ = runs("usual", "--in-process")
    after = f"{differing(found, killed)} rows differ after {times} runs, {differing(found, on_ray)} after deaths on Ray"
    kind = "lists" if lists else "vectors"
    saw(f"{len(found):,} {kind}, {bad} bad: {after}; without `reproducible` {differing(found, usual):,}")
    assert killed == found == on_ray
    assert times > 1
    assert differing(found, usual) > 0
