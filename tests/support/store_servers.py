"""Real servers of stores for tests: S3 (moto), SFTP (asyncssh), Azure blobs (azurite). Each is stopped after use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}: exit status {process.poll()}")


@contextlib.contextmanager
def running(port: int, *command: str, log: Path | None = None) -> Iterator[None]:
    with (log or Path(os.devnull)).open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written)
    try:
        wait_for(port, process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # azurite waits for clients that keep their connections
            process.kill()
            process.wait(30)


@contextlib.contextmanager
def moto_server(executable: str, log: Path | None = None) -> Iterator[str]:
    """The endpoint of an S3 server. log: a file that gets a line for each request."""
    port = free_port()
    with running(port, executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), log=log):
        yield f"http://127.0.0.1:{port}"


def new_bucket(endpoint: str, name: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")):
        pass


@contextlib.contextmanager
def azurite_server(command: str) -> Iterator[str]:
    """A connection string. The account and its key are those that every emulator has, and no secret."""
    port = free_port()
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    arguments = ("--blobPort", str(port), "--inMemoryPersistence", "--silent", "--skipApiVersionCheck")
    with running(port, command, *arguments):
        yield (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )


class SFTP:
    """An SFTP server in a thread of its own that shows `root` as '/'. User 'me', password 's3cr3t-canary'."""

    def __init__(self, root: Path, known_hosts: Path) -> None:
        import asyncssh

        root.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        key = asyncssh.generate_private_key("ssh-ed25519")
        self._connections: set[Any] = set()
        connections = self._connections

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: Any) -> None:
                connections.add(conn)

            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == ("me", "s3cr3t-canary")

        def files(channel: Any) -> asyncssh.SFTPServer:
            return asyncssh.SFTPServer(channel, chroot=os.fsencode(root))

        async def listen() -> Any:
            return await asyncssh.listen(
                "127.0.0.1", 0, server_host_keys=[key], server_factory=Server, sftp_factory=files
            )

        self._listening = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(30)
        self.port = self._listening.get_port()
        public = key.export_public_key().decode().split()
        known_hosts.write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n")

    def drop_connections(self) -> None:
        """As a network does that goes away."""

        async def drop() -> None:
            dropped = list(self._connections)
            self._connections.clear()
            for connection in dropped:
                connection.abort()
            await asyncio.gather(*(connection.wait_closed() for connection in dropped), return_exceptions=True)

        asyncio.run_coroutine_threadsafe(drop(), self._loop).result(30)

    def close(self) -> None:
        async def end() -> None:
            self._listening.close()
            await self._listening.wait_closed()
            await asyncio.sleep(0)

        self.drop_connections()
        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


def azurite_command() -> str | None:
    """Beside this Python, where `make` puts it if there is an npm; else wherever the user has it."""
    ours = Path(sys.prefix) / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    return str(ours) if ours.exists() else shutil.which("azurite-blob")
