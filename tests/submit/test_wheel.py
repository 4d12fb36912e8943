"""The wheel that travels with a job: pip takes it, nothing is fetched for it, and its name tells its content."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runner.cluster.wheel import build_wheel


def test_the_wheel_is_installed_without_an_index_and_holds_the_runner(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "0.1.0")
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", f"--target={target}", str(wheel)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"runner", "connectors", "jobs"} <= {path.name for path in target.iterdir()}
    code = "import runner; print(runner.__file__)"
    where = subprocess.run([sys.executable, "-c", code], cwd=target, capture_output=True, text=True, check=True).stdout
    assert where.strip() == str(target / "runner" / "__init__.py")


def test_the_same_code_is_the_same_wheel_and_other_code_has_another_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for package in ("runner", "connectors", "jobs"):
        (home / package).mkdir(parents=True)
        (home / package / "__init__.py").write_text("")
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    first, again = build_wheel(one, "0.1.0", home), build_wheel(two, "0.1.0", home)
    assert (first.name, first.read_bytes()) == (again.name, again.read_bytes())
    (home / "jobs" / "__init__.py").write_text("changed = True")
    assert build_wheel(two, "0.1.0", home).name != first.name
