"""Who may write: one driver at a time, judged by the store's own times, and the one that was replaced stops."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from connectors.output import epoch as epochs
from connectors.output.epoch import FRESH_S, Epochs, Process
from connectors.output.layout import Layout
from connectors.store.store import Store
from jobs.errors import BusyError, SupersededError

NAMES = Layout("ab" * 16, 3, ".parquet")
ELSEWHERE = Process("another-host", 7, "b", "n", "1")


def drivers(place: Any, process: Process = ELSEWHERE) -> Epochs:
    return Epochs(place.store("out"), NAMES, process)


def document(place: Any, number: int) -> dict[str, Any]:
    return dict(json.loads(place.store("out").read(NAMES.epoch(number)) or b"{}"))


def content(place: Any) -> dict[str, bytes | None]:
    store = place.store("out")
    return {name: store.read(f"{NAMES.epochs}/{name}") for name in store.names(NAMES.epochs)}


def test_a_second_driver_is_refused_and_told_who_writes(place: Any) -> None:
    assert drivers(place).begin(takeover=False) == 1
    before = content(place)
    with pytest.raises(BusyError, match=r"driver 1 on host 'another-host' \(pid 7, since 20.*--takeover"):
        drivers(place, Process("third", 8)).begin(takeover=False)
    assert content(place) == before


@pytest.mark.parametrize("how", ["finished", "failed", "interrupted", "superseded"])
def test_a_driver_that_said_how_it_ended_is_not_in_the_way(place: Any, how: Any) -> None:
    first = drivers(place)
    first.end(first.begin(takeover=False), how)
    assert document(place, 1)["ended"] == how
    assert document(place, 1)["host"] == "another-host"
    assert drivers(place).begin(takeover=False) == 2


def test_a_driver_that_died_on_this_machine_is_not_in_the_way(place: Any) -> None:
    code = "import sys; sys.path[:0] = {!r}\nfrom connectors.output.epoch import Process\nimport dataclasses, json\n"
    code += "print(json.dumps(dataclasses.asdict(Process.current())))"
    root = str(Path(epochs.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code.format([root])], capture_output=True, text=True, check=True)
    dead = Process(**json.loads(done.stdout))
    assert dead.gone()
    drivers(place, dead).begin(takeover=False)
    assert drivers(place).begin(takeover=False) == 2


def test_a_driver_that_lives_on_this_machine_is_in_the_way(place: Any) -> None:
    drivers(place, Process.current()).begin(takeover=False)
    with pytest.raises(BusyError, match=f"pid {os.getpid()}"):
        drivers(place).begin(takeover=False)


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_process_of_another_machine_is_never_known_dead(field: str) -> None:
    gone = dataclasses.replace(Process.current(), pid=2**30, born="1")
    assert gone.gone()
    assert not dataclasses.replace(gone, **{field: "another"}).gone()
    assert not dataclasses.replace(gone, boot="").gone()


def test_a_process_that_got_the_pid_of_a_dead_one_is_not_taken_for_it() -> None:
    assert not Process.current().gone()
    assert dataclasses.replace(Process.current(), born="1").gone()


def aged(place: Any, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The heartbeat was written `seconds` ago, by the clock of the store."""
    monkeypatch.setattr(Store, "modified", lambda store, path: 1e9 + (seconds if path == NAMES.clock else 0.0))


