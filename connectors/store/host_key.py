"""Whom an SFTP client believes: servers whose key is in a `known_hosts` file, and no other."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache
def known_hosts_policy(path: str) -> Any:
    """A policy for paramiko; the same object for the same file, so that stores can share a connection.

    The client of fsspec loads no `known_hosts` by itself: its own policy "reject" would refuse every server.
    """
    import paramiko  # an optional package

    class KnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc, unused-ignore]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            file = Path(path).expanduser()
            known = paramiko.HostKeys(str(file)) if file.exists() else paramiko.HostKeys()
            if not known.check(hostname, key):
                raise PermissionError(f"the key of host '{hostname}' is not in '{path}'; add it there if you trust it")

    return KnownHosts()
