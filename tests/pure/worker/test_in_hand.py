"""InHand: the oldest attempt speaks for its worker, and a later one can wait for it."""

from __future__ import annotations

import threading

import pytest

from runner.worker.in_hand import InHand
from runner.worker.spec import Progress


def test_the_oldest_attempt_speaks_and_the_others_are_counted_beside_it() -> None:
    in_hand = InHand()
    assert in_hand.progress == Progress()
    with in_hand.attempt(0, "a"):
        in_hand.count(0, 10)
        with in_hand.attempt(1, "b"):
            in_hand.count(1, 5)
            in_hand.count(1, 2)
            in_hand.count_call()
            assert in_hand.progress == Progress("a", 10, 7, 1)
        assert in_hand.progress == Progress("a", 10, 0, 1)
    assert in_hand.progress == Progress()


def test_an_attempt_that_fails_is_no_longer_in_hand() -> None:
    in_hand = InHand()
    with pytest.raises(ValueError, match="broken"), in_hand.attempt(0, "a"):
        raise ValueError("broken")
    assert in_hand.progress == Progress()


def test_a_later_attempt_waits_until_the_earlier_ones_have_ended() -> None:
    in_hand, order = InHand(), list[str]()
    waiting = threading.Event()

    def later() -> None:
        with in_hand.attempt(1, "b"):
            waiting.set()
            in_hand.await_earlier(1, 60)
            order.append("later")

    with in_hand.attempt(0, "a"):
        thread = threading.Thread(target=later)
        thread.start()
        assert waiting.wait(60)
        order.append("earlier")
    thread.join(60)
    assert order == ["earlier", "later"]


def test_the_wait_for_an_earlier_attempt_is_bounded() -> None:
    in_hand = InHand()
    with in_hand.attempt(0, "a"), in_hand.attempt(1, "b"):
        in_hand.await_earlier(1, 0.01)
        assert in_hand.progress == Progress("a", 0, 0)
