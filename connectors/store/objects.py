"""Object stores: S3, GCS and Azure. An object is visible whole, and a second one of its name is refused on request.

Refuses to believe that refusal for all servers of a kind, which `probe.py` tries out. The invariant: a final name is
only ever written with the condition that it is free.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from fsspec.asyn import sync
from fsspec.config import conf

from connectors.secret import redact
from connectors.store.client_error import ReplacedError
from connectors.store.listing import FileStat, Parts, Pattern, placeholder
from connectors.store.remote import RemoteFiles, version
from connectors.together import MOST
from jobs.errors import OutputError


class ObjectFiles(RemoteFiles):
    conditional_put = True

    _part_size: ClassVar[str] = ""  # the option of the client for the size of an upload's parts, where it has one

    @classmethod
    def client_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"use_listings_cache": False, **given}  # some clients cache listings for good

    def tree(self, pattern: Pattern) -> Iterator[tuple[Parts, FileStat]]:
        """All objects below a prefix: a thousand names an answer, whatever folders they pretend to be in."""
        folder = pattern.folder.rstrip("/")
        key = self.key(folder)
        listing = self.client.find(key, detail=True)
        folders = _folders(listing)
        for path, info in sorted(listing.items()):
            empty = info["type"] == "directory" or (info["size"] == 0 and path in folders)
            if path.startswith(f"{key}/") and not empty and not placeholder(path, info["size"]):
                parts = tuple(path[len(key) + 1 :].split("/"))
                yield parts, FileStat("/".join((folder, *parts)), info["size"], version(info))

    def create(self, url: str, content: bytes) -> bool:
        return _unless_taken(lambda: self.client.pipe_file(self.key(url), content, mode="create"))

    def publish(self, spool: Path, url: str, staged: str, part_bytes: int | None = None) -> bool:
        in_parts = {self._part_size: part_bytes} if part_bytes and self._part_size else {}
        return _unless_taken(lambda: self.client.put_file(str(spool), self.key(url), mode="create", **in_parts))

    def promote(self, staged: str, url: str) -> bool:
        source, final = self.key(staged), self.key(url)
        if self.client.exists(final):  # a copy has no such condition: staged mode has one driver at a time
            return False
        self._once().cp_file(source, final)
        return True

    def _once(self) -> Any:
        """The client for what must not be sent again by itself, some time later, without a new look."""
        return self.client


class S3Files(ObjectFiles):
    holds_ranges = True
    piece_bytes = 5 * 2**30  # of S3, and the default of Ceph's gateway

    _part_size = "chunksize"
    _sender: tuple[Any, Any] | None = None  # the client, and one like it that sends each request once

    @classmethod
    def client_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """With as many connections as there may be requests: the client has ten, and lets the others wait."""
        config = {"max_pool_connections": MOST, **conf.get("s3", {}).get("config_kwargs", {})}
        return super().client_options({"config_kwargs": config, **given})

    def publish(self, spool: Path, url: str, staged: str, part_bytes: int | None = None) -> bool:
        if part_bytes != 0:
            return super().publish(spool, url, staged, part_bytes)
        if (size := spool.stat().st_size) > self.piece_bytes:
            raise OutputError(
                f"cannot publish '{redact(url)}': it has {size:,} bytes; this store refuses a second object of one "
                f"name only where it comes in one request, of at most {self.piece_bytes:,} bytes; run the job again "
                "into another output, with a smaller limits.shard_rows or limits.shard_bytes"
            )
        return _unless_taken(lambda: self._put(spool, *self.client.split_path(self.key(url))[:2]))

    def _put(self, spool: Path, bucket: str, key: str) -> None:
        """One conditional PUT, read from the disk while it is sent.

        Not by a client that tries again: it would go on where the file was read to, and make a shorter object.
        """
        with spool.open("rb") as body:
            asked = {"Body": body, "ContentLength": spool.stat().st_size, "IfNoneMatch": "*"}
            self._once().call_s3("put_object", Bucket=bucket, Key=key, **asked)

    def _once(self) -> Any:
        if self._sender is None or self._sender[0] is not self.client:
            given = self.client.storage_options
            config = {**(given.get("config_kwargs") or {}), "retries": {"total_max_attempts": 1}}
            once = type(self.client)(**{**given, "config_kwargs": config, "skip_instance_cache": True})
            once.retries = 1
            self._sender = self.client, once
        return self._sender[1]

    def pin(self, info: Mapping[str, Any]) -> str:
        return _strong(info.get("ETag"))

    def fetch(self, url: str, start: int, stop: int, pin: str = "") -> bytes:
        """As `cat_file`, which takes no condition. Look-alikes that ignore it are known by the etag of their answer."""
        if not pin:
            return super().fetch(url, start, stop)
        bucket, key, number = self.client.split_path(self.key(url))
        asked = {"Range": f"bytes={start}-{stop - 1}", "IfMatch": pin} | ({"VersionId": number} if number else {})
        answer = self.client.call_s3("get_object", Bucket=bucket, Key=key, **asked)
        try:
            _same(answer.get("ETag"), pin)
            return bytes(sync(self.client.loop, answer["Body"].read))
        finally:
            answer["Body"].close()


class GcsFiles(ObjectFiles):
    """Its ranges are not held: zonal buckets and older clients (such as 2026.3.0) ignore the generation."""

    when_slow = (
        "look at the address and the network; where gRPC does not get through, set"
        " GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false: the client waits a minute for it, again and again"
    )

    @classmethod
    def client_class(cls, known: str, given: Mapping[str, Any]) -> str:
        """The one that speaks JSON alone, where another address is named: emulators and proxies often do no more.

        The usual one asks by gRPC for the layout of a bucket before nearly each operation, waits up to 60 s, and does
        not remember that it got no answer (gcsfs 2026.10.1). Zonal buckets need it, and the variable says so.
        """
        addresses = [options.get("endpoint_url") for options in (given, conf.get("gs", {}), conf.get("gcs", {}))]
        addresses.append(os.environ.get("STORAGE_EMULATOR_HOST"))
        usual = not set(addresses) - {None, "", "default"} or "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT" in os.environ
        return known if usual else "gcsfs.core.GCSFileSystem"

    def pin(self, info: Mapping[str, Any]) -> str:
        return str(info.get("generation") or "")

    def fetch(self, url: str, start: int, stop: int, pin: str = "") -> bytes:
        asked = {"generation": pin} if pin else {}
        return bytes(self.client.cat_file(self.key(url), start=start, end=stop, **asked))


class AzureFiles(ObjectFiles):
    holds_ranges = True

    def pin(self, info: Mapping[str, Any]) -> str:
        return _strong(info.get("etag"))

    def fetch(self, url: str, start: int, stop: int, pin: str = "") -> bytes:
        """As `cat_file`, which takes no condition."""
        if not pin:
            return super().fetch(url, start, stop)
        return bytes(sync(self.client.loop, self._range, self.key(url), start, stop, pin))

    async def _range(self, key: str, start: int, stop: int, pin: str) -> bytes:
        from azure.core import MatchConditions  # of an optional package

        container, name, number = self.client.split_path(key)
        async with self.client.service_client.get_blob_client(container=container, blob=name) as blob:
            stream = await blob.download_blob(
                offset=start,
                length=stop - start,
                version_id=number,
                etag=pin,
                match_condition=MatchConditions.IfNotModified,
                max_concurrency=self.client.max_concurrency,
                **getattr(self.client, "_timeout_kwargs", {}),  # those of the client's options
            )
            _same(stream.properties.etag, pin)
            return bytes(await stream.readall())


def _same(etag: object, pin: str) -> None:
    """raises: ReplacedError where the answer is marked with another etag than it was to have."""
    if etag and _strong(etag) != pin:
        raise ReplacedError


def _strong(etag: object) -> str:
    """An etag as a condition takes it, in its quotes; "" for a weak one, which no condition ever matches."""
    text = str(etag or "")
    return "" if not text or text.startswith("W/") else f'"{text.strip(chr(34))}"'


def _unless_taken(write: Callable[[], object]) -> bool:
    try:
        write()
    except FileExistsError:
        return False
    return True


def _folders(paths: Iterable[str]) -> set[str]:
    """Every path that others lie below."""
    folders: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in folders:
            folders.add(path)
    return folders
