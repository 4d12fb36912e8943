"""SFTP: one connection that takes turns, the rename of the protocol, and servers that are known.

Owns the way around what the client of fsspec does: it believes every server, cuts paths at a question mark, and
replaces what it moves onto. The invariant: a name is only ever given by the rename that refuses a taken one.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from connectors.store.remote import PlacedFiles
from connectors.store.scratch import expanded


class SftpFiles(PlacedFiles):
    at_once = 1  # see `_turn`

    _making_turns: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def client_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """host_key_policy: 'reject' means servers that `known_hosts` does not name; it is the default."""
        options = {"host_key_policy": "reject", **given}
        if options["host_key_policy"] == "reject":
            known_hosts = str(options.pop("known_hosts", "~/.ssh/known_hosts"))
            options["host_key_policy"] = known_hosts_policy(known_hosts)
        return options

    def _turn(self) -> AbstractContextManager[object]:
        """A connection loses answers when two threads wait for them; stores with equal options share one."""
        with self._making_turns:
            lock: AbstractContextManager[object] = self.client.__dict__.setdefault("_turn", threading.RLock())
            return lock

    def _lost(self) -> bool:
        transport = self.client.client.get_transport()
        return transport is None or not transport.is_active()

    def key(self, url: str) -> str:
        if "://" in url:  # the client would cut the path at a question mark
            return "/" + url.partition("://")[2].partition("/")[2]
        return super().key(url)

    def replace(self, url: str, content: bytes) -> None:
        temporary = self._temporary(url, content)
        self.client.ftp.posix_rename(temporary, self.key(url))

    def upload(self, spool: Path, url: str) -> None:
        self._make_folder(self.key(url))
        super().upload(spool, url)

    def _named(self, temporary: str, final: str) -> bool:
        """By the protocol's own rename, which refuses a name that is taken; `mv` of the client replaces it."""
        self._make_folder(final)
        try:
            self.client.ftp.rename(temporary, final)
        except OSError:
            if self.client.exists(final):  # SFTP 3 has no code for it, only "failure"
                return False
            raise
        return True


@lru_cache
def known_hosts_policy(path: str) -> Any:
    """A policy for paramiko; the same object for the same file, so that stores can share a connection.

    The client of fsspec loads no `known_hosts` by itself: its own policy "reject" would refuse every server.
    """
    import paramiko  # an optional package

    class KnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc, unused-ignore]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            file = expanded(path)
            known = paramiko.HostKeys(str(file)) if file.exists() else paramiko.HostKeys()
            if not known.check(hostname, key):
                raise PermissionError(f"the key of host '{hostname}' is not in '{path}'; add it there if you trust it")

    return KnownHosts()
