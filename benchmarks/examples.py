"""How fast columns become serialized tf.Examples: 18 features, one core, no model.

One JSON line: rows and bytes a second of CPU, the median of 9 batches of 65,536 rows.
"""

from __future__ import annotations

import json
import statistics
import time

import numpy as np
import pyarrow as pa

from connectors.formats.tfrecord.example import encode

ROWS = 65_536


def columns() -> dict[str, pa.Array]:
    """6 floats, 6 integers of 1 to 6 digits, 4 strings of 10 to 12 bytes, a boolean, a list of 0 to 4 integers."""
    draw = np.random.default_rng(0)
    names = np.array([f"category-{number}" for number in range(1000)])
    floats = {f"float_{n}": pa.array(draw.normal(size=ROWS).astype(np.float32)) for n in range(6)}
    integers = {f"integer_{n}": pa.array(draw.integers(0, 10 ** (n + 1), ROWS)) for n in range(6)}
    strings = {f"string_{n}": pa.array(names[draw.integers(0, 1000, ROWS)]) for n in range(4)}
    offsets = np.concatenate([[0], np.cumsum(draw.integers(0, 5, ROWS))]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(draw.integers(0, 1000, int(offsets[-1]))))
    return {**floats, **integers, **strings, "flag": pa.array(draw.integers(0, 2, ROWS) > 0), "list": lists}


def main() -> None:
    made = [*columns().items()]
    seconds = []
    for _ in range(10):
        began = time.process_time()
        written = encode(made, ROWS)
        seconds.append(time.process_time() - began)
    median = statistics.median(seconds[1:])
    rates = {"rows_per_cpu_s": round(ROWS / median), "bytes_per_cpu_s": round(written.nbytes / median)}
    print(json.dumps({"benchmark": "examples", "features": len(made), "rows": ROWS, **rates}))


if __name__ == "__main__":
    main()
