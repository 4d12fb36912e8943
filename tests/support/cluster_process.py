"""A Ray cluster in a process of its own, so that its token and its settings are not those of the tests.

As a script: reads one JSON command a line, answers each with a line of JSON, and takes the cluster down with itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store_servers import free_port

STORE_BYTES = 80 * 2**20


class ClusterProcess:
    """The other side of the script. address: of GCS; dashboard: a URL, "" where there is none; session: a folder."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        first = self._answer()
        self.address, self.dashboard, self.session = first["address"], first["dashboard"], Path(first["session"])

    def add(self, **node: Any) -> str:
        """The id of a new node."""
        return str(self._ask({"add": node})["node"])

    def remove(self, node: str) -> None:
        """Kill its processes, without a word to anybody."""
        self._ask({"remove": node})

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the cluster's process ended: {self._process.wait(10)}")


@contextmanager
def cluster_process(environment: Mapping[str, str], *prefix: str, **head: Any) -> Iterator[ClusterProcess]:
    """head: arguments of the head node, as `ray.cluster_utils.Cluster` takes them. prefix: of the command line."""
    # Another Ray of this machine may have the usual port, and without its agent a node takes no jobs.
    first = {"object_store_memory": STORE_BYTES, "dashboard_agent_listen_port": free_port(), **head}
    command = [*prefix, sys.executable, __file__, json.dumps(first)]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        command,
        env={**environment, **quiet},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield ClusterProcess(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=json.loads(sys.argv[1]))
    nodes: dict[str, Any] = {}

    def say(**facts: Any) -> None:
        print(json.dumps(facts), flush=True)

    url = cluster.head_node.address_info.get("webui_url") or ""
    say(
        address=cluster.address,
        dashboard=f"http://{url}" if url else "",
        session=cluster.head_node.get_session_dir_path(),
    )
    for line in sys.stdin:
        command = json.loads(line)
        if "add" in command:
            node = cluster.add_node(**{"object_store_memory": STORE_BYTES, **command["add"]})
            nodes[node.node_id] = node
            say(node=node.node_id)
        else:
            cluster.remove_node(nodes.pop(command["remove"]), allow_graceful=False)
            say(removed=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
