"""Each error has its stable code in its text, and those of a run in its log of JSON and in `status --json` too"""

import json

import pyarrow as pa
import tensorflow as tf
from case import ROOT, check, double, end, parquet, runner, score

model = double()
good = pa.table({"x": pa.array([1, 2], pa.float32())})


def broken(name, change):
    """A folder whose one file is `change` of the bytes of a good one."""
    file = parquet(name, good, write_page_checksum=True, compression="none", use_dictionary=False) / "f0.parquet"
    file.write_bytes(change(file.read_bytes()))
    return file.parent


value = bytes.fromhex("0000803f")  # 1.0, which is twice in the file: once in its page, and in statistics
sources = {
    "FILE_MAGIC": (broken("magic", lambda data: b"text" * 100), 2),
    "FILE_EMPTY": (broken("empty", lambda data: b""), 2),
    "FILE_TRUNCATED": (broken("truncated", lambda data: data[:-20]), 2),
    "PAGE_CRC": (broken("crc", lambda data: data.replace(value + b"\0\0\0@", value + b"\0\0\1@")), 65),
    "COLUMN_MISSING": (parquet("missing", pa.table({"z": good["x"]})), 2),
    "COLUMN_TYPE": (parquet("type", pa.table({"x": ["a"]})), 2),
    "ROW_NULL": (parquet("null", pa.table({"x": pa.array([1, None], pa.float32())})), 65),
    "NO_INPUT": (ROOT / "nowhere", 2),
}
for code, (source, exit_code) in sources.items():
    done = score(model, source)
    check(done.code == exit_code and code in done.told, f"{code} in text", done)
    if exit_code == 2:
        plan = runner("plan", "--model", model, "--input", source, "--output", "out", "--json")
        check(plan.code == 2 and code in plan.told, f"{code} beside --json", plan)
    else:
        done = score(model, source, "--log-format", "json")
        lines = [json.loads(line) for line in done.told.splitlines() if line.startswith("{")]
        check(any(line.get("code") == code for line in lines), f"{code} in --log-format json", done)
        status = runner("status", ROOT / "out", "--json")
        check(f'"{code}"' in status.told, f"{code} in status --json", status)

v1 = tf.compat.v1
with tf.Graph().as_default(), v1.Session() as session:
    x = v1.placeholder(tf.string, [None], name="x")
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1]), 0)
    predict = v1.saved_model.predict_signature_def({"x": x}, {"y": table.lookup(x)})
    builder = v1.saved_model.Builder(str(ROOT / "table"))
    builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": predict})
    builder.save()
words = parquet("words", pa.table({"x": ["a", "b"]}))
done = score(ROOT / "table", words, "--set", "model.engine=session")
check(
    done.code in (2, 70) and "not initialized" in done.told and "eager" in done.told, "a table that is not set up", done
)
end()
