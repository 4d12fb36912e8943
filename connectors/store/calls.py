"""Every call on a store goes through here: where a name lies, what an exception means, when a call is tried again.

Owns the secrets of the options, and keeps them out of messages; and the calls in progress, so that none waits in
silence. The invariants: no exception of a storage client leaves this module; what may pass is tried again within the
bounds of `retry.py`, except by `settle`, whose caller looks first.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from connectors.secret import HIDDEN, redact, resolve
from connectors.store.client_error import full_code, meaning, publish_answer
from connectors.store.connect import absolute, chain_of, connect, files_at, kind_of, reaches, scheme_of
from connectors.store.files import Files
from connectors.store.retry import READ, Patience
from jobs.errors import JobError, OutputError, RunnerError, StorageError, UnreachableError, one_of
from jobs.section.base import OptionValue

_log = logging.getLogger(__name__)

T = TypeVar("T")

NOTICE_S = 10.0  # what a call waits for longer than that is said
_AGAIN_S = 60.0  # of calls of one kind: uploads of large parts may all take longer
_FIRST_ANSWER_S = 120.0  # a store that says nothing for so long at first is at another address, or behind a wall
_GIVE_UP = "give_up_s"  # the option that is ours: how long what may pass is tried again
_AT_LENGTH = ("upload",)  # what may take longer than that although the store answers


@dataclass(eq=False)
class Wait:
    """One call in progress. tries: that failed so far, and the message of the last one."""

    doing: str
    url: str
    advice: str
    began: float = field(default_factory=time.monotonic)
    tries: int = 0
    message: str = ""

    def failed(self, error: StorageError) -> None:
        self.tries, self.message = self.tries + 1, error.message

    def story(self, seconds: float) -> str:
        failed = f"; {count(self.tries)} failed, the last: {self.message}" if self.tries else ""
        return f"still waiting after {seconds:.0f} s to {self.doing} '{redact(self.url)}'{failed or '; ' + self.advice}"


def count(tries: int) -> str:
    return f"{tries} tries" if tries != 1 else "1 try"


class Waits:
    """The calls in progress in this process. One that takes longer than `notice_s` is said once, by `say`.

    again_s: so long, nothing is said of another call that does the same.
    cost:    a thread while there are calls; 2 us a call.
    """

    def __init__(
        self, notice_s: float = NOTICE_S, again_s: float = _AGAIN_S, say: Callable[[str], None] = _log.warning
    ):
        self._notice_s, self._again_s, self._say = notice_s, again_s, say
        self._running: dict[Wait, str] = {}  # what was said of each
        self._said_at: dict[str, float] = {}  # doing -> when
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def call(self, doing: str, url: str, advice: str) -> Iterator[Wait]:
        """advice: for one that takes long, where no failure says why."""
        wait = Wait(doing, url, advice)
        with self._lock:
            self._running[wait] = ""
            if self._thread is None or not self._thread.is_alive():  # none lives on in a fork
                self._thread = threading.Thread(target=self._watch, name="store-waits", daemon=True)
                with suppress(RuntimeError):  # this process may start no more threads: then nothing is said
                    self._thread.start()
        try:
            yield wait
        finally:
            with self._lock:
                del self._running[wait]

    @property
    def said(self) -> str:
        """What was said of the oldest call that is in progress; "" where nothing was."""
        with self._lock:
            return next(filter(None, self._running.values()), "")

    def tell(self, wait: Wait, story: str) -> None:
        """Say `story` of a call at once, unless something was said of it, or of one that does the same."""
        with self._lock:
            now = time.monotonic()
            if self._running[wait] or now - self._said_at.get(wait.doing, float("-inf")) < self._again_s:
                return
            self._said_at[wait.doing], self._running[wait] = now, story
        self._say(story)

    def _watch(self) -> None:
        while True:
            time.sleep(self._notice_s / 8)
            with self._lock:
                if not self._running:
                    self._thread = None
                    return
                stories = [story for wait in self._running if (story := self._due(wait, time.monotonic()))]
            for story in stories:  # outside the lock: who hears it may call a store
                self._say(story)

    def _due(self, wait: Wait, now: float) -> str:
        """What is to be said of a call, and from then on is; "" where nothing is, or is any more."""
        if self._running[wait] or now - wait.began < self._notice_s:
            return ""
        if now - self._said_at.get(wait.doing, float("-inf")) < self._again_s:
            return ""
        self._said_at[wait.doing] = now
        self._running[wait] = wait.story(self._notice_s)
        return self._running[wait]


WAITS = Waits()


class Calls:
    """The calls on one store. url: absolute."""

    def __init__(self, url: str, options: Mapping[str, OptionValue]) -> None:
        self.url = url
        self.scheme = scheme_of(url)
        self._options = {name: value for name, value in options.items() if name != _GIVE_UP}
        self._give_up_s = _seconds(url, options.get(_GIVE_UP))
        self._secrets: list[str] = []
        self._advice = kind_of(self.scheme).when_slow
        self._answered = self.scheme in ("file", "memory")

    @cached_property
    def files(self) -> Files:
        with self._errors("reach", self.url, JobError):
            return files_at(self.url, self._options, self._client)

    def locate(self, path: str) -> str:
        """The full url of a name below the root, or of a URL on the same store."""
        if "://" in path or path.startswith("/"):
            return self.on_this_store(path)
        segments = path.split("/") if path else []
        if any(segment in ("", ".", "..") or not segment.isprintable() for segment in segments):
            raise OutputError(f"cannot use {path!r} below '{redact(self.url)}': it is no plain relative name")
        return "/".join((self.url.removesuffix("/"), *segments))

    def on_this_store(self, url: str) -> str:
        """The full url of a URL, or of a local path from the working directory."""
        found = absolute(url)
        if not reaches(self.url, found):
            raise JobError(
                f"cannot reach '{redact(url)}' through '{redact(self.url)}': one job section has one kind of store"
            )
        return found

    def ask(
        self, doing: str, path: str, wrong: type[JobError], call: Callable[[Files, str], T], patience: Patience = READ
    ) -> T:
        """What `call` returns for the files and the full url; tried again while it fails with what may pass.

        wrong: the class for what will not pass by itself.
        """
        url = self.locate(path)
        if self._give_up_s is not None and patience.total_s >= READ.total_s:
            patience = replace(patience, tries=sys.maxsize, total_s=self._give_up_s)
        first_s = min(patience.total_s, self._give_up_s or _FIRST_ANSWER_S)  # as long as nobody has answered
        until = time.monotonic() + first_s

        def once() -> T:
            with self._errors(doing, url, wrong):
                return self.files.using(lambda: call(self.files, url))

        with WAITS.call(doing, url, self._advice) as wait:

            def noted() -> T:
                try:
                    return once() if self._answered or doing in _AT_LENGTH else self._first(once, doing, url, until)
                except StorageError as error:
                    cause = error.facts.get("cause")
                    if cause != "silent":  # else what failed before says more
                        wait.failed(error)
                    if not self._answered and may_pass(error):
                        tried_s = first_s if cause == "unreached" else patience.total_s
                        again = f"it is tried again for up to {tried_s:.0f} s (option `{_GIVE_UP}`)"
                        WAITS.tell(wait, f"{error.message}: {again}")
                    self._answered |= cause not in ("unreached", "silent")  # an error is an answer, too
                    raise

            def may_pass(error: StorageError) -> bool:
                cause = error.facts.get("cause")
                early = self._answered or time.monotonic() < until
                return cause not in ("full", "silent") and (early or cause != "unreached")

            try:
                return patience.call(noted, may_pass)
            except StorageError as error:
                if self._answered or not wait.tries or error.facts.get("cause") not in ("unreached", "silent"):
                    raise
                tried = f"given up after {count(wait.tries)} in {first_s:.0f} s; {self._advice}"
                raise UnreachableError(f"{wait.message}: {tried}", **{**error.facts, "cause": "silent"}) from None

    def settle(self, doing: str, path: str, call: Callable[[Files, str], bool]) -> bool:
        """As `ask`, once, for what gives a final name: an error says in its fact `answer` whether that may be done."""
        url = self.locate(path)

        def once() -> bool:
            try:
                return call(self.files, url)
            except RunnerError as error:
                error.facts.setdefault("answer", "failed")  # our own refusals come before anything is written
                raise

        with WAITS.call(doing, url, self._advice), self._errors(doing, url, OutputError, publishing=True):
            return self.files.using(once)

    def _first(self, once: Callable[[], T], doing: str, url: str, until: float) -> T:
        """What `once` returns, of a store that has not answered yet: it has to do so in time.

        until: by the monotonic clock, in s.

        Clients may try for half an hour, and nobody can end a call: it is left alone, in a thread of its own.
        """
        answer = Future[T]()

        def call() -> None:
            try:
                answer.set_result(once())
            except BaseException as error:
                answer.set_exception(error)

        began = time.monotonic()
        try:
            threading.Thread(target=call, name="store-first-answer", daemon=True).start()
        except RuntimeError:  # this process may start no more threads: then nothing bounds the call
            call()
        try:
            result = answer.result(max(0.0, until - began))
        except StorageError:
            raise
        except TimeoutError:
            raise UnreachableError(
                f"cannot {doing} '{redact(url)}': no answer within {until - began:.0f} s; {self._advice}",
                url=redact(url),
                cause="silent",
            ) from None
        except BaseException:
            self._answered = True
            raise
        self._answered = True
        return result

    def _client(self, fresh: bool) -> Any:
        """fresh: with the references resolved again, and not the client that others use."""
        options, secrets = resolve(self._options, self.scheme)
        self._secrets = list(dict.fromkeys((*self._secrets, *secrets)))
        try:
            return connect(self.url, options, fresh)
        except (TypeError, ValueError, KeyError) as error:
            names, text = one_of(list(options)), self._hide(f"{type(error).__name__}: {error}")
            raise JobError(f"cannot reach '{redact(self.url)}' with options {names}: {text}") from None

    @contextmanager
    def _errors(self, doing: str, url: str, wrong: type[JobError], publishing: bool = False) -> Iterator[None]:
        """What a client raises becomes one of ours."""
        try:
            yield
        except RunnerError:
            raise
        except Exception as error:  # the edge: every client of a store has exceptions of its own
            cls, cause, text = meaning(error, wrong)
            if cause == "denied" and (chain := chain_of(self.url)):
                text += f"; an option of another layer begins with its name: '{scheme_of(chain.target)}.OPTION'"
            facts = {"url": redact(url), "cause": cause}
            facts |= {"code": code} if (code := full_code(error)) else {}
            if publishing:
                facts["answer"] = publish_answer(error)
                if facts["answer"] == "unclear":
                    cls = cls if issubclass(cls, StorageError) else StorageError
            # `from None`: the original may quote credentials, and a traceback would print it.
            raise cls(f"cannot {doing} '{redact(url)}': {self._hide(text)}", **facts) from None

    def _hide(self, text: str) -> str:
        for secret in filter(None, self._secrets):
            text = text.replace(secret, HIDDEN)
        return redact(text)


def _seconds(url: str, given: OptionValue | None) -> float | None:
    try:
        seconds = None if given is None else float(str(given))
    except ValueError:
        seconds = 0.0
    if seconds is not None and not 0 < seconds < 1e6:
        raise JobError(
            f"cannot reach '{redact(url)}' with option {_GIVE_UP!r}: {given!r}; expected a number of seconds"
        )
    return seconds
