"""Seeded histories of the real protocol: launch, driver, schedule, output directory and parts, on a simulated world.

One integer decides everything: the input, how many drivers and workers there are and when they start, who goes on at
each step, and every fault. `python tests/support/simulation.py SEED` replays a history and prints its trace;
`python tests/support/simulation.py FIRST COUNT` runs many and says what they found.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulation_chaos import Chaos
from simulation_history import History


@contextmanager
def spool_folder() -> Iterator[Path]:
    """For the spools of attempts: in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None, prefix="simulation-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def simulate(seed: int) -> History:
    with spool_folder() as spools:
        return Chaos(seed, spools).run()


def explain(history: History) -> str:
    """Everything a person needs to see why a history failed, and the command that plays it again."""
    return (
        f"{history.trace}\n\nseed {history.seed}: {history.world.violation}\n"
        f"replay: python tests/support/simulation.py {history.seed}"
    )


def first_caught(first: int, most: int) -> History | None:
    """The first history that breaks an invariant, of the seeds from `first`."""
    histories = (simulate(seed) for seed in range(first, first + most))
    return next((history for history in histories if history.world.violation is not None), None)


def main(arguments: list[str]) -> int:
    if len(arguments) == 1:
        history = simulate(int(arguments[0]))
        print(explain(history))
        return int(history.world.violation is not None)
    first, count = map(int, arguments)
    began, ends, steps, found = time.perf_counter(), Counter[str](), 0, 0
    for seed in range(first, first + count):
        history = simulate(seed)
        steps += history.world.steps
        ends.update(history.ends)
        if history.world.violation is not None:
            found += 1
            print(f"seed {seed}: {history.world.violation}", flush=True)
    took = time.perf_counter() - began
    print(f"{count} histories, {steps} steps, {found} violations, {took:.1f} s, {count / took:.0f} a second")
    print("runs ended with:", ", ".join(f"{end} {times}" for end, times in ends.most_common()))
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
