"""Every call on a store goes through here: where a name lies, what an exception means, when a call is tried again.

Owns the secrets of the options, and keeps them out of messages. The invariants: no exception of a storage client leaves
this module; what may pass is tried again within the bounds of `retry.py`, except by `settle`, whose caller looks first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from connectors.secret import HIDDEN, redact, resolve
from connectors.store.client_error import meaning, publish_answer
from connectors.store.connect import absolute, connect, files_at, scheme_of
from connectors.store.files import Files
from connectors.store.retry import READ, Patience
from jobs.errors import JobError, OutputError, RunnerError, StorageError, one_of
from jobs.job import OptionValue

T = TypeVar("T")


class Calls:
    """The calls on one store. url: absolute."""

    def __init__(self, url: str, options: Mapping[str, OptionValue]) -> None:
        self.url = url
        self.scheme = scheme_of(url)
        self._options = options
        self._secrets: list[str] = []

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
        if scheme_of(url) != self.scheme:
            raise JobError(
                f"cannot reach '{redact(url)}' through '{redact(self.url)}': one job section has one kind of store"
            )
        return absolute(url)

    def ask(
        self, doing: str, path: str, wrong: type[JobError], call: Callable[[Files, str], T], patience: Patience = READ
    ) -> T:
        """What `call` returns for the files and the full url; tried again while it fails with what may pass.

        wrong: the class for what will not pass by itself.
        """
        url = self.locate(path)

        def once() -> T:
            with self._errors(doing, url, wrong):
                return self.files.using(lambda: call(self.files, url))

        return patience.call(once, lambda error: error.facts.get("cause") != "full")

    def settle(self, doing: str, path: str, call: Callable[[Files, str], bool]) -> bool:
        """As `ask`, once, for what gives a final name: an error says in its fact `answer` whether that may be done."""
        url = self.locate(path)

        def once() -> bool:
            try:
                return call(self.files, url)
            except RunnerError as error:
                error.facts.setdefault("answer", "failed")  # our own refusals come before anything is written
                raise

        with self._errors(doing, url, OutputError, publishing=True):
            return self.files.using(once)

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
            facts = {"url": redact(url), "cause": cause}
            if publishing:
                facts["answer"] = publish_answer(error)
                if facts["answer"] == "unclear":
                    cls = StorageError
            # `from None`: the original may quote credentials, and a traceback would print it.
            raise cls(f"cannot {doing} '{redact(url)}': {self._hide(text)}", **facts) from None

    def _hide(self, text: str) -> str:
        for secret in filter(None, self._secrets):
            text = text.replace(secret, HIDDEN)
        return redact(text)
