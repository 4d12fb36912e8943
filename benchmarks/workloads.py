"""The workloads: data, model, and the way a user's own loop would feed it. Fixed, so that figures compare over time.

Data and models are made once, below benchmarks/.cache. What imports TensorFlow does so in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

CACHE = Path(__file__).parent / ".cache"

Feeds = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """
    rows:    by default.
    columns: of the input that are read; `id` is one of them and is kept.
    outputs: that are asked for.
    table:   (first row, rows, random) -> the rows with their ids, as arrays by column.
    export:  writes the model into a folder, in a process of its own.
    feeds:   what a user's loop makes of a batch; also Ray Data's actor.
    mapping: `columns: inputs` of our job, where names alone do not do.
    files:   of the input; uneven: they differ by up to a quarter, as files of a day do.
    peers:   by default, see `peers.py`.
    format:  of the files: 'parquet', 'csv' or 'jsonl'.
    like:    the workload whose model this is; "": its own.
    """

    name: str
    rows: int
    row_group: int
    batch_rows: int  # of the peers, the best found; ours finds its own
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    table: Callable[[int, int, np.random.Generator], dict[str, pa.Array]]
    export: Callable[[str], None]
    feeds: Callable[[pa.RecordBatch], Feeds]
    mapping: Mapping[str, Any] | None = None
    tolerance: float = 1e-5
    files: int = 8
    uneven: bool = False
    peers: tuple[str, ...] = ("plain", "raydata")
    format: str = "parquet"
    like: str = ""

    def input(self, rows: int) -> Path:
        """The folder with `rows` rows in files; made if it is not there."""
        folder = CACHE / f"{self.name}-{rows}"
        if (folder / "done").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number, (first, stop) in enumerate(pairwise(self._ends(rows))):
            self._write(folder / f"{number}.{self.format}", first, stop, random)
        (folder / "done").touch()
        return folder

    def _write(self, path: Path, first: int, stop: int, random: np.random.Generator) -> None:
        writer: Any = None
        for start in range(first, stop, self.row_group):
            count = min(self.row_group, stop - start)
            table = pa.table({"id": pa.array(np.arange(start, start + count))} | self.table(start, count, random))
            if self.format == "jsonl":
                table.to_pandas().to_json(path, orient="records", lines=True, mode="a", double_precision=9)
                continue
            if writer is None:
                parquet = self.format == "parquet"
                writer = (
                    pq.ParquetWriter(path, table.schema, compression="snappy")
                    if parquet
                    else csv.CSVWriter(path, table.schema)
                )
            writer.write_table(table)
        if writer is not None:
            writer.close()

    def files_of(self, source: Path | str) -> list[Path]:
        """The files of `input`, in their order."""
        return sorted(Path(source).glob(f"*.{self.format}"))

    def _ends(self, rows: int) -> list[int]:
        """The first row of each file, and the end of the last."""
        shares = np.random.default_rng(3).uniform(0.8, 1.0, self.files) if self.uneven else np.ones(self.files)
        ends: list[int] = (np.concatenate([[0], np.cumsum(shares)]) / shares.sum() * rows).astype(np.int64).tolist()
        return [*ends[:-1], rows]

    def model(self) -> Path:
        """The model's folder; exported if it is not there."""
        folder = CACHE / f"{self.like or self.name}-model"
        if not folder.exists():
            draft = folder.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            command = [sys.executable, __file__, self.like or self.name, str(draft)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"the model of '{self.name}' could not be made:\n{done.stderr}")
            draft.rename(folder)
        return folder

    def job(self, rows: int, output: Path, **sections: Any) -> dict[str, Any]:
        """Our job, as a job file."""
        columns: dict[str, Any] = {"outputs": list(self.outputs), "keep": ["id"]}
        text = self.format != "parquet"  # which says no type of a column that is kept
        if self.mapping:
            columns["inputs"] = dict(self.mapping)
        return {
            "model": {"url": str(self.model())},
            "input": {"url": f"{self.input(rows)}/*.{self.format}"} | ({"schema": {"id": "int64"}} if text else {}),
            "columns": columns,
            "output": {"url": str(output)},
        } | sections


