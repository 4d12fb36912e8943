"""The `slow-store` workload: 33 scattered columns of one file on a store that takes 30 ms for every answer.

The store is a server on loopback that knows ranges; a thread for each connection, so that what is asked for at once is
answered at once. With `AGAINST=COMMIT` in the environment the same job is run by that commit, too, in turns.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from measure import ROOT, checkout, emptied, median, paired, program
from workloads import CACHE, WORKLOADS

ANSWER_S = 0.030
ROWS = 200_000
# Every tenth column is read, and the id; between them lies more than is fetched as a gap.
_GROUPS, _COLUMNS, _EVERY = 8, 330, 10
_MODEL = WORKLOADS["wide"]


def slow_store(rows: int, rounds: int) -> dict[str, Any]:
    """One line: seconds and answers of today's build, and of another one where `AGAINST` names it."""
    file, model, against = _file(rows), _MODEL.model(), os.environ.get("AGAINST", "")
    roots = {"today": ROOT} | ({"against": checkout(against)} if against else {})
    line: dict[str, Any] = {"workload": "slow-store", "rows": rows, "rounds": rounds, "answer_s": ANSWER_S}
    done: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
    with _served(file.parent) as (address, asked):
        for number in range(rounds):
            for name in sorted(roots, reverse=number % 2 == 0):
                job = CACHE / "job-slow.yaml"
                job.write_text(yaml.safe_dump(_job(f"{address}/{file.name}", model, emptied(CACHE / "out-slow"))))
                before = len(asked)
                run = program("-m", "runner", "run", str(job), "--json", "--quiet", "--in-process", root=roots[name])
                phases = {"loop_s": run.answer["working_s"], "answers": len(asked) - before}
                done[name].append({"seconds": run.seconds} | phases)
    emptied(CACHE / "out-slow")
    for name, runs in done.items():
        line[name] = {figure: median([run[figure] for run in runs]) for figure in ("seconds", "loop_s", "answers")}
    if against:
        line["commit"] = against
        line["ratio"] = {
            figure: paired([run[figure] for run in done["today"]], [run[figure] for run in done["against"]])
            for figure in ("seconds", "loop_s")
        }
    return line


def _job(url: str, model: Path, output: Path) -> dict[str, Any]:
    stacked = [f"c{at * _EVERY:03d}" for at in range(32)]
    return {
        "model": {"url": str(model)},
        "input": {"url": url},
        "columns": {"inputs": {"features": {"stack": stacked}}, "outputs": ["score"], "keep": ["id"]},
        "output": {"url": str(output)},
        "limits": {"shard_rows": 10**9, "shard_bytes": "1GiB"},
    }


def _file(rows: int) -> Path:
    file = CACHE / f"scattered-{rows}-{_GROUPS}" / "data.parquet"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        random, count, draft = np.random.default_rng(0), rows // _GROUPS, file.with_suffix(".draft")
        schema = pa.schema([("id", pa.int64()), *((f"c{at:03d}", pa.float32()) for at in range(_COLUMNS))])
        with pq.ParquetWriter(draft, schema, use_dictionary=False) as writer:
            for group in range(_GROUPS):
                ids = pa.array(np.arange(group * count, (group + 1) * count))
                values = [pa.array(random.standard_normal(count, dtype=np.float32)) for _ in range(_COLUMNS)]
                writer.write_table(pa.table([ids, *values], schema=schema))
        draft.rename(file)
    return file


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Where the files of a folder are, and what was asked for so far."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            asked.append(self.path)
            time.sleep(ANSWER_S)
            file = folder / self.path.strip("/")
            if not file.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            stat = file.stat()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first = int(wanted[1]) if wanted else 0
            last = min(int(wanted[2]), stat.st_size - 1) if wanted and wanted[2] else stat.st_size - 1
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{stat.st_mtime_ns:x}"')
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{stat.st_size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            if body:
                with file.open("rb") as held:
                    held.seek(first)
                    self.wfile.write(held.read(last - first + 1))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    print(json.dumps(slow_store(ROWS, 1)))
