"""The token of a cluster: which one is at hand, whether a head wants it, and one for a Ray of this process alone.

Owns the variables and the state of this process that tell Ray of a token; refuses to know what is done on a cluster.
The invariants: a token goes only to a cluster that wants one, and nothing of it is left in the home folder. Ray itself
decides by what is at hand: it writes a token for a local Ray, and a driver that sends one to a head that wants none
loses its workers, because they cannot answer it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal

from jobs.errors import CapacityError
from runner.cluster.fault import bounded
from runner.engine.quiet import NativeNotes

_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
_ANSWER_S = 5.0  # how long a head may take to answer; it takes 10 ms on a network of its own
PLACES = "RAY_AUTH_TOKEN, or into the file that RAY_AUTH_TOKEN_PATH names (~/.ray/auth_token if unset)"


def token_at_hand() -> str:
    """As Ray looks for it: the variable, the file that is named, the file in the home folder; "" for none."""
    if token := os.environ.get(_TOKEN, "").strip():
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    with suppress(OSError, UnicodeDecodeError, RuntimeError):  # RuntimeError: there is no home folder
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    return ""


def mode() -> str | None:
    """Whether this process sends a token: 'token', 'disabled', or as Ray thinks fit."""
    return os.environ.get(_MODE)


def set_mode(wanted: str | None) -> None:
    """Ray reads both, mode and token, once in a process, unless it is told to read them again."""
    os.environ.pop(_MODE, None)
    if wanted is not None:
        os.environ[_MODE] = wanted
    with suppress(ImportError, AttributeError):
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        AuthenticationTokenLoader.instance().reset_cache()
        Config.initialize("")


@contextmanager
def own_token() -> Iterator[None]:
    """While a local Ray is started: it gets a random token by its environment, where it would write one otherwise.

    What Ray writes, all that this person starts later would demand; and not every home folder can be written to.
    """
    wanted = (mode() or "token") == "token" and not token_at_hand()
    if wanted:
        os.environ[_TOKEN] = _random()
        set_mode(mode())  # Ray may remember that there was none, or another one
    try:
        yield
    finally:
        if wanted:
            del os.environ[_TOKEN]


@cache
def _random() -> str:
    """One for all local Rays of this process, in case Ray remembers it."""
    return secrets.token_hex(32)


def speak_as_wanted(address: str) -> None:
    """Set whether this process sends the token at hand: it does where the head at `address` demands one.

    address: 'HOST:PORT', or 'auto'. Where nothing answers, nothing is set: who connects hears why.
    raises:  CapacityError where a token is demanded and none is at hand, or another one.
    """
    asked = mode()
    if asked not in (None, "token", "disabled"):
        return
    set_mode("disabled")
    answer = _answer(address)
    if answer == "open":
        return
    set_mode(asked)
    if answer == "silent":
        return
    if asked == "disabled":
        raise CapacityError(f"Ray at '{address}' demands a token, and RAY_AUTH_MODE is 'disabled' here; unset it")
    if not token_at_hand():
        raise CapacityError(f"Ray at '{address}' demands a token, and none is at hand: put it into {PLACES}")
    set_mode("token")
    if _answer(address) == "refused":
        set_mode(asked)
        raise CapacityError(f"Ray at '{address}' did not accept the token: put the right one into {PLACES}")


def _answer(address: str) -> Literal["open", "refused", "silent"]:
    """What the head says to this process as it is. Ray's own way to ask takes 20 s and a page to say the second."""
    try:
        from ray._private.services import canonicalize_bootstrap_address
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return "silent"
    answers: list[Literal["open", "refused"]] = []

    def ask() -> None:
        try:
            GcsClient(address=canonicalize_bootstrap_address(address)).check_alive([], timeout=_ANSWER_S)
            answers.append("open")
        except Exception as error:
            if "Unauthenticated" in repr(error) or type(error).__name__ == "AuthenticationError":
                answers.append("refused")

    with NativeNotes("asked a cluster for its state"):
        bounded(ask, _ANSWER_S)
    return answers[0] if answers else "silent"
