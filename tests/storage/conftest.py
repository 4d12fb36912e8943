"""Stores to test against: every test that asks for `place` runs on each of them."""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import fsspec
import pytest

from connectors.store import Store
from jobs.job import OptionValue


@dataclass(frozen=True)
class Place:
    """An empty folder on some store. `put` writes a file there behind the back of the code under test."""

    kind: str
    url: str
    put: Callable[[str, bytes], None]
    options: dict[str, OptionValue] = field(default_factory=dict)

    def store(self, below: str = "") -> Store:
        return Store(f"{self.url}/{below}" if below else self.url, self.options)


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    kind: str = request.param
    if kind == "local":
        folder: Path = request.getfixturevalue("tmp_path") / "store"
        folder.mkdir()
        yield Place(kind, str(folder), lambda name, content: put_local(folder / name, content))
    elif kind == "memory":
        url = f"memory://{uuid.uuid4().hex}"
        files = fsspec.filesystem("memory")
        yield Place(kind, url, lambda name, content: files.pipe_file(f"{url}/{name}", content))
        if files.exists(url):
            files.rm(url, recursive=True)
    else:
        options: dict[str, OptionValue] = request.getfixturevalue("s3_options")
        bucket = f"b-{uuid.uuid4().hex}"
        yield Place(kind, f"s3://{bucket}/store", lambda name, content: s3_put(bucket, name, content), options)


def put_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def s3_put(bucket: str, name: str, content: bytes) -> None:
    S3.put(f"{bucket}/store/{name}", content)


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, OptionValue]]:
    """An S3 server of our own, one for the session: the client takes a second to make."""
    pytest.importorskip("s3fs", reason="the package for S3 is not installed: savedmodel-runner[s3]")
    server = ThreadingHTTPServer(("127.0.0.1", 0), S3)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TEST_S3_KEY", "test")
            patch.setenv("TEST_S3_SECRET", "test")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            yield {
                "endpoint_url": f"http://127.0.0.1:{server.server_port}",
                "key": "env:TEST_S3_KEY",
                "secret": "env:TEST_S3_SECRET",
            }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class S3(BaseHTTPRequestHandler):
    """What our promises need of S3: objects that appear whole, `If-None-Match`, ranges, and listings by prefix."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    lock = threading.Lock()

    @classmethod
    def put(cls, name: str, content: bytes, *, only_new: bool = False) -> bool:
        with cls.lock:
            if only_new and name in cls.objects:
                return False
            cls.objects[name] = content
            return True

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            content = unchunked(content)
        if self.put(self.name, content, only_new=self.headers.get("If-None-Match") == "*"):
            self.answer(200, ETag=etag(content))
        else:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code><Condition>If-None-Match</Condition></Error>")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self.list(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
            return
        content = self.objects.get(self.name)
        if content is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")
        elif match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            found = content[int(match[1]) : int(match[2]) + 1]
            where = f"bytes {match[1]}-{int(match[1]) + len(found) - 1}/{len(content)}"
            self.answer(206, found, ETag=etag(content), **{"Content-Range": where})
        else:
            self.answer(200, content, ETag=etag(content))

    def do_DELETE(self) -> None:
        self.objects.pop(self.name, None)
        self.answer(204)

    def list(self, prefix: str, delimiter: str) -> None:
        bucket = self.name.rstrip("/")
        folders: set[str] = set()
        found = []
        for name, content in sorted(self.objects.items()):
            key = name.removeprefix(f"{bucket}/")
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                found.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>{ETAG % etag(content)}</Contents>"
                )
        common = [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)]
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(found + common)}</ListBucketResult>"
        self.answer(200, body.encode())

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", **headers}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


ETAG = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>%s</ETag>"


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def unchunked(body: bytes) -> bytes:
    """The content of an upload that is sent as sized chunks with a checksum after them."""
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        content, body = content + body[:length], body[length + 2 :]
    return content