def fixed_lists(batch: pa.RecordBatch, column: str, width: int) -> np.ndarray:
    """A column of fixed-size lists without nulls as (rows, width), without a copy."""
    return batch.column(column).flatten().to_numpy().reshape(-1, width)


# vector and wide


def _vector_table(start: int, rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    values = pa.array(random.standard_normal(rows * 32, dtype=np.float32))
    return {"features": pa.FixedSizeListArray.from_arrays(values, 32)}


def _wide_table(start: int, rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    return {f"f{at}": pa.array(random.standard_normal(rows, dtype=np.float32)) for at in range(32)}


def _export_mlp(folder: str) -> None:
    import tensorflow as tf

    class Mlp(tf.Module):
        def __init__(self) -> None:
            widths = [32, 64, 64, 1]
            self.weights = [
                (tf.Variable(tf.random.stateless_normal([a, b], [i, 7]) / a**0.5), tf.Variable(tf.zeros([b])))
                for i, (a, b) in enumerate(pairwise(widths))
            ]

        @tf.function(input_signature=[tf.TensorSpec([None, 32], tf.float32, name="features")])
        def serve(self, features: Any) -> Any:
            hidden = features
            for weight, bias in self.weights[:-1]:
                hidden = tf.nn.relu(hidden @ weight + bias)
            weight, bias = self.weights[-1]
            return {"score": tf.sigmoid(hidden @ weight + bias)[:, 0], "embedding": hidden}

    model = Mlp()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.serve})


def _wide_feeds(batch: pa.RecordBatch) -> Feeds:
    columns = [batch.column(f"f{at}").to_numpy() for at in range(32)]
    return {"features": np.stack(columns, axis=1, dtype=np.float32, casting="same_kind")}  # text has 64 bits, as read


# logits


def _export_logits(folder: str) -> None:
    import tensorflow as tf

    class Classes(tf.Module):
        def __init__(self) -> None:
            self.hidden = tf.Variable(tf.random.stateless_normal([32, 64], [1, 7]) / 32**0.5)
            self.last = tf.Variable(tf.random.stateless_normal([64, 1000], [2, 7]) / 8)

        @tf.function(input_signature=[tf.TensorSpec([None, 32], tf.float32, name="features")])
        def serve(self, features: Any) -> Any:
            return {"logits": tf.nn.relu(features @ self.hidden) @ self.last}

    model = Classes()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.serve})


# image


def _image_table(start: int, rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    values = pa.array(random.integers(0, 256, rows * 150_528, dtype=np.uint8))
    return {"pixels": pa.FixedSizeListArray.from_arrays(values, 150_528)}


def _export_mobilenet(folder: str) -> None:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(7)
    net = tf.keras.applications.MobileNet(weights=None)

    class Classifier(tf.Module):
        def __init__(self) -> None:
            self.weights = [variable.value for variable in net.variables]  # TensorFlow does not track Keras's own

        @tf.function(input_signature=[tf.TensorSpec([None, 150_528], tf.uint8, name="pixels")])
        def serve(self, pixels: Any) -> Any:
            images = tf.reshape(tf.cast(pixels, tf.float32), [-1, 224, 224, 3]) / 127.5 - 1.0
            return {"probs": net(images, training=False)}

    model = Classifier()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.serve})


# text


def _words() -> list[str]:
    """10,000 made-up words of some letters and a number."""
    random = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return ["".join(random.choice(letters, random.integers(1, 8))) + str(at) for at in range(10_000)]


