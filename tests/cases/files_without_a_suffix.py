"""Files that Hive, Athena, Beam and TFX name without a suffix are read, by their first bytes or the job's format

Reports: apache/amoro#509, lakehq/sail#1785 (`000000_0`). Source: TFX, "ExampleGen" (`data_tfrecord-00000-of-00001.gz`).
"""

import gzip
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from case import ROOT, check, double, end, parquet, score

model = double()
table = pa.table({"x": pa.array([1, 2, 3], pa.float32())})
hive = parquet("hive")
for index in range(2):
    pq.write_table(table, hive / f"00000{index}_0")
(hive / "_SUCCESS").touch()
for told in ((), ("--set", "input.format=parquet")):
    done = score(model, hive, *told)
    check(done.table is not None and done.table.num_rows == 6, f"a folder of Hive {told}", done)

for name, packed in {"train.tfrecord-00000-of-00001": "", "data_tfrecord-00000-of-00001.gz": "GZIP"}.items():
    (ROOT / name).mkdir()
    with tf.io.TFRecordWriter(str(ROOT / name / name), packed) as writer:
        for value in (1.0, 2.0):
            feature = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=[value]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    done = score(model, ROOT / name, "--set", "input.examples=infer")
    check(done.table is not None and done.table["y"].to_pylist() == [2.0, 4.0], f"a folder of {name}", done)

packed = parquet("packed", table)
for file in packed.iterdir():
    file.with_name("f0.parquet.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
for told in ((), ("--set", "input.format=parquet")):
    done = score(model, packed, *told)
    check(done.code == 2 and "gz" in done.told, f"Parquet in gzip {told}", done)
end()
