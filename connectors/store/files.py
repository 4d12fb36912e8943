"""What one kind of store can do: the verbs behind `Store`, by full URLs, with the exceptions of the client as they are.

Owns the promises that each kind keeps; refuses names below a root, retries and our errors, which are `Store`'s. The
invariant: `create`, `publish` and `promote` show whole content or nothing, and replace nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, TypeVar

import pyarrow.fs as pa_fs

from connectors.store.listing import Child, FileStat, Parts, Pattern

T = TypeVar("T")


Fetch = Callable[[FileStat, int, int], bytes]  # of the file as it was when opened


class OpenFile(BinaryIO):
    """A file that is read. seen: what it was when it was opened.

    Its methods raise DataError FILE_CHANGED where its bytes are no longer those of `seen`, and that is noticed.
    """

    seen: FileStat

    @abstractmethod
    def settle(self) -> None:
        """Look, after the last byte was read, whether all were of one content, unless the store has seen to that.

        raises: DataError FILE_CHANGED.
        """


class Files(Protocol):
    """The files of one kind of store.

    local:            readers may map its files into memory.
    in_process:       each process sees content of its own.
    read_only:        nothing is written.
    listed:           a folder tells what is in it; where it does not, each file has to be named.
    looks:            a name that is taken is found by a look before it is written, and not refused by the store.
    conditional_put:  it shows an object whole and refuses a second one on request: a part needs no staging.
    piece_bytes:      the largest file that one such request uploads, where that can be asked for; 0: it cannot.
    when_slow:        what to look at where it takes long to answer.
    """

    local: ClassVar[bool] = False
    in_process: ClassVar[bool] = False
    read_only: ClassVar[bool] = False
    listed: ClassVar[bool] = True
    looks: ClassVar[bool] = False
    conditional_put: ClassVar[bool] = False
    piece_bytes: ClassVar[int] = 0
    when_slow: ClassVar[str] = "look at the address, the network and its proxies"

    def using(self, call: Callable[[], T]) -> T:
        """What `call` returns. Where credentials expired or the connection broke, once more by a new client."""
        ...

    def arrow(self) -> pa_fs.FileSystem:
        """The store as pyarrow sees it; paths there are keys."""
        ...

    def key(self, url: str) -> str:
        """Equal for two names of one file."""
        ...

    # reading

    def is_folder(self, url: str) -> bool: ...

    def stat(self, url: str) -> FileStat | None:
        """None where there is no such file."""
        ...

    def modified(self, url: str) -> float | None:
        """Seconds on the clock of the store, None where it keeps no times. raises: FileNotFoundError."""
        ...

    def children(self, url: str) -> Sequence[Child]:
        """The entries of a folder, in any order; none where there is no such folder."""
        ...

    def tree(self, pattern: Pattern) -> Iterator[tuple[Parts, FileStat]]:
        """The files below the folder of `pattern`, sorted by name; hidden folders may come like files."""
        ...

    def open(self, url: str, fetch: Fetch, look: Callable[[], FileStat | None]) -> OpenFile:
        """raises: FileNotFoundError.

        fetch, look: as the verbs below and above, with the patience of `Store`; what is local needs none.
        """
        ...

    def fetch(self, url: str, start: int, stop: int, pin: str = "") -> bytes:
        """pin: of the `FileStat`, asked for where the store knows such a condition; "": whatever has the name now."""
        ...

    def read(self, url: str) -> bytes | None:
        """None where there is no such file."""
        ...

    # writing

    def create(self, url: str, content: bytes) -> bool:
        """False where the name is taken."""
        ...

    def replace(self, url: str, content: bytes) -> None: ...

    def publish(self, spool: Path, url: str, staged: str, part_bytes: int | None = None) -> bool:
        """Give `spool` the name `url`, by way of `staged` where the store needs it. False where the name is taken.

        part_bytes: see `Store.publish`.
        """
        ...

    def upload(self, spool: Path, url: str) -> None: ...

    def promote(self, staged: str, url: str) -> bool:
        """Give an uploaded file the name `url`. False where the name is taken."""
        ...

    def spool(self, url: str) -> Path | None:
        """The folder `url`, made for the spools of one attempt; None where they lie on the disk of this machine."""
        ...

    def remove(self, url: str) -> None:
        """Delete one file. raises: FileNotFoundError."""
        ...

    def sweep(self, url: str) -> None:
        """Delete a folder with all that is in it."""
        ...