def _text_table(start: int, rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    words = np.array(_words())
    counts = np.minimum(random.geometric(0.12, rows), 22)
    picked = words[random.integers(0, len(words), int(counts.sum()))]
    bounds = np.concatenate([[0], np.cumsum(counts)])
    texts = [" ".join(picked[a:b])[:200] for a, b in pairwise(bounds.tolist())]
    return {"text": pa.array(texts)}


def _export_text(folder: str) -> None:
    import tensorflow as tf

    class Embedder(tf.Module):
        def __init__(self) -> None:
            words = tf.constant(_words())
            pairs = tf.lookup.KeyValueTensorInitializer(words, tf.range(1, len(words) + 1, dtype=tf.int64))
            self.table = tf.lookup.StaticHashTable(pairs, 0)
            self.vectors = tf.Variable(tf.random.stateless_normal([10_001, 16], [3, 7]))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def serve(self, text: Any) -> Any:
            words = tf.strings.split(text)
            vectors = tf.gather(self.vectors, self.table.lookup(words.flat_values))
            sums = tf.math.segment_sum(vectors, words.value_rowids())
            counts = tf.cast(words.row_lengths(), tf.float32)[:, tf.newaxis]
            return {"vector": sums / tf.maximum(counts, 1.0)}

    model = Embedder()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.serve})


# sequence

_LONGEST, _IDS = 512, 10_000


def _sequence_table(start: int, rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    lengths = np.clip(random.lognormal(3.5, 0.9, rows).astype(np.int64), 1, _LONGEST)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = random.integers(1, _IDS + 1, int(offsets[-1]), dtype=np.int32)
    return {"steps": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))}


def _export_sequence(folder: str) -> None:
    import tensorflow as tf

    class Mean(tf.Module):
        def __init__(self) -> None:
            self.vectors = tf.Variable(tf.random.stateless_normal([_IDS + 1, 16], [3, 7]))

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="steps")])
        def serve(self, steps: Any) -> Any:
            there = tf.cast(steps > 0, tf.float32)[:, :, tf.newaxis]
            sums = tf.reduce_sum(tf.gather(self.vectors, steps) * there, axis=1)
            return {"vector": sums / tf.reduce_sum(there, axis=1)}

    model = Mean()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.serve})


def _sequence_feeds(batch: pa.RecordBatch) -> Feeds:
    steps = batch.column("steps")
    lengths = steps.value_lengths().to_numpy()
    padded = np.zeros((len(lengths), int(lengths.max())), np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = steps.flatten().to_numpy()
    return {"steps": padded}


# jax


def _export_keras_on_jax(folder: str) -> None:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1, activation="sigmoid", name="score")]
    model = keras.Sequential([keras.Input((32,), name="features"), *layers])
    model.export(folder, format="tf_saved_model", verbose=False)


# example

_EXAMPLES = 5_000  # distinct ones; rows repeat them in random order


