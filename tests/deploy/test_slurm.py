"""The Slurm script, with stand-ins for `srun` and `scontrol`: on a real `ray symmetric-run`, in namespaces of its own
(what it ends, it ends by name), and on a stand-in that does what the real one was seen to do with codes and signals."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "runner.sbatch"
ALONE = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]

# What Slurm does for the script: the options are its own, the rest is run on every node, here on one.
SRUN = """#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""

# Ray 2.60: `symmetric-run` ends with 0 where Ray does not start, and with the code of its command otherwise; a signal
# ends it alone. START: "fails", or for how many seconds nothing follows.
RAY = """#!/bin/bash
case "$1" in
get-auth-token) mkdir -p "$HOME/.ray" && echo secret >"$HOME/.ray/auth_token" ;;
stop) touch "$HOME/stopped" ;;
symmetric-run)
    [ "$START" = fails ] && { echo "Failed to start Ray" >&2; exit 0; }
    touch "$HOME/starting"
    [ "$START" = 0 ] || exec sleep "$START"
    while [ "$1" != -- ]; do shift; done
    shift
    "$@" ;;
esac
"""

RUNNER = """#!/bin/bash
[ -n "$CODE" ] && exit "$CODE"
sleep 60 &
heard() { echo "$1" >>"$HOME/heard"; kill "$!" 2>/dev/null; sleep 0.3; exit "$1"; }
trap 'heard 130' INT
trap 'heard 143' TERM
touch "$HOME/driving"
wait
"""


def isolated() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


alone = pytest.mark.skipif(
    not isolated(), reason="no namespaces here, and `ray stop` would end every other Ray of this machine"
)


def allocation(folder: Path, **stand_ins: str) -> Mapping[str, str]:
    """The environment of the script in an allocation of one node; HOME is `folder`."""
    (folder / "bin").mkdir()
    scripts = {"srun": SRUN, "scontrol": "#!/bin/sh\necho 127.0.0.1\n", **stand_ins}
    for name, text in scripts.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "SLURM_JOB_NODELIST": "node[1]",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def on_ray(folder: Path, before: str = "true") -> subprocess.CompletedProcess[str]:
    """The script on the real `ray`. before: a command of the same machine."""
    environment = allocation(folder, runner=f'#!/bin/sh\nexec {sys.executable} -m runner "$@"\n')
    # Ray finds a running cluster by what lies in /tmp/ray, where another one may have left its address.
    (folder / "ray").mkdir()
    private = f"mkdir -p /tmp/ray && mount --bind {folder / 'ray'} /tmp/ray && ip link set lo up"
    inside = f"umask 022 && {private} && {before} && exec bash {SCRIPT} {folder / 'job.yaml'}"
    return subprocess.run(
        [*ALONE, "bash", "-c", inside],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@alone
def test_the_script_runs_a_job_on_the_ray_that_it_starts(
    tmp_path: Path,
    half_plus_two: Path,
    write_numbers: Callable[..., Path],
    require_half_plus_two: Callable[[Path, int], None],
) -> None:
    job = {
        "model": {"url": str(half_plus_two)},
        "input": {"url": str(write_numbers(tmp_path / "in"))},
        "columns": {"keep": ["id"]},
        "output": {"url": str(tmp_path / "out")},
        "workers": {"count": 1},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = on_ray(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,000 rows" in done.stdout
    token = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert list(token.parent.iterdir()) == [token]
    assert (tmp_path / "out" / "_SUCCESS").stat().st_mode & 0o044, "others may read the scores"
    require_half_plus_two(tmp_path / "out", 2000)


@alone
@pytest.mark.faults
def test_a_port_that_is_taken_is_no_success(tmp_path: Path) -> None:
    listen = "import socket, sys; s = socket.create_server(('127.0.0.1', 6379)); print(flush=True); sys.stdin.read()"
    server = f'{{ sleep 100 | {sys.executable} -c "{listen}" & }} | head --lines=1'
    done = on_ray(tmp_path, before=server)
    assert "Failed to start Ray" in done.stderr
    assert done.returncode == 69, done.stdout + done.stderr
    assert "no driver ended here" in done.stderr


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def on_stand_in(tmp_path: Path) -> Iterator[Start]:
    """on_stand_in(start="0", code=""): the script on the stand-ins, ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(start: str = "0", code: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", str(SCRIPT), "job.yaml"],
            cwd=tmp_path,
            env={**allocation(tmp_path, ray=RAY, runner=RUNNER), "START": start, "CODE": code},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], folder: Path) -> int:
    said, _ = process.communicate(timeout=20)
    print(said)
    assert [path.name for path in (folder / ".ray").iterdir()] == ["auth_token"], "nothing is left over"
    return process.returncode


@pytest.mark.parametrize(("start", "code", "ends"), [("0", "0", 0), ("0", "65", 65), ("fails", "0", 69)])
def test_the_script_ends_with_the_code_of_the_driver_and_with_69_where_there_was_none(
    tmp_path: Path, on_stand_in: Start, start: str, code: str, ends: int
) -> None:
    assert ended(on_stand_in(start, code), tmp_path) == ends


def script_and_task(process: subprocess.Popen[str]) -> list[int]:
    """The script, and what `srun` runs on the node: whom Slurm signals, one or both."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [process.pid, *map(int, children)]


def await_file(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("whom", ["script", "task", "both"])
def test_a_signal_reaches_the_driver_once_which_ends_as_it_does_elsewhere(
    tmp_path: Path, on_stand_in: Start, number: int, ends: int, whom: str
) -> None:
    process = on_stand_in()
    await_file(tmp_path / "driving", process)
    script, task = script_and_task(process)
    for pid in {"script": [script], "task": [task], "both": [task, script]}[whom]:
        os.kill(pid, number)
    assert ended(process, tmp_path) == ends
    assert (tmp_path / "heard").read_text() == f"{ends}\n"


def test_a_signal_before_there_is_a_driver_ends_the_start_of_ray(tmp_path: Path, on_stand_in: Start) -> None:
    process = on_stand_in(start="60")
    await_file(tmp_path / "starting", process)
    process.send_signal(signal.SIGTERM)
    assert ended(process, tmp_path) == 143
    assert (tmp_path / "stopped").exists()
    assert not (tmp_path / "driving").exists()
