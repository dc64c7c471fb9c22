"""Reads, writes and lists objects on S3. Keys are taken as they are written (`s3_keys`)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import IO, Any, cast

from retfound_dist.io.stores import s3_keys, store_errors
from retfound_dist.io.stores.fsspec_store import FsspecStore, open_filesystem

RANGES_AT_ONCE = 32
"""Requests for ranges of files that run side by side."""
SILENCE_S = 20
"""Seconds after which a request is given up if the store neither answers nor takes any data."""
PART_BYTES = 16 << 20
"""Size of a part. Files of twice this size and more are written in parts."""


def open_s3(attempts: int, on_answer: Callable[[str], None], is_time_up: Callable[[], bool]) -> Any:
    """An s3fs filesystem whose requests are sent up to `attempts` times.

    `on_answer` and `is_time_up`: see `store_errors.reporting_session`.
    """
    # Listings are not remembered, because other processes write to the same folders. Time-outs are below
    # botocore's 60 s, so that a request that hangs does not use up the patience of a run. The pool is as
    # large as a batch of ranges: with botocore's 10 connections the others would queue.
    config = {
        "connect_timeout": 10,
        "read_timeout": SILENCE_S,
        "connector_args": {"socket_factory": _socket_that_gives_up},
        "max_pool_connections": RANGES_AT_ONCE,
        "retries": {"max_attempts": attempts, "mode": "standard"},
    }
    fs = open_filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs=config,
        session=store_errors.reporting_session(on_answer, is_time_up),
    )
    # s3fs repeats what botocore has already repeated (5 times, s3fs 2026.9); both counts multiply.
    fs.retries = min(fs.retries, attempts)
    s3_keys.use_literal_keys(fs)
    return fs


def _socket_that_gives_up(address: tuple[Any, ...]) -> socket.socket:
    """A socket that ends a write of which the store takes nothing for `SILENCE_S`.

    `read_timeout` begins only when all is sent. A store that accepts a connection and stops reading fills the
    system's buffers, and aiohttp 3.14 then waits for ever.
    """
    family, kind, protocol = address[:3]
    connection = socket.socket(family, kind, protocol)
    # Linux: counts while data is not acknowledged, and while the other end has no room for it (man 7 tcp).
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
    return connection


class ReplacedError(OSError):
    """An object that another process has replaced while it was read."""


class S3Store(FsspecStore):
    """S3 behind s3fs. Paths are `s3://BUCKET/KEY`."""

    def exists(self, path: str) -> bool:
        """Whether there is an object of this key, or one whose key begins with `key/`."""
        where = self._location(path)
        return s3_keys.size_of(*where) is not None or s3_keys.is_folder(*where)

    def is_folder(self, path: str) -> bool:
        """Whether a key begins with `key/`."""
        return s3_keys.is_folder(*self._location(path))

    def is_root(self, path: str) -> bool:
        """Whether the path is a whole bucket."""
        return self._location(path)[2] == ""

    def size(self, path: str) -> int:
        """An object's size in bytes."""
        where = self._location(path)
        byte_count = s3_keys.size_of(*where)
        if byte_count is None:
            raise IsADirectoryError(path) if s3_keys.is_folder(*where) else FileNotFoundError(path)
        return byte_count

    def open_file(self, path: str) -> IO[bytes]:
        """Open an object for reading; reads raise ReplacedError where it is replaced meanwhile."""
        file: Any = super().open_file(path)
        fetch = file.cache.fetcher

        def fetch_same(begin: int, end: int) -> bytes:
            try:
                return bytes(fetch(begin, end))
            except (OSError, TypeError) as error:
                # s3fs's `FileExpired` has this errno. For it s3fs 2026.9 looks into the text of S3's 412,
                # which is None from Ceph.
                if isinstance(error, OSError) and error.errno != errno.EBUSY:
                    raise
                raise ReplacedError("it was replaced while it was read") from error

        file.cache.fetcher = fetch_same
        return cast(IO[bytes], file)

    def read(self, path: str) -> bytes:
        """The whole content of an object: the old or the new one where it is replaced meanwhile."""
        try:
            # In one request. With several, not every server notices that the object is replaced between them.
            return bytes(self.fs.cat_file(path, max_concurrency=1))
        except FileNotFoundError:
            if self.is_folder(path):
                raise IsADirectoryError(path) from None
            raise

    def put_file(self, source: str, path: str) -> None:
        """Upload a local file, a large one in parts."""
        # The size of a part is fixed: `verified_files` computes S3's ETag from it.
        self.fs.put_file(source, path, chunksize=PART_BYTES)

    def list_names(self, path: str) -> list[str]:
        """Names of the objects and folders directly in a folder."""
        folders, files = s3_keys.names_in(*self._location(path))
        return list(folders | files)

    def list_folders(self, path: str) -> list[str]:
        """Names of the folders directly in a folder."""
        return list(s3_keys.names_in(*self._location(path))[0])

    def delete(self, path: str) -> None:
        """Delete the object, and all whose keys begin with `key/`."""
        fs, bucket, _ = where = self._location(path)
        s3_keys.delete_keys(fs, bucket, s3_keys.keys_of(*where))

    def version_mark(self, path: str) -> str:
        """ETag, size and time of an object."""
        return s3_keys.version_mark(*self._location(path))

    def checksum(self, path: str) -> str:
        """The ETag of an object, without its quotes."""
        return self.version_mark(path).partition(" ")[0].strip('"')

    def abort_uploads(self, path: str) -> int:
        """Abort the multipart uploads below a folder. Returns how many."""
        _, bucket, folder = self._location(path)
        prefix = f"{folder}/" if folder else ""
        # s3fs's `clear_multipart_uploads` takes a whole bucket, and so what others write in it.
        uploads = self.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get("Uploads", [])
        for upload in uploads:
            names = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            self.fs.call_s3("abort_multipart_upload", Bucket=bucket, **names)
        return len(uploads)

    def _location(self, path: str) -> tuple[Any, str, str]:
        """The filesystem, bucket and key, as the functions of `s3_keys` take them."""
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return self.fs, bucket, key
