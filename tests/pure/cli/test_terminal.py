"""What modules log reaches those who look at the terminal, or who collect its log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from runner.cli.terminal import hear


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """As they were, afterwards."""
    ours = [logging.getLogger(name) for name in ("jobs", "connectors", "runner")]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in ours]
    yield
    for logger, handlers, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate


def test_a_warning_of_any_module_is_told_once_and_what_is_less_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    hear()
    hear(told.append)
    logging.getLogger("connectors.store.calls").warning("still waiting after 10 s")
    logging.getLogger("runner.driver.driver").warning("worker %s: token=%s", "w1", "hunter2")
    logging.getLogger("runner.driver.driver").info("not this")
    assert told[0] == "still waiting after 10 s"
    assert told[1].startswith("worker w1: token=")
    assert len(told) == 2
    assert "hunter2" not in told[1]
    hear()
    logging.getLogger("jobs.x").warning("another")
    assert len(told) == 2
    assert capsys.readouterr().err == "warning: another\n"
