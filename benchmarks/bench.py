"""Our command against the loop a user writes and against Ray Data, on the same rows, in the same call.

    python benchmarks/bench.py vector wide csv jsonl jax image text example sequence logits tiny many wide-plan lake
                               slow-store memory reproducible topk
                               [--quick] [--rows N] [--rounds N] [--peers plain,padded,raydata] [--out FILE]

Each round runs every program once, one after the other, as a whole process; what the first round wrote is compared
before any figure is printed. With AGAINST=COMMIT in the environment `many` and `slow-store` run that commit, too. One
JSON line for each workload goes to standard output, and is appended to FILE.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from footers import wide_plan
from lake import ROWS as LAKE_ROWS
from lake import lake
from many import many
from measure import ROOT, Measured, emptied, machine, median, paired, program, require_equal
from slow import ROWS as SLOW_ROWS
from slow import slow_store
from workloads import CACHE, WORKLOADS, Workload

ROUNDS, QUICK_ROUNDS = 5, 1
_QUICK = 16  # a quick run has this part of the rows
_MEMORY_ROWS = (4_000_000, 64_000_000)
_QUICK_MEMORY_ROWS = (1_000_000, 4_000_000)  # fewer do not fill the queues
_MEMORY_SLACK = 1.10
_OUTPUT = ("fetch", "encode", "publish")  # stages


def ours(job: dict[str, Any], in_process: bool) -> Measured:
    file = CACHE / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    done = program("-m", "runner", "run", str(file), "--json", "--quiet", *(["--in-process"] if in_process else []))
    told = done.answer
    # From the first dispatch to the last commit, the tuning of the workers included.
    tuned = [worker["stage_seconds"]["tune"] for worker in told["workers"].values()]
    told["loop_s"] = told["working_s"] + sum(tuned) / max(1, len(tuned))
    told["loop_cpu_s"] = sum(worker["cpu_seconds"] for worker in told["workers"].values())
    return done


def compare(workload: Workload, rows: int, rounds: int, peers: list[str]) -> dict[str, Any]:
    """One line: medians of each program, and ratios within each round."""
    source, model = workload.input(rows), workload.model()
    out = {name: CACHE / f"out-{name}" for name in ("in_process", "ray", *peers)}
    programs: dict[str, Callable[[], Measured]] = {
        "in_process": lambda: ours(workload.job(rows, out["in_process"]), True),
        "ray": lambda: ours(workload.job(rows, out["ray"]), False),
    }
    for peer in peers:
        arguments = (
            str(ROOT / "benchmarks" / "peers.py"),
            peer,
            workload.name,
            str(model),
            str(source),
            str(out[peer]),
        )
        programs[peer] = lambda arguments=arguments: program(*arguments)  # type: ignore[misc]
    done: dict[str, list[Measured]] = {name: [] for name in programs}
    for number in range(rounds):
        for name, run in programs.items():
            emptied(out[name])
            done[name].append(run())
        for name in programs if number == 0 else ():
            if name != "plain" and "plain" in programs:
                require_equal(out[name], out["plain"], workload.outputs, rows, workload.tolerance)
    for folder in out.values():
        emptied(folder)
    return {"workload": workload.name, "rows": rows, "rounds": rounds, "equal": True} | figures(done, rows)


def figures(done: dict[str, list[Measured]], rows: int) -> dict[str, Any]:
    line: dict[str, Any] = {}
    for name, runs in done.items():
        loops = [run.answer["loop_s"] for run in runs]
        line[name] = {
            "seconds": median([run.seconds for run in runs]),
            "loop_s": median(loops),
            "rows_per_s": round(rows / median(loops), 1),
            "cpu_s": median([run.cpu_s for run in runs]),
            "peak_rss_mb": runs[-1].peak_rss_mb,
        }
        told = runs[-1].answer
        if "loop_cpu_s" in told:  # what hardly depends on what else the machine does
            line[name]["loop_cpu_s"] = median([run.answer["loop_cpu_s"] for run in runs])
        if "speed" in told:
            line[name] |= {key: told[key] for key in ("speed", "bottleneck", "stage_seconds")}
            for share in ("of_compute", "of_machine"):
                line[name]["speed"][share] = median([run.answer["speed"][share] for run in runs])
    for peer in ("plain", "padded", "raydata"):
        if peer in done:
            line[f"of_{peer}"] = {
                name: {
                    "wall": paired([run.seconds for run in done[name]], [run.seconds for run in done[peer]]),
                    "speed": paired(
                        [run.answer["loop_s"] for run in done[peer]], [run.answer["loop_s"] for run in done[name]]
                    ),
                }
                for name in done
                if name != peer
            }
    return line


def tiny(rounds: int) -> dict[str, Any]:
    """10 shards of 100 rows: what starting costs. Bare `ray.init()` and a bare import stand beside it."""
    workload = WORKLOADS["vector"]
    done: dict[str, list[float]] = {"in_process": [], "ray": [], "ray_init": []}
    first: dict[str, list[float]] = {"in_process": [], "ray": []}
    init = "import time, ray; t = time.perf_counter(); ray.init(include_dashboard=False, log_to_driver=False);"
    init += " print('{\"ray_init_s\": %f}' % (time.perf_counter() - t))"
    for _ in range(rounds):
        for name in first:
            job = workload.job(1_000, emptied(CACHE / f"out-{name}"), limits={"shard_rows": 100})
            run = ours(job, name == "in_process")
            done[name].append(run.seconds)
            first[name].append(run.answer["first_part_s"])
        done["ray_init"].append(program("-c", init).answer["ray_init_s"])
    return {
        "workload": "tiny",
        "rows": 1_000,
        "rounds": rounds,
        "seconds": {name: median(taken) for name, taken in done.items()},
        "first_part_s": {name: median(taken) for name, taken in first.items()},
    }


def memory(rows: tuple[int, ...]) -> dict[str, Any]:
    """The peak memory of a worker does not depend on how many rows there are."""
    workload = WORKLOADS["vector"]
    peaks: dict[int, float] = {}
    for count in rows:
        run = ours(workload.job(count, emptied(CACHE / "out-ray")), False)
        peaks[count] = max(worker["peak_rss_bytes"] for worker in run.answer["workers"].values()) / 2**20
        emptied(CACHE / "out-ray")
    ratio = max(peaks.values()) / min(peaks.values())
    return {
        "workload": "memory",
        "worker_peak_rss_mb": {f"{count:,} rows": round(peak, 1) for count, peak in peaks.items()},
        "ratio": round(ratio, 3),
        "flat": ratio <= _MEMORY_SLACK,
    }


def reproducible(rows: int, rounds: int) -> dict[str, Any]:
    """What equal bits cost: the same job in one process, without and with them in alternation, by turns the first."""
    workload = WORKLOADS["vector"]
    done: dict[str, list[Measured]] = {"usual": [], "reproducible": []}
    for number in range(rounds):
        for name in sorted(done, reverse=number % 2 == 0):
            job = workload.job(rows, emptied(CACHE / "out-in_process"), limits={"reproducible": name == "reproducible"})
            done[name].append(ours(job, True))
    line: dict[str, Any] = {"workload": "reproducible", "rows": rows, "rounds": rounds, "ratio": {}}
    for figure in ("seconds", "loop_s", "loop_cpu_s"):
        taken = {
            name: [one.seconds if figure == "seconds" else one.answer[figure] for one in runs]
            for name, runs in done.items()
        }
        line[figure] = {name: median(values) for name, values in taken.items()}
        line["ratio"][figure] = paired(taken["reproducible"], taken["usual"])
    return line


def topk(rows: int, rounds: int) -> dict[str, Any]:
    """What is saved where 1,000 logits stay on the device: all of them written, and the 5 largest, by turns the first.

    output_s: of all threads, from the tensors of a batch to a published part.
    """
    workload = WORKLOADS["logits"]
    shaped = {"top": {"of": "logits", "top_k": 5}, "label": {"of": "logits", "argmax": True}}
    done: dict[str, list[Measured]] = {"all": [], "shaped": []}
    for number in range(rounds):
        for name in sorted(done, reverse=number % 2 == 0):
            job = workload.job(rows, emptied(CACHE / "out-in_process"))
            job["columns"] |= {"outputs": shaped} if name == "shaped" else {}
            done[name].append(ours(job, True))
    emptied(CACHE / "out-in_process")
    line: dict[str, Any] = {"workload": "topk", "rows": rows, "rounds": rounds, "ratio": {}}
    taken = {name: [_output_s(one.answer) for one in runs] for name, runs in done.items()}
    line["output_s"] = {name: median(values) for name, values in taken.items()}
    line["ratio"]["output_s"] = paired(taken["shaped"], taken["all"])
    for figure in ("seconds", "loop_s", "loop_cpu_s"):
        taken = {
            name: [one.seconds if figure == "seconds" else one.answer[figure] for one in runs]
            for name, runs in done.items()
        }
        line[figure] = {name: median(values) for name, values in taken.items()}
        line["ratio"][figure] = paired(taken["shaped"], taken["all"])
    line["stage_seconds"] = {name: runs[-1].answer["stage_seconds"] for name, runs in done.items()}
    return line


def _output_s(answer: dict[str, Any]) -> float:
    return sum(seconds for stage, seconds in answer["stage_seconds"].items() if stage in _OUTPUT)


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    if name == "tiny":
        return tiny(rounds)
    if name == "many":
        return many(10_000 if arguments.quick else 100_000, 100_000 if arguments.quick else 1_000_000)
    if name == "wide-plan":
        return wide_plan(rounds, _QUICK if arguments.quick else 1)
    if name == "lake":
        rows = arguments.rows or (LAKE_ROWS // _QUICK if arguments.quick else LAKE_ROWS)
        return lake(rows, rounds, ["dataset", "raydata"] if arguments.peers is None else _listed(arguments.peers))
    if name == "slow-store":
        return slow_store(arguments.rows or (SLOW_ROWS // _QUICK if arguments.quick else SLOW_ROWS), rounds)
    if name == "memory":
        return memory(_QUICK_MEMORY_ROWS if arguments.quick else _MEMORY_ROWS)
    workload = WORKLOADS[{"reproducible": "vector", "topk": "logits"}.get(name, name)]
    rows = arguments.rows or (workload.rows // _QUICK if arguments.quick else workload.rows)
    if name == "reproducible":
        return reproducible(rows, rounds)
    if name == "topk":
        return topk(rows, rounds)
    peers = list(workload.peers) if arguments.peers is None else _listed(arguments.peers)
    return compare(workload, rows, rounds, peers)


def _listed(peers: str) -> list[str]:
    return [peer for peer in peers.split(",") if peer]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    others = ["tiny", "many", "wide-plan", "lake", "slow-store", "memory", "reproducible", "topk"]
    parser.add_argument("workloads", nargs="+", choices=[*WORKLOADS, *others])
    parser.add_argument("--quick", action="store_true", help="one round, a sixteenth of the rows")
    parser.add_argument("--rows", type=int, help="of each workload that has rows")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peers", help="by default those of each workload")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    for name in arguments.workloads:
        line = json.dumps({"machine": machine()} | run(name, arguments))
        print(line, flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
