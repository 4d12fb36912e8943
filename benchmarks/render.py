"""benchmarks/results.jsonl -> RESULTS.md and results.png: `python render.py LINES FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

mpl.use("Agg")

Line = Mapping[str, Any]

PROGRAMS = {
    "plain": "plain loop",
    "padded": "plain loop, padded by hand",
    "raydata": "Ray Data",
    "ray": "runner, local Ray",
    "in_process": "runner, in process",
}
COLOURS = {"plain": "#9aa3ab", "padded": "#6f7a83", "raydata": "#c9803e", "ray": "#6aa7ec", "in_process": "#2f6fbb"}
STAGES = {
    "run": "#2f6fbb",
    "compile": "#8d6fc4",
    "feed": "#5aa9c9",
    "fetch": "#8cc7d8",
    "wait_read": "#e0a33a",
    "wait_write": "#cf6a3d",
    "idle": "#b9c0c6",
}


def targets(line: Line) -> Iterator[tuple[str, str, bool]]:
    """(what was aimed at, what was measured, met) of one line."""
    name = line["workload"]
    if name == "tiny":
        first, init = line["first_part_s"], line["seconds"]["ray_init"]
        yield "first part in process within 1.0 s", f"{first['in_process']:.2f} s", first["in_process"] <= 1.0
        yield (
            "first part on local Ray within ray.init + 1.5 s",
            f"{first['ray']:.2f} s ({init:.2f} + {first['ray'] - init:.2f})",
            first["ray"] <= init + 1.5,
        )
    elif name == "many":
        files, shards = line["files"], line["shards"]
        plan, dispatch, resume = line["plan"], line["dispatch"], line["resume"]
        limit = 15 * files / 100_000
        yield f"plan of {files:,} files within {limit:g} s", f"{plan['seconds']} s", plan["seconds"] <= limit
        worst = max(step["bytes_per_shard"] for step in (plan, dispatch, resume))
        yield "at most 1 kB per shard in the driver", f"{worst} B", worst <= 1000
        yield (
            "10,000 shards/s dispatched and committed",
            f"{dispatch['shards_per_s']:,}/s",
            (dispatch["shards_per_s"] >= 10_000),
        )
        yield from _no_slower(line)
        limit = 60 * shards / 1_000_000
        yield (
            f"resume of {shards:,} finished shards within {limit:g} s",
            f"{resume['seconds']} s",
            (resume["seconds"] <= limit),
        )
    elif name == "wide-plan":
        yield from _plan_targets(line)
    elif name == "lake":
        part, whole = line["part"]["read_mb"], line["whole"]["read_mb"]
        read = line["of_whole"]["read_mb"]
        yield (
            "`where` that leaves 1 % of 1,000 files, at most 0.05 x the bytes of all",
            f"{read:.3f} x ({part:,.1f} MB of {whole:,.1f} MB)",
            read <= 0.05,
        )
    elif name == "slow-store" and "ratio" in line:
        loop, answer = line["ratio"]["loop_s"], 1000 * line["answer_s"]
        yield (
            f"33 columns at {answer:g} ms an answer, at most 0.3 x commit {line['commit']}",
            f"{loop:.2f} x",
            loop <= 0.3,
        )
    elif name == "memory":
        peaks = ", ".join(f"{peak:g} MB at {rows}" for rows, peak in line["worker_peak_rss_mb"].items())
        yield "peak memory of a worker flat within 10 %", f"{line['ratio']:.3f} ({peaks})", line["flat"]
    elif name == "topk":
        output, whole = line["ratio"]["output_s"], line["ratio"]["seconds"]
        yield (
            "output stages of the 5 largest of 1,000 logits at most 0.2 x those of all",
            f"{output:.2f} x",
            output <= 0.2,
        )
        yield "whole command of the 5 largest not slower than of all", f"{whole:.2f} x", whole <= 1.0
    elif "in_process" in line:
        yield from _speed_targets(line)


def _no_slower(line: Line) -> Iterator[tuple[str, str, bool]]:
    """Beside another commit, within what two runs of one commit differ by."""
    if "against" not in line:
        return
    for step, count, what in (("listing", line["shards"], "files listed"), ("plan", line["files"], "files planned")):
        mine, theirs = line[step]["seconds"], line["against"][step]["seconds"]
        wanted = f"{count:,} {what} no slower than by commit {line['against']['commit']}"
        yield wanted, f"{mine} s, {theirs} s", mine <= 1.1 * theirs


def _plan_targets(line: Line) -> Iterator[tuple[str, str, bool]]:
    """Seconds are of one core; in brackets, and last, what pyarrow takes for a look at the same footer."""
    wide, tall = line["wide"], line["tall"]
    seconds, slower, peak = wide["cpu_s"], tall["cpu_s"], tall["peak_rss_mb"]
    yield (
        f"plan of {wide['columns']:,} columns in {wide['row_groups']:,} row groups within 2 s of one core",
        f"{seconds['runner']:.2f} s ({seconds['pyarrow']:.2f} s)",
        seconds["runner"] <= 2.0,
    )
    yield (
        f"plan of {tall['row_groups']:,} row groups of one file in at most 1.25 x the memory of pyarrow's footer",
        f"{peak['ratio']:.2f} x ({peak['runner']:g} MB of {peak['pyarrow']:g} MB; "
        f"{slower['runner']:.2f} s, {slower['pyarrow']:.2f} s)",
        peak["ratio"] <= 1.25,
    )


def _speed_targets(line: Line) -> Iterator[tuple[str, str, bool]]:
    name, mine = line["workload"], line["in_process"]
    compute, machine = mine["speed"]["of_compute"], mine["speed"]["of_machine"]
    if name == "image":
        yield "at least 97 % of the compute ceiling", f"{compute:.0%}", compute >= 0.97
    if "of_plain" not in line:
        return
    loop, whole = line["of_plain"]["in_process"]["speed"], line["of_plain"]["in_process"]["wall"]
    if name == "vector":
        yield "in process, at least 2.2 x the plain loop", f"{loop:.2f} x", loop >= 2.2
        yield "at least 90 % of the machine ceiling", f"{machine:.0%}", machine >= 0.9
        yield "whole command in process, at most 0.5 x the plain script", f"{whole:.2f} x", whole <= 0.5
        ray = line["of_plain"]["ray"]["wall"]
        yield "whole command on local Ray, faster than the plain script", f"{ray:.2f} x", ray < 1.0
        if "of_raydata" in line:
            ray = line["of_raydata"]["ray"]["wall"]
            yield "whole command on local Ray, at most 0.35 x Ray Data's", f"{ray:.2f} x", ray <= 0.35
    elif name in ("csv", "jsonl"):
        yield "whole command in process, at most 0.5 x the pandas script", f"{whole:.2f} x", whole <= 0.5
        if "of_raydata" in line:
            peer = line["of_raydata"]["in_process"]["wall"]
            yield "whole command in process, at most 0.35 x Ray Data's", f"{peer:.2f} x", peer <= 0.35
    elif name == "jax":
        if "of_padded" in line:
            padded = line["of_padded"]["in_process"]["wall"]
            yield "whole command in process, at most 0.5 x the script padded by hand", f"{padded:.2f} x", padded <= 0.5
        yield "whole command in process, at most 0.5 x the plain script", f"{whole:.2f} x", whole <= 0.5
    elif name != "image":
        met = loop >= 2.0 or compute >= 0.95
        yield "at least 2 x the plain loop, or 95 % of the compute ceiling", f"{loop:.2f} x, {compute:.0%}", met


def tables(lines: Sequence[Line]) -> str:
    head = lines[-1]["machine"]
    commits = " and ".join(dict.fromkeys(line["machine"]["commit"].removesuffix("+") for line in lines))
    versions = ", ".join(f"{name} {head[name]}" for name in ("python", "tensorflow", "ray", "pyarrow", "numpy"))
    parts = [
        "# Results\n",
        f"{head['cpu']}, {head['cores']} cores, {head['memory_gb']} GB; {versions}; commit {commits}.",
        "Written by `make bench`. Each figure is a median; each ratio is the median of the ratios within one round, in"
        " which all programs ran one after the other on the same rows. What they wrote was compared first.\n",
        "![rows per second relative to the plain loop, and where the time went](results.png)\n",
        "## Targets\n",
        "| workload | target | measured | |",
        "| --- | --- | --- | --- |",
    ]
    for line in lines:
        parts += [
            f"| {line['workload']} | {wanted} | {found} | {'met' if met else 'missed'} |"
            for wanted, found, met in targets(line)
        ]
    parts += ["\n## Programs\n", "| workload | program | whole, s | loop, s | rows/s | CPU, s | largest process, MB |"]
    parts.append("| --- | --- | --- | --- | --- | --- | --- |")
    for line in compared(lines):
        for name, words in PROGRAMS.items():
            if name in line:
                told = line[name]
                peak = next(iter(told["peak_rss_mb"].values()), 0)
                figures = (
                    f"{told['seconds']} | {told['loop_s']} | {told['rows_per_s']:,.0f} | {told['cpu_s']:.1f} | {peak:g}"
                )
                parts.append(f"| {line['workload']}, {line['rows']:,} rows | {words} | {figures} |")
    parts += [part for line in lines if line["workload"] == "lake" for part in _part_of_a_lake(line)]
    parts += ["\n## What holds it, as the runs themselves say\n"]
    for line in compared(lines):
        found = line["in_process"]["bottleneck"]
        advice = f"; {found['suggestion']}" if found["suggestion"] else ""
        parts.append(f"* {line['workload']}: {found['sentence']}{advice}.")
    return "\n".join(parts) + "\n"


def _part_of_a_lake(line: Line) -> Iterator[str]:
    """The same hundredth of the rows by each program, and all of them by ours."""
    yield f"\n## One hundredth of {line['rows']:,} rows in {line['files']:,} files, by folders and footers\n"
    yield "| program | with its start, s | work, s | read, MB |"
    yield "| --- | --- | --- | --- |"
    programs = {"part": "runner, `where`", "dataset": "pyarrow.dataset", "raydata": "Ray Data", "whole": "runner, all"}
    for name, words in programs.items():
        if name in line:
            told = line[name]
            yield f"| {words} | {told['seconds']} | {told['loop_s']} | {told['read_mb']:,.1f} |"


def compared(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if "in_process" in line and "seconds" in line["in_process"]]


def picture(lines: Sequence[Line], path: Path) -> None:
    shown = [line for line in compared(lines) if "plain" in line]
    if not shown:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.9 + 0.85 * len(shown)), width_ratios=(3, 2))
    names = [f"{line['workload']}\n{line['rows']:,} rows" for line in shown]
    measured = [[name for name in PROGRAMS if name in line] for line in shown]
    for name, words in PROGRAMS.items():
        of = [
            (place, line, there)
            for place, (line, there) in enumerate(zip(shown, measured, strict=True))
            if name in there
        ]
        speeds = [1.0 if name == "plain" else line["of_plain"][name]["speed"] for _, line, _ in of]
        places = [place + 0.16 * (there.index(name) - (len(there) - 1) / 2) for place, _, there in of]
        bars = left.barh(places, speeds, 0.15, label=words, color=COLOURS[name])
        left.bar_label(bars, fmt="{:.2f}", padding=3, fontsize=8)
    left.axvline(1.0, color="#667079", linewidth=0.8, linestyle=":")
    left.set_title("rows per second, relative to the plain loop", fontsize=11, loc="left")
    starts = [0.0] * len(shown)
    for stage, colour in STAGES.items():
        shares = [_share(line["in_process"]["stage_seconds"], stage) for line in shown]
        right.barh(range(len(shown)), shares, 0.5, left=starts, label=stage, color=colour)
        starts = [start + share for start, share in zip(starts, shares, strict=True)]
    right.set_title("the runner's model thread, in process", fontsize=11, loc="left")
    right.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    right.set_xlim(0, 1)
    for axes, labels in ((left, names), (right, [""] * len(names))):
        axes.set_yticks(range(len(shown)), labels)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4, fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _share(seconds: Mapping[str, float], stage: str) -> float:
    return seconds.get(stage, 0.0) / (sum(seconds.get(name, 0.0) for name in STAGES) or 1e-9)


def main(source: str, folder: str) -> None:
    latest = {line["workload"]: line for line in map(json.loads, Path(source).read_text().splitlines())}
    lines = list(latest.values())
    Path(folder, "RESULTS.md").write_text(tables(lines))
    picture(lines, Path(folder, "results.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
