"""Hosts that share nothing but a network: namespaces of one machine, each with its own network, processes and /tmp/ray.

A switch connects them; whoever is plugged into it only (a submitting machine, an S3 server) runs in its namespace.
Needs root. What they do share is the disk with the software, and whatever else is not /tmp/ray or the spool folder.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NETWORK = "10.77.0"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def possible() -> str:
    """Why it is not; "" where it is."""
    try:
        run("ip", "netns", "add", f"try-{os.getpid()}")
        run("ip", "netns", "del", f"try-{os.getpid()}")
        run("unshare", "--mount", "--pid", "--fork", "--mount-proc", "true")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no namespaces can be made here: {getattr(error, 'stderr', '') or error}"
    return ""


class Lan:
    """A switch, and hosts on it. `address` is where servers on the switch are reached."""

    address = f"{NETWORK}.1"

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, dict(environment)
        self._name = f"rt{os.getpid()}"
        self._spaces: list[str] = []
        self._processes: list[subprocess.Popen[Any]] = []
        self._logs = 0
        self.switch = self._space("lan")
        self._inside(self.switch, "link", "add", "br0", "type", "bridge")
        self._inside(self.switch, "addr", "add", f"{self.address}/24", "dev", "br0")
        self._inside(self.switch, "link", "set", "br0", "up")

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs on the switch."""
        return ["ip", "netns", "exec", self.switch, *arguments]

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[Any]:
        """A server; its output goes into the folder. It ends with the network."""
        self._logs += 1
        log = (self._folder / f"process-{self._logs}.log").open("wb")
        process = subprocess.Popen(arguments, env=self._environment, stdout=log, stderr=log, start_new_session=True)
        log.close()
        self._processes.append(process)
        return process

    def host(self, number: int, *arguments: str) -> subprocess.Popen[Any]:
        """A new host at `NETWORK.number` that runs one command; the host is off when that ends."""
        space = self._space(f"h{number}")
        ours, theirs = f"v{number}", f"w{number}"
        self._inside(self.switch, "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", space)
        self._inside(self.switch, "link", "set", ours, "master", "br0", "up")
        self._inside(space, "link", "set", theirs, "name", "eth0")
        self._inside(space, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        self._inside(space, "link", "set", "eth0", "up")
        spool = self._folder / "spool"
        spool.mkdir(exist_ok=True)
        private = f"mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && mount -t tmpfs none {spool}"
        alone = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--uts"]
        inside = f'hostname host-{number} && {private} && export TMPDIR={spool} RAY_TMPDIR=/tmp && exec "$@"'
        return self.start(["ip", "netns", "exec", space, *alone, "bash", "-c", inside, "host", *arguments])

    def on(self, host: subprocess.Popen[Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a host."""
        child = int(Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()[0])
        command = ["nsenter", "--target", str(child), "--net", "--mount", "--pid", "--uts", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60, check=False)

    def power_off(self, host: subprocess.Popen[Any]) -> None:
        """At once, without a word to anybody."""
        host.kill()
        host.wait(10)

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait(10)
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        for _ in range(50):  # the kernel takes it down when the last process is gone
            if not any(Path("/run/netns").glob(f"{self._name}-*")):
                return
            time.sleep(0.1)

    def _space(self, name: str) -> str:
        space = f"{self._name}-{name}"
        run("ip", "netns", "add", space)
        self._spaces.append(space)
        self._inside(space, "link", "set", "lo", "up")
        return space

    @staticmethod
    def _inside(space: str, *arguments: str) -> None:
        run("ip", "-n", space, *arguments)
