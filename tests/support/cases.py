"""Runs the cases of `tests/cases/`, one line for each: `cases.py [NAME ...]`. Exits 1 where one is wrong.

A case says in the first line of its docstring what is right. It ends with 0, with 1 where it is wrong, or with 77 where
it cannot be tried here.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

CASES = Path(__file__).parents[1] / "cases"
SUPPORT = Path(__file__).parent
VERDICTS = {0: "ok", 77: "skipped"}
SECONDS = 600  # for one case


def main(names: list[str]) -> int:
    cases = sorted(path for path in CASES.glob("*.py") if not names or path.stem in names)
    if missing := set(names) - {path.stem for path in cases}:
        sys.exit(f"no case is called {', '.join(sorted(missing))}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(CASES.parents[1])])}
    wrong = 0
    for case in cases:
        began = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, str(case)], env=environment, capture_output=True, text=True, timeout=SECONDS
            )
            code, told = done.returncode, done.stdout.strip() or done.stderr.strip()[-2000:]
        except subprocess.TimeoutExpired:
            code, told = 1, f"had not ended after {SECONDS} s"
        wrong += code not in VERDICTS
        right = (ast.get_docstring(ast.parse(case.read_text())) or "").split("\n")[0]
        print(f"{VERDICTS.get(code, 'WRONG'):8}{time.monotonic() - began:5.0f} s  {case.stem:36}{right}", flush=True)
        if code:
            print("  " + told.replace("\n", "\n  "), flush=True)
    print(f"{len(cases)} cases, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
