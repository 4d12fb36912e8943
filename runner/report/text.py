"""Figures of a run as words: rates, durations, sizes, a line of progress, the lines of a summary."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from jobs.numerics import Difference
from jobs.words import counted
from runner.measure.account import Account
from runner.measure.ceiling import Use, together
from runner.measure.course import phase_sentence
from runner.measure.snapshot import Snapshot
from runner.measure.stage import COMPUTE


def progress_line(at: Snapshot) -> str:
    """`1,200 of 4,000 rows · 30% · 120 rows/s · ETA 2 s · shards 3 done, 2 running, 0 retried of 8 · 2 of 2 workers`"""
    return " · ".join(progress_parts(at))


def progress_parts(at: Snapshot) -> list[str]:
    """How far a run is, in sentences: first how fast it goes, then what it is made of."""
    eta = f"ETA {duration(at.eta_s)}" if at.eta_s is not None and at.share < 1 else ""
    parts = [
        f"{at.rows_done:,} of {counted(at.rows_total, 'row')}",
        f"{at.share:.0%}",
        f"{rate(at.rows_per_s)}" if at.rows_done > at.rows_before else "",
        eta,
        f"shards {at.shards_done} done, {at.shards_running} running, {at.retries} retried of {at.shards_total}",
        f"{at.workers_ready} of {counted(at.workers, 'worker')} ready",
        at.waits_for if at.workers_ready < at.workers else "",
    ]
    return [part for part in parts if part]


def rate(rows_per_s: float) -> str:
    return f"{short_rate(rows_per_s)} rows/s"


def short_rate(rows_per_s: float) -> str:
    """Without its unit: `12,381`, `2.45 M`."""
    return f"{rows_per_s / 1e6:.2f} M" if rows_per_s >= 1e6 else f"{rows_per_s:,.0f}"


def duration(seconds: float) -> str:
    """`45 ms`, `8.1 s`, `3 min 20 s`, `2 h 05 min`."""
    if 0 < seconds < 0.0995:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.00095 else f"{seconds * 1e3:.1g} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return (
        f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {round(seconds) % 60:02d} s"
    )


def waiting_line(what: str, seconds: float) -> str:
    """'starting a local Ray ... 3 s'"""
    return f"{what} ... {seconds:.0f} s"


def waited_line(what: str, seconds: float) -> str:
    """'starting a local Ray took 3.4 s'"""
    return f"{what} took {duration(seconds)}"


def byte_count(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def account_lines(account: Account) -> list[str]:
    """The account of a run for the end of a summary: speed, time, bottleneck."""
    lines = [f"speed: {rate(account.reached.rows_per_s)} while working{_reached(account)}"]
    if sentence := phase_sentence(account.course.document(), duration(sum(account.course.document().values()))):
        lines.append(f"time: {sentence}")
    if not account.short:
        lines += stage_lines(account.seconds)
    use = together(account.uses.values())
    if use.shape_batches:
        each = use.shape_rows / use.shape_batches
        compiled = f"; XLA compiled for {use.compiled_shapes:,} of them" if use.compilations else ""
        lines.append(
            f"shapes: {counted(use.shape_rows, 'row')} of several shapes in {counted(use.shape_batches, 'batch')},"
            f" {each:,.1f} rows each: rows of one shape share a batch{compiled}"
        )
    if use.compilations:
        lines.append(f"XLA: {compiled_sentence(use)}")
    held_by = str(account.bottleneck)
    return [*lines, held_by if account.short else f"held by: {held_by}"]


def compiled_sentence(use: Use) -> str:
    """`compiled 3 times (0.9 s) for 1 shape of what was fed: values decide shapes, see `runner plan``"""
    shapes, workers = counted(use.compiled_shapes, "shape"), counted(use.workers, "worker")
    counting = f", each worker for itself ({workers})" if use.workers > 1 else ""
    why = ": values decide shapes, see `runner plan`" if use.recompiles else ""
    times = counted(use.compilations, "time")
    return f"compiled {times} ({duration(use.compile_s)}) for {shapes} of what was fed{counting}{why}"


def odd_inputs(rows: int, unseen: int) -> str:
    """Rows with NaN or infinity in an input, of those written; unseen: of them, with finite outputs."""
    hidden = f"; the outputs of {unseen:,} of them are finite, so that nothing in the output shows it" if unseen else ""
    return f"NaN or infinity in {rows:,} of the rows written{hidden}"


def changed_inputs(rows: int) -> str:
    """Rows, of those written, that were fed something else than they hold."""
    return f"`cast: unsafe` changed values in {rows:,} of the rows written"


def differing_line(found: Sequence[Difference]) -> str:
    """That parts were computed in different ways, for the end of a summary."""
    return f"numbers: may differ between parts, and so may where a NaN shows: {'; '.join(map(str, found))}"


def _reached(account: Account) -> str:
    """Of what could be reached, by name; nothing after too little work."""
    reached = account.reached
    of = [
        f"{share:.0%} of what {what} can do"
        for share, ceiling, what in (
            (reached.of_compute, reached.compute, "the model alone"),
            (reached.of_machine, reached.machine, "the cores"),
        )
        if ceiling and not account.short
    ]
    return f" ({' and '.join(of)})" if of else ""


def stage_lines(seconds: Mapping[str, float]) -> list[str]:
    """Where the time of the workers went: of the model's threads, largest first, and of the others beside them."""
    compute = {name: seconds.get(name, 0.0) for name in ("idle", *COMPUTE)}
    whole = sum(compute.values())
    if whole == 0:
        return []
    ranked = sorted(compute.items(), key=lambda pair: -pair[1])
    shares = ", ".join(f"{name} {value / whole:.0%}" for name, value in ranked if value / whole >= 0.005)
    others = {name: seconds.get(name, 0.0) for name in ("read", "decode", "encode", "publish")}
    beside = ", ".join(f"{name} {duration(value)}" for name, value in others.items() if value)
    return [f"model's threads: {shares}", *([f"other threads: {beside}"] if beside else [])]


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` letters, broken between words; what goes on is indented. Words stay whole."""
    lines = (
        textwrap.wrap(line, max(20, width), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )
    return "\n".join(part for line in lines for part in line or [""])
