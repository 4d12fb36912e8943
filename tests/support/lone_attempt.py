"""One attempt in a process of its own, outside Ray: `python lone_attempt.py JOB.yaml SHARD`.

Claims nothing and asks no driver: what a worker does that everybody thinks is dead. Prints its receipt as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from jobs.attempt import Success, attempt
from jobs.load import load_job
from runner.engine import EngineOptions
from runner.preflight.preflight import preflight
from runner.worker.worker import Worker


def main(file: str, shard: int) -> int:
    job = load_job(Path(file).read_text(), file, [])
    ready = preflight(job)
    worker = Worker(ready.spec(job.output), f"lone{os.getpid()}", EngineOptions(threads=1))
    given = attempt(ready.plan, ready.plan.shards[shard], 1, 1, os.urandom(6).hex())
    answer = worker.attempt(given)
    print(json.dumps(answer.document()))
    return 0 if isinstance(answer, Success) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