def test_a_driver_that_was_silent_for_five_minutes_is_replaced(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers(place).begin(takeover=False)
    aged(place, monkeypatch, FRESH_S - 1)
    with pytest.raises(BusyError, match="last heard 299 s ago"):
        drivers(place).begin(takeover=False)
    aged(place, monkeypatch, FRESH_S + 1)
    assert drivers(place).begin(takeover=False) == 2


@pytest.mark.parametrize("jump", ["2000-01-01", "2100-01-01"])
def test_a_wrong_clock_of_a_machine_changes_nothing(place: Any, monkeypatch: pytest.MonkeyPatch, jump: str) -> None:
    monkeypatch.setattr(epochs, "_now", lambda: f"{jump}T00:00:00+00:00")
    first = drivers(place)
    first.renew(first.begin(takeover=False), {})
    assert document(place, 1)["heartbeat"].startswith(jump)
    monkeypatch.undo()
    with pytest.raises(BusyError, match="driver 1"):
        drivers(place).begin(takeover=False)


def test_a_local_heartbeat_ages_by_the_time_of_its_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = Epochs(store, NAMES, ELSEWHERE)
    first.begin(takeover=False)
    long_ago = (tmp_path / NAMES.epoch(1)).stat().st_mtime - FRESH_S - 60
    os.utime(tmp_path / NAMES.epoch(1), (long_ago, long_ago))
    assert Epochs(store, NAMES).begin(takeover=False) == 2


def test_a_store_without_times_is_never_taken_over_unasked(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "modified", lambda store, path: None)
    drivers(place).begin(takeover=False)
    with pytest.raises(BusyError, match="at a time that the store does not tell"):
        drivers(place).begin(takeover=False)
    assert drivers(place).begin(takeover=True) == 2


def test_a_driver_that_was_taken_over_stops_and_changes_nothing(place: Any) -> None:
    old, new = drivers(place), drivers(place, Process("rival", 8))
    epoch = old.begin(takeover=False)
    old.renew(epoch, {"rows_done": 3})
    assert document(place, 1)["rows_done"] == 3
    assert new.begin(takeover=True) == 2
    before = content(place)
    with pytest.raises(SupersededError, match=r"driver 2 on host 'rival' \(pid 8.*took over") as caught:
        old.renew(epoch, {"rows_done": 4})
    assert caught.value.exit_code == 75
    with pytest.raises(SupersededError):
        old.require_newest(epoch)
    assert content(place) == before
    new.renew(2, {})


def test_a_takeover_is_seen_although_the_listing_is_stale(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    old = drivers(place)
    epoch = old.begin(takeover=False)
    drivers(place).begin(takeover=True)
    monkeypatch.setattr(old.store, "names", lambda folder: ["000001.json"])
    with pytest.raises(SupersededError, match="driver 2"):
        old.renew(epoch, {})


def test_a_rival_that_a_stale_listing_hides_is_found_by_its_name(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers(place).begin(takeover=False)
    late = drivers(place)
    monkeypatch.setattr(late.store, "names", lambda folder: [])
    with pytest.raises(BusyError, match="driver 1"):
        late.begin(takeover=False)


def test_of_drivers_that_start_together_one_may_write(place: Any) -> None:
    barrier, outcomes = threading.Barrier(4), list[int | BusyError]()

    def start() -> None:
        barrier.wait()
        try:
            outcomes.append(drivers(place).begin(takeover=False))
        except BusyError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [one for one in outcomes if isinstance(one, int)] == [1]
    assert len(outcomes) == 4


def test_a_driver_whose_document_was_deleted_writes_it_again_and_goes_on(place: Any) -> None:
    first = drivers(place)
    first.begin(takeover=False)
    first.store.remove(NAMES.epoch(1))
    first.require_newest(1)
    assert document(place, 1)["host"] == "another-host"
    with pytest.raises(BusyError, match="driver 1"):
        drivers(place).begin(takeover=False)


def test_a_driver_that_another_one_took_the_number_of_stops_and_leaves_its_document(place: Any) -> None:
    first, second = drivers(place), drivers(place, Process("rival", 8))
    first.begin(takeover=False)
    first.store.remove(NAMES.epoch(1))
    assert second.begin(takeover=False) == 1
    before = content(place)
    with pytest.raises(SupersededError, match=r"driver 1 on host 'rival'"):
        first.renew(1, {})
    first.end(1, "superseded")
    assert content(place) == before
    second.renew(1, {})
