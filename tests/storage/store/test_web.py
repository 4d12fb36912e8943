"""Files of a web server on this machine: read by byte ranges, or refused at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from connectors.store.store import Store
from jobs.errors import InputError

CONTENT = bytes(range(250)) * 4000


class Ranges(BaseHTTPRequestHandler):
    """Answers a range of `CONTENT` as RFC 9110 says."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self) -> None:
        start, stop = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Length", str(stop + 1 - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : stop + 1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/a.parquet"
        finally:
            server.shutdown()
            thread.join()


def test_a_range_of_a_file_is_asked_for_and_nothing_else() -> None:
    with served(Ranges) as url, Store(url).open(url) as file:
        file.seek(1000)
        assert file.read(10) == CONTENT[1000:1010]
        assert file.seek(-3, 2) == len(CONTENT) - 3
        assert file.read() == CONTENT[-3:]


def test_a_server_that_sends_whole_files_is_refused_at_the_first_range(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(CONTENT)
    asked = []

    class Whole(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.command)

    with served(Whole) as url, Store(url).open(url) as file:
        with pytest.raises(InputError, match=r"range of bytes \(status 200\); copy the file") as error:
            file.seek(-8, 2) and file.read(8)
        assert error.value.facts["code"] == "NO_RANGES"
        assert asked.count("GET") == 1, "what will not pass is not tried again"
        file.seek(0)
        assert file.read() == CONTENT, "the whole file is no range"