def _example(random: np.random.Generator) -> bytes:
    """A serialized tf.Example with 12 floats, 4 integers and 2 strings, written by hand: no TensorFlow is needed."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    features = {f"f{at}": field(2, field(1, random.standard_normal(1, dtype=np.float32).tobytes())) for at in range(12)}
    features |= {f"i{at}": field(3, field(1, varint(int(random.integers(0, 1000))))) for at in range(4)}
    features |= {f"s{at}": field(1, field(1, b"key%d" % random.integers(0, 100))) for at in range(2)}
    entries = (field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items())
    return field(1, b"".join(entries))


def _example_table(start: int, rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    source = np.random.default_rng(2)
    distinct = pa.array([_example(source) for _ in range(_EXAMPLES)], pa.binary())
    return {"examples": distinct.take(pa.array(random.integers(0, _EXAMPLES, rows)))}


def _export_example(folder: str) -> None:
    import tensorflow as tf

    class Linear(tf.Module):
        def __init__(self) -> None:
            self.weights = tf.Variable(tf.random.stateless_normal([16, 1], [5, 7]))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples: Any) -> Any:
            one = tf.io.FixedLenFeature
            wanted = {f"f{at}": one([], tf.float32) for at in range(12)} | {
                f"i{at}": one([], tf.int64) for at in range(4)
            }
            wanted |= {f"s{at}": one([], tf.string) for at in range(2)}
            parsed = tf.io.parse_example(examples, wanted)
            numbers = [parsed[f"f{at}"] for at in range(12)]
            numbers += [tf.cast(parsed[f"i{at}"], tf.float32) / 1000.0 for at in range(4)]
            keys = tf.cast(tf.strings.length(parsed["s0"]) + tf.strings.length(parsed["s1"]), tf.float32)
            return {"score": tf.squeeze(tf.stack(numbers, axis=1) @ self.weights, 1) + keys}

    model = Linear()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.serve})


def _strings(column: str) -> Callable[[pa.RecordBatch], Feeds]:
    return lambda batch: {column: batch.column(column).to_numpy(zero_copy_only=False)}


WORKLOADS = {
    one.name: one
    for one in (
        Workload(
            name="vector",
            rows=16_000_000,
            row_group=65_536,
            batch_rows=65_536,
            columns=("id", "features"),
            outputs=("score",),
            table=_vector_table,
            export=_export_mlp,
            feeds=lambda batch: {"features": fixed_lists(batch, "features", 32)},
        ),
        Workload(
            name="wide",
            rows=4_000_000,
            row_group=65_536,
            batch_rows=65_536,
            columns=("id", *(f"f{at}" for at in range(32))),
            outputs=("score",),
            table=_wide_table,
            export=_export_mlp,
            feeds=_wide_feeds,
            mapping={"features": {"stack": "f*"}},
        ),
        Workload(
            name="jax",
            rows=902_326,
            row_group=65_536,
            batch_rows=65_536,  # of the hand-padded script 32,768: a file has no more; see `peers.py`
            columns=("id", "features"),
            outputs=("output_0",),
            table=_vector_table,
            export=_export_keras_on_jax,
            feeds=lambda batch: {"features": fixed_lists(batch, "features", 32)},
            files=40,
            uneven=True,
            peers=("plain", "padded"),
        ),
        Workload(
            name="logits",
            rows=200_000,
            row_group=16_384,
            batch_rows=4_096,
            columns=("id", "features"),
            outputs=("logits",),
            table=_vector_table,
            export=_export_logits,
            feeds=lambda batch: {"features": fixed_lists(batch, "features", 32)},
            tolerance=1e-4,
        ),
        Workload(
            name="image",
            rows=1_024,
            row_group=64,
            batch_rows=64,
            columns=("id", "pixels"),
            outputs=("probs",),
            table=_image_table,
            export=_export_mobilenet,
            feeds=lambda batch: {"pixels": fixed_lists(batch, "pixels", 150_528)},
        ),
        Workload(
            name="text",
            rows=1_000_000,
            row_group=65_536,
            batch_rows=16_384,
            columns=("id", "text"),
            outputs=("vector",),
            table=_text_table,
            export=_export_text,
            feeds=_strings("text"),
            tolerance=1e-4,
        ),
        Workload(
            name="example",
            rows=1_000_000,
            row_group=65_536,
            batch_rows=16_384,
            columns=("id", "examples"),
            outputs=("score",),
            table=_example_table,
            export=_export_example,
            feeds=_strings("examples"),
            tolerance=1e-4,
        ),
        Workload(
            name="sequence",
            rows=1_000_000,
            row_group=65_536,
            batch_rows=1_024,  # the plain loop pads to the longest row of a batch: larger ones are mostly padding
            columns=("id", "steps"),
            outputs=("vector",),
            table=_sequence_table,
            export=_export_sequence,
            feeds=_sequence_feeds,
            mapping={"steps": {"column": "steps", "pad": {"multiple_of": 8}}},
        ),
    )
}

# The rows of `wide`, in the formats that state no types.
WORKLOADS |= {
    name: replace(WORKLOADS["wide"], name=name, rows=rows, format=name, like="wide")
    for name, rows in (("csv", 4_000_000), ("jsonl", 1_000_000))
}


if __name__ == "__main__":  # python workloads.py NAME FOLDER: export a model
    WORKLOADS[sys.argv[1]].export(sys.argv[2])
