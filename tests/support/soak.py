"""Jobs that finish although workers, nodes and the driver are killed all the time: `python tests/support/soak.py`.

Runs one job after the other on a cluster of its own until the minutes are over: a worker is killed every 5 to 20 s,
a node now and then, the driver too, and started again by the same command. Each output must then hold every
(file, row) once, with its answer. Ends with one line of JSON, and with 0 if nothing was lost, doubled or altered.
Only processes that it started itself are killed. Every loop is bounded: it ends after twice the minutes at the latest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from exactly_once import require_exactly_once, write_file

from runner.cluster.quiet import ray

TESTS = Path(__file__).resolve().parents[1]
FILES, ROWS, SHARD_ROWS, BATCH_ROWS = 200, 1000, 250, 50  # of one job: more than a minute on two cores
WORKERS = 3
MOST_STARTS = 60  # of one job's driver
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


class Soak:
    """A cluster, and one job at a time on it."""

    def __init__(self, folder: Path, seed: int, output: dict[str, Any]) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.output, self.chance = folder, output, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.exits: Counter[int] = Counter()
        self.cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(**NODE) for _ in range(WORKERS)]

    def run(self, minutes: float) -> int:
        """Rows of all finished jobs. raises: AssertionError where an output is not what it must be."""
        began = time.monotonic()
        rows = number = 0
        while time.monotonic() - began < minutes * 60:
            self.job(number, stop_killing=began + minutes * 60, give_up=began + 2 * minutes * 60 + 120)
            rows += FILES * ROWS
            number += 1
            self.counts["jobs"] = number
        return rows

    def job(self, number: int, stop_killing: float, give_up: float) -> None:
        """One job from nothing to a proven output."""
        source, url = self.folder / f"in-{number}", f"{self.output['url']}/{number}"
        source.mkdir()
        first = number * FILES
        for index in range(first, first + FILES):
            write_file(source / f"rows-{index:05d}.parquet", index, ROWS)
        self.write(source, self.output | {"url": url})
        driver = self.start()
        try:
            self.harass(driver, stop_killing, give_up)
        finally:
            for process in self.drivers:
                if process.poll() is None:
                    process.kill()
                process.wait(30)
        options = {name: value for name, value in self.output.items() if name == "options"}.get("options")
        require_exactly_once(url, FILES, ROWS, options, first)
        self.verify()
        shutil.rmtree(source)

    drivers: list[subprocess.Popen[bytes]]

    def harass(self, driver: subprocess.Popen[bytes], stop_killing: float, give_up: float) -> None:
        """Kill this and that until the driver ends with 0."""
        self.drivers = [driver]
        next_kill = time.monotonic() + self.chance.uniform(5, 20)
        while time.monotonic() < give_up:
            if (code := driver.poll()) is not None:
                self.exits[code] += 1
                if code == 0:
                    return
                assert len(self.drivers) < MOST_STARTS, f"{MOST_STARTS} drivers did not finish the job: {self.exits}"
                driver = self.start()
                self.drivers.append(driver)
            if next_kill < time.monotonic() < stop_killing:
                self.kill(driver)
                next_kill = time.monotonic() + self.chance.uniform(5, 20)
            time.sleep(0.2)
        raise AssertionError(f"the job did not end in time; drivers ended with {dict(self.exits)}: {self.log()}")

    def kill(self, driver: subprocess.Popen[bytes]) -> None:
        what = self.chance.choices(("worker", "node", "driver"), weights=(8, 1, 2))[0]
        workers = [pid for pid in descendants(os.getpid()) if "ray::WorkerActor" in command_line(pid)]
        if what == "worker" and workers:
            os.kill(self.chance.choice(workers), signal.SIGKILL)
        elif what == "node":
            self.cluster.remove_node(self.nodes.pop(self.chance.randrange(len(self.nodes))), allow_graceful=False)
            self.nodes.append(self.cluster.add_node(**NODE))
        elif what == "driver":
            driver.kill()
        else:
            return
        self.counts[f"{what}s_killed"] += 1

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "runner", "run", "job.yaml", "--address", self.cluster.address, "--json"]
        command.append("--takeover")  # the heartbeat of the driver that was killed is young
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def log(self) -> str:
        return (self.folder / "driver.log").read_text(errors="replace")[-2000:]

    def write(self, source: Path, output: dict[str, Any]) -> None:
        job = {
            "model": {"url": str(self.folder / "model"), "signature": "slow"},
            "input": {"url": str(source)},
            "columns": {"keep": ["file", "row"]},
            "output": output,
            "workers": {"count": WORKERS},
            "limits": {"shard_rows": SHARD_ROWS, "batch_rows": BATCH_ROWS, "max_attempts": 10},
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))

    def verify(self) -> None:
        """What the command says of the output of the job file."""
        asked = [sys.executable, "-m", "runner", "verify", "job.yaml", "--deep"]
        done = subprocess.run(asked, cwd=self.folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        self.counts["verified"] += 1

    def close(self) -> None:
        if ray.is_initialized():
            ray.shutdown()
        self.cluster.shutdown()


def descendants(pid: int) -> list[int]:
    """The processes below `pid`."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
    found = [pid]
    for parent in found:
        found += [child for child, above in parents.items() if above == parent]
    return found[1:]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def module(path: Path) -> Any:
    """A file of the tests that is no module on the path."""
    spec = importlib.util.spec_from_file_location(f"soak_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # dataclasses look themselves up
    spec.loader.exec_module(found)
    return found


def serve_s3() -> None:
    """The S3 server of the store tests, in this process, until it is killed. Prints its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), module(TESTS / "storage" / "conftest.py").S3)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def place(kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The `output` section of the jobs."""
    if kind == "local":
        yield {"url": str(folder / "out")}
        return
    secrets = {"SOAK_S3_KEY": "test", "SOAK_S3_SECRET": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    os.environ |= secrets  # nodes and drivers inherit them
    server = subprocess.Popen([sys.executable, __file__, "--serve-s3"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        options = {"endpoint_url": endpoint, "key": "env:SOAK_S3_KEY", "secret": "env:SOAK_S3_SECRET"}
        yield {"url": "s3://soak/out", "options": options}
    finally:
        server.kill()
        server.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=("s3", "local"), default="s3")
    parser.add_argument("--serve-s3", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve_s3:
        serve_s3()
        return 0
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    rows, problem = 0, ""
    with place(asked.store, folder) as output:
        code = module(TESTS / "conftest.py")._MODELS
        quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, "-c", code, str(folder / "model")], check=True, env=quiet, capture_output=True)
        soak = Soak(folder, asked.seed, output)
        try:
            rows = soak.run(asked.minutes)
        except AssertionError as error:
            problem = str(error)
        finally:
            soak.close()
    print(
        json.dumps(
            {
                "store": asked.store,
                "seed": asked.seed,
                "seconds": round(time.monotonic() - began),
                "rows": rows,
                **soak.counts,
                "driver_exits": dict(soak.exits),
                "problem": problem or None,
            }
        )
    )
    if not problem:
        shutil.rmtree(folder)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
