"""When a token is sent, and to whom: told by a head that answers as one does that wants a token, or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import CapacityError
from runner.cluster import token as tokens
from runner.cluster.token import mode, own_token, speak_as_wanted, token_at_hand

Head = Callable[[str], None]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token anywhere, and nothing is asked of Ray."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what a test sets is gone afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    """head(wants): how the head at every address answers. wants: a token, "" for none, "nobody" for no answer."""

    def answers(wants: str) -> None:
        def answer(address: str) -> str:
            if wants == "nobody":
                return "silent"
            sent = token_at_hand() if mode() == "token" else ""
            return "open" if sent == wants else "refused"

        monkeypatch.setattr(tokens, "_answer", answer)

    return answers


def test_a_token_at_hand_is_sent_to_a_head_that_wants_it(head: Head, tmp_path: Path) -> None:
    head("right")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("right\n")
    speak_as_wanted("10.0.0.7:6379")
    assert mode() == "token"


@pytest.mark.parametrize("asked", [None, "token"])
def test_a_head_that_wants_none_gets_none(head: Head, monkeypatch: pytest.MonkeyPatch, asked: str | None) -> None:
    head("")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    if asked is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", asked)
    speak_as_wanted("auto")
    assert mode() == "disabled"


@pytest.mark.parametrize(
    ("asked", "at_hand", "story"),
    [
        (None, "", r"demands a token, and none is at hand: put it into RAY_AUTH_TOKEN, or into the file that "),
        ("token", "", r"none is at hand"),
        (None, "wrong", r"did not accept the token: put the right one into RAY_AUTH_TOKEN"),
        ("token", "wrong", r"did not accept the token"),
        ("disabled", "right", r"demands a token, and RAY_AUTH_MODE is 'disabled' here; unset it"),
    ],
)
def test_what_a_head_lacks_is_said_and_nothing_is_changed(
    head: Head, monkeypatch: pytest.MonkeyPatch, asked: str | None, at_hand: str, story: str
) -> None:
    head("right")
    monkeypatch.setenv("RAY_AUTH_TOKEN", at_hand)
    if asked is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", asked)
    with pytest.raises(CapacityError, match=story) as caught:
        speak_as_wanted("10.0.0.7:6379")
    assert mode() == asked
    assert "'10.0.0.7:6379'" in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_where_nothing_answers_nothing_is_changed(head: Head) -> None:
    head("nobody")
    speak_as_wanted("10.0.0.7:6379")
    assert mode() is None


def test_a_local_ray_gets_a_token_of_its_own_while_it_starts() -> None:
    with own_token():
        first = os.environ["RAY_AUTH_TOKEN"]
        assert len(first) >= 32
    assert "RAY_AUTH_TOKEN" not in os.environ
    with own_token():
        assert os.environ["RAY_AUTH_TOKEN"] == first, "Ray may remember it"


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_MODE"])
def test_what_a_person_set_for_a_local_ray_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "disabled")
    with own_token():
        assert os.environ.get("RAY_AUTH_TOKEN", "") in ("", "disabled")
    assert os.environ[name] == "disabled"
