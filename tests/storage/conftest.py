"""Stores to test against: every test that asks for `place` runs on each of them."""

from __future__ import annotations

import hashlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import fsspec
import pytest

from connectors.store import retry
from connectors.store.store import Store
from jobs.section.base import OptionValue


@dataclass(frozen=True)
class Place:
    """An empty folder on some store. `put` writes a file there behind the back of the code under test."""

    kind: str
    url: str
    put: Callable[[str, bytes], None]
    options: dict[str, OptionValue] = field(default_factory=dict)

    def store(self, below: str = "") -> Store:
        return Store(f"{self.url}/{below}" if below else self.url, self.options)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each pause between tries: none is waited for."""
    waited: list[float] = []
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=waited.append, monotonic=lambda: sum(waited)))
    return waited


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
            patch.setenv("AWS_MAX_ATTEMPTS", "1")
            yield {
                "endpoint_url": f"http://127.0.0.1:{server.server_port}",
                "key": "env:TEST_S3_KEY",
                "secret": "env:TEST_S3_SECRET",
            }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Fault:
    """The next `times` requests with this method and text in their path fail.

    status:  what is answered, and nothing is done; 0: it is done, and the connection ends without an answer.
    """

    method: str
    text: str
    times: int
    status: int = 0

    def hits(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and self.text in path


CODES = {400: b"InvalidArgument", 403: b"AccessDenied", 409: b"ConditionalRequestConflict"}
CODES |= {412: b"PreconditionFailed", 501: b"NotImplemented", 503: b"SlowDown"}
ERROR = b"<Error><Code>%s</Code><Message>no</Message></Error>"
INITIATED = b"<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b"<CompleteMultipartUploadResult><ETag>&quot;e&quot;</ETag></CompleteMultipartUploadResult>"


@pytest.fixture
def fault_kind() -> type[Fault]:
    return Fault


@pytest.fixture
def s3_faults() -> Iterator[list[Fault]]:
    """Of the S3 server of our own; none afterwards."""
    yield S3.faults
    S3.faults.clear()


@pytest.fixture
def s3_server(monkeypatch: pytest.MonkeyPatch) -> type[S3]:
    """`asked`: empty when a test begins, and nobody is answered at the same time as another yet."""
    monkeypatch.setattr(S3, "asked", [])
    monkeypatch.setattr(S3, "ranges", [])
    monkeypatch.setattr(S3, "most_at_once", 0)
    return S3


class S3(BaseHTTPRequestHandler):
    """What our promises need of S3: objects that appear whole, `If-None-Match`, ranges, and listings by prefix."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two pieces would wait 40 ms for the first to be acknowledged
    objects: ClassVar[dict[str, bytes]] = {}
    uploads: ClassVar[dict[str, dict[int, bytes]]] = {}
    faults: ClassVar[list[Fault]] = []
    asked: ClassVar[list[str]] = []  # method and path of each request
    ranges: ClassVar[list[str]] = []  # of bytes, as each request says; a client asks again where a connection ends
    conditions = True  # whether it knows `If-Match`
    pause_s = 0.0  # before a range is answered
    at_once = most_at_once = 0  # ranges that wait for their answer, and the most that ever did
    completion = 412  # for an upload in parts whose name is taken; 501: whatever the name is; 200: it is replaced
    lock = threading.Lock()

    @classmethod
    def put(cls, name: str, content: bytes, *, only_new: bool = False) -> bool:
        with cls.lock:
            if only_new and name in cls.objects:
                return False
            cls.objects[name] = content
            return True

    def handle_one_request(self) -> None:
        """Whether the request has its effect, and whether its answer arrives, is up to `faults`."""
        self.fault: Fault | None = None
        with suppress(ConnectionError):  # a client may go before it has read an answer
            super().handle_one_request()

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        if parsed:
            with self.lock:
                self.asked.append(f"{self.command} {self.path}")
                self.ranges.extend(filter(None, [self.headers.get("Range")]))
                self.fault = next((fault for fault in self.faults if fault.hits(self.command, self.path)), None)
                if self.fault is not None:
                    self.fault.times -= 1
        return parsed

    def body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            content = unchunked(content)
        return content

    def do_PUT(self) -> None:
        content = self.body()
        if self.refused():
            return
        query = self.query
        if source := self.headers.get("x-amz-copy-source"):
            self.objects[self.name] = copied = self.objects[unquote(source).lstrip("/")]
            self.answer(200, b"<CopyObjectResult><ETag>%s</ETag></CopyObjectResult>" % etag(copied).encode())
        elif "uploadId" in query:
            self.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = content
            self.answer(200, ETag=etag(content))
        else:
            self.finish_object(content)

    def do_POST(self) -> None:
        body = self.body()
        if self.refused():
            return
        query = self.query
        if "delete" in query:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.objects.pop(f"{self.name}/{unescape(key)}", None)
            self.answer(200, b"<DeleteResult></DeleteResult>")
        elif "uploads" in query:
            upload = uuid.uuid4().hex
            self.uploads[upload] = {}
            self.answer(200, INITIATED % upload.encode())
        else:
            parts = self.uploads[query["uploadId"][0]]
            if self.completion == 501 and "If-None-Match" in self.headers:
                self.answer(501, ERROR % CODES[501])
            else:
                self.finish_object(b"".join(parts[number] for number in sorted(parts)), self.completion == 200)

    def finish_object(self, content: bytes, replace: bool = False) -> None:
        if self.put(self.name, content, only_new=self.headers.get("If-None-Match") == "*" and not replace):
            self.answer(200, COMPLETED if self.command == "POST" else b"", ETag=etag(content))
        else:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code><Condition>If-None-Match</Condition></Error>")

    def refused(self) -> bool:
        """Whether a fault answers in place of the effect."""
        if self.fault is None or self.fault.status == 0:
            return False
        status, self.fault = self.fault.status, None
        self.answer(status, ERROR % CODES[status])
        return True

    def do_HEAD(self) -> None:
        self.get()

    def do_GET(self) -> None:
        with self.counted():
            self.get()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One more range under way."""
        if "Range" not in self.headers or not self.pause_s:
            yield
            return
        with self.lock:
            S3.at_once += 1
            S3.most_at_once = max(S3.most_at_once, S3.at_once)
        time.sleep(self.pause_s)
        with self.lock:
            S3.at_once -= 1  # before the answer: who has it may ask again
        yield

    def get(self) -> None:
        if self.refused():
            return
        query = self.query
        if "list-type" in query:
            self.list(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
            return
        content = self.objects.get(self.name)
        if content is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")
        elif self.conditions and self.headers.get("If-Match", etag(content)) != etag(content):
            self.answer(412, b"<Error><Code>PreconditionFailed</Code><Condition>If-Match</Condition></Error>")
        elif match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            found = content[int(match[1]) : int(match[2]) + 1]
            where = f"bytes {match[1]}-{int(match[1]) + len(found) - 1}/{len(content)}"
            self.answer(206, found, ETag=etag(content), **{"Content-Range": where})
        else:
            self.answer(200, content, ETag=etag(content))

    def do_DELETE(self) -> None:
        if "uploadId" in self.query:
            self.uploads.pop(self.query["uploadId"][0], None)
        else:
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
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        if self.fault is not None:  # the effect is there, the answer is lost
            self.close_connection = True
            return
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


@lru_cache(16)
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
