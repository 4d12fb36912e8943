"""The connection to Ray: begun in the background, waited for within bounds, and given back.

Owns which Ray it is, and whether this process started it; refuses to know workers. The invariant: nothing here waits
for Ray longer than its constant says, because the head may be gone at any moment.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.errors import CapacityError, JobError
from runner.cluster.capacity import Resources
from runner.cluster.fault import bounded
from runner.cluster.nodes import known_nodes
from runner.cluster.quiet import get_node_ip_address, ray, tell_news
from runner.cluster.token import mode, own_token, set_mode, speak_as_wanted
from runner.pool.pool import Waited

WITHOUT = "work without Ray: `--in-process` (in Python `in_process=True`)"  # what else helps where it is gone

_STORE_BYTES = 80 * 2**20  # Ray's smallest object store: nothing of ours goes through it
_START_S = 120.0  # how long a local Ray may take to start on a busy machine
_KNOCK_S = 5.0  # how long the head's machine may take to accept a connection; it takes milliseconds in one network
_KINDS = ("gcs_server", "raylet")  # processes without which a Ray is none
_LOOK_S = 0.5  # how often a Ray that starts is looked at
_SHUTDOWN_S = 15.0
_REASON_S = 2.0  # how long the head may take to say why the node died; it takes milliseconds, if it is there


class Connection:
    """To the Ray at `address`, or to one that this process has started already, or to a local one that it starts.

    raises: JobError for the address of a Ray Client.
    """

    def __init__(self, address: str | None = None) -> None:
        if address is not None and address.startswith("ray://"):
            raise JobError(
                f"cannot use '{address}': the driver must be part of the cluster, not a Ray Client; run it on a node of"
                " the cluster, with --address HOST:6379 or --address auto"
            )
        self._address = address
        self._mode = mode()  # what it was before Ray and this connection set it
        self._owned = not ray.is_initialized()
        self._refusal: Exception | None = None
        self._thread: threading.Thread | None = None
        self._began = self._took = 0.0
        self._settled = threading.Event()  # connected, or refused
        self._closed = threading.Event()
        self._dead = False  # a process of the local Ray ended while it started

    @property
    def local(self) -> bool:
        """Whether Ray is started here, for this run alone: it will never have more than it has at the start."""
        return self._owned and self._address is None

    @property
    def target(self) -> str:
        """As messages name it."""
        return f"Ray at '{self._address}'" if self._address else "the local Ray"

    @property
    def pending(self) -> bool:
        """Whether it has begun, and may yet become one."""
        begun = self._thread is not None and not self._settled.is_set()
        return begun and time.monotonic() - self._began < _START_S

    def begin(self) -> None:
        """raises: CapacityError where nobody listens at the address, or a token is demanded that is not at hand."""
        if self._thread is None:
            if self._owned and self._address is not None:
                _knock(self._address)
                speak_as_wanted(self._address)  # not in a thread: notes are kept off the terminal meanwhile
            self._spawn()

    def restart(self) -> None:
        """Give up the local Ray, which is gone in part, and begin another one, in the background."""
        gone, self._closed = self._closed, threading.Event()
        self._settled, self._refusal = threading.Event(), None
        self._spawn(gone)

    def wait(self, waited: Waited = lambda what, seconds, over: None) -> None:
        """Begin, unless that was done, and return when Ray answers. raises: CapacityError where it does not.

        waited: called while it does not.
        """
        self.begin()
        target = f"Ray at '{self._address}'" if self._address else "a local Ray"
        what = f"connecting to {target}" if self._address or not self._owned else f"starting {target}"
        advice = f"; try again, or {WITHOUT}" if self.local else "; look at its logs, or name another address"
        while not self._settled.wait(_LOOK_S):
            waited(what, time.monotonic() - self._began, False)
            if self.local and (ended := _ended() or _ended_child()):
                self._dead = True
                raise CapacityError(f"the local Ray is gone before it answered: {ended}{advice}", resumable=True)
            if time.monotonic() - self._began >= _START_S and not self._settled.is_set():
                raise CapacityError(f"{target} did not answer within {_START_S:.0f} s{advice}", resumable=True)
        if self._refusal is not None:
            reason = str(self._refusal).strip().splitlines()[0] if str(self._refusal).strip() else repr(self._refusal)
            advice = advice if self.local else ""
            raise CapacityError(f"cannot connect to {target}: {reason}{advice}", resumable=True) from self._refusal
        waited(what, self._took, True)
        if threading.current_thread() is threading.main_thread():
            # Ray's core installs a handler that prints a stack and aborts; ours stops the workers first.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)

    def lost(self, asking: bool = False) -> str:
        """Why the local Ray is gone, "" while it is there.

        asking: its head too, which knows of a node that is about to end before its processes have ended.
        cost:   microseconds; an answer of the head, where it is asked and where something has ended.
        """
        if not self.local or not self._settled.is_set():
            return ""
        ended = _ended()
        if not ended and not asking:
            return ""
        answers: list[tuple[dict[str, Resources], dict[str, str]]] = []
        bounded(lambda: answers.append(known_nodes()), _REASON_S)
        nodes, deaths = answers[0] if answers else ({}, {})
        if not ended and (nodes or not deaths):
            return ""
        return f"the local Ray is gone: {next(iter(deaths.values()), ended)}"

    def close(self) -> None:
        """End the Ray that was started here, or leave the cluster that was joined. Another's connection stays."""
        if self._thread is None or not self._owned:
            return
        if self._dead:  # `ray.init` would never return; what is left of its processes ends with this one
            return
        if self.local:
            self._settled.wait(_START_S)  # a Ray left half-started would leave its processes behind
        if ray.is_initialized():
            bounded(ray.shutdown, _SHUTDOWN_S)
        tell_news(True)
        set_mode(self._mode)
        self._closed.set()

    def _spawn(self, gone: threading.Event | None = None) -> None:
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._live, args=(gone,), name="ray-connect", daemon=True)
        self._thread.start()

    def _live(self, gone: threading.Event | None) -> None:
        """The life of the connecting thread. gone: what ends the thread of a Ray that this one takes the place of.

        It outlives the connection: the kernel kills the processes of a local Ray when the thread that started them
        ends (Ray sets PR_SET_PDEATHSIG, which follows the thread, not the process).
        """
        settled, closed = self._settled, self._closed
        try:
            if gone is not None:
                bounded(ray.shutdown, _SHUTDOWN_S)
                gone.set()
            if self._owned:
                self._init()
            else:
                self._refusal = self._stranger()
        except Exception as error:  # `wait` raises it
            self._refusal = error
        self._took = time.monotonic() - self._began
        settled.set()
        closed.wait()

    def _init(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        tell_news(False)  # standard output is for the answer; what becomes of a node, events tell
        if self._address is not None:
            ray.init(address=self._address, **quiet)
            return
        with own_token():
            ray.init(address="local", include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)

    def _stranger(self) -> Exception | None:
        """Why the Ray that this process is connected to is not the one that the address names."""
        here = ray.get_runtime_context().gcs_address
        if self._address in (None, "auto", here):
            return None
        return ConnectionError(
            f"this process is connected to a Ray at '{here}'; leave the address out, or shut that down"
        )


def _knock(address: str) -> None:
    """Ask whether anybody listens there. Ray itself tries for minutes, and cannot be interrupted.

    address: 'HOST:PORT'; all others are Ray's to understand.
    raises:  CapacityError.
    """
    named = urlsplit(f"//{address}")
    try:
        host, port = named.hostname, named.port
    except ValueError:
        return
    if not host or port is None:
        return
    refusals: list[str] = []

    def knock() -> None:
        # A head on this machine listens at one of its addresses, and Ray takes that one where loopback is named.
        own = [get_node_ip_address()] if host in ("localhost", "127.0.0.1", "::1") else []
        for place in (host, *own):
            try:
                socket.create_connection((place, port), timeout=_KNOCK_S / 2).close()
            except OSError as error:
                refusals.append(f"{error.strerror or error}".lower())
            else:
                refusals.clear()
                return

    answered = bounded(knock, _KNOCK_S)
    if refusals or not answered:
        reason = refusals[-1] if refusals else "no answer"
        raise CapacityError(
            f"no Ray at '{address}': {reason}; expected the head of a cluster there, on port 6379 unless it was started"
            " with another; try `ray status --address` from this machine"
        )


def _ended() -> str:
    """Which process of the Ray that this one started has ended, "" where none has.

    Ray has no public way to ask. Without this one, the node counts as alive until its head has missed it, for 15 s.
    """
    try:
        from ray._private.worker import global_worker

        ended = {kind: process.returncode for kind, process in global_worker.node.dead_processes()}
    except (ImportError, AttributeError):
        return ""
    return next((f"its {kind} ended ({_how(ended[kind])})" for kind in _KINDS if kind in ended), "")


def _ended_child() -> str:
    """As `_ended`, while Ray starts: then it waits for its own processes, and nobody can ask it for them."""
    for children in Path("/proc/self/task").glob("*/children"):  # no Linux: none
        with suppress(OSError):  # a thread or a child that is gone by now
            for child in map(int, children.read_text().split()):
                kind = Path(f"/proc/{child}/comm").read_text().strip()
                if kind in _KINDS and (end := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                    killed = end.si_code != os.CLD_EXITED
                    return f"its {kind} ended ({_how(-end.si_status if killed else end.si_status)})"
    return ""


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
