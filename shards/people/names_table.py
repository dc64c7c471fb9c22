"""Writes the table from digests back to names, on this machine, readable only by its owner.

    source,path,key,patient,patient_digest,volume,volume_digest,label,label_digest

It is never written into the set. Its path is `out.names_table`, else
$XDG_DATA_HOME/retfound/names/NAME-<digest of out.url>.csv (~/.local/share/...).
"""

from __future__ import annotations

import csv
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence

from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import ConfigError, StorageError
from retfound_dist.io import storage
from shards.images.scan import Scan
from shards.people.pseudonyms import PseudonymizedRead, original_scan, path_of

HEADER = (
    *("source", "path", "key", "patient", "patient_digest"),
    *("volume", "volume_digest", "label", "label_digest"),
)
# surrogateescape keeps bytes in names of files that are not UTF-8.
_TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


def table_path(config: PackConfig, env: Mapping[str, str] | None = None) -> str:
    """Returns the path of a set's table; ConfigError for a path inside the set or on another machine."""
    wanted = config.out.names_table
    if not wanted:
        env = os.environ if env is None else env
        home = env.get("HOME") or os.path.expanduser("~")
        base = env.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
        return os.path.join(base, "retfound", "names", f"{config.out.name}-{_digest(config.out.url)}.csv")
    if not storage.is_local(wanted):
        raise ConfigError(f"out.names_table={wanted} is not on this machine: give a local path")
    path = os.path.abspath(storage.local_path(wanted))
    if os.path.isdir(path):
        raise ConfigError(
            f"out.names_table={wanted} is a folder: give the file's path, such as {path}/names.csv"
        )
    if storage.is_local(config.out.url):
        # Real paths, because a link may lead into the set.
        folder = os.path.realpath(storage.local_path(config.out.url))
        if os.path.commonpath([folder, os.path.realpath(path)]) == folder:
            raise ConfigError(
                f"out.names_table={wanted} is inside the shard set, which others may get: give a path outside"
            )
    return path


def write_table(config: PackConfig, scans: Iterable[Scan]) -> str:
    """Write the names of all pseudonymized scans with mode 600. Returns the path, empty if there are none.

    Rows of other sources stay, because a set with appended sources has one table.
    """
    pseudonymized = [scan for scan in scans if isinstance(scan.read, PseudonymizedRead)]
    if not pseudonymized:
        return ""
    path = table_path(config)
    # Beside its target, because a rename replaces a file in one step only within one file system.
    draft = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _write_table(draft, path, pseudonymized)
    except OSError as error:
        raise StorageError(
            f"cannot write the table of names {path} ({error.strerror}): give another out.names_table"
        ) from error
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
    return path


def _write_table(draft: str, path: str, scans: Sequence[Scan]) -> None:
    """Writes the table with new rows for the sources of these scans, first to `draft`."""
    sources = {scan.source for scan in scans}
    # Mode 600 from the start: with a chmod after opening others could read the file for a moment.
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", **_TEXT) as file:  # type: ignore[call-overload]
        rows = csv.writer(file)
        rows.writerow(HEADER)
        rows.writerows(row for row in _old_rows(path) if row[0] not in sources)
        rows.writerows(map(_table_row, scans))
        file.flush()
        # On disk before the first shard, so that after a crash every digest in the set is in the table.
        os.fsync(handle)
    os.replace(draft, path)


def _old_rows(path: str) -> Iterator[list[str]]:
    if not os.path.exists(path):
        return
    with open(path, **_TEXT) as file:  # type: ignore[call-overload]
        rows = csv.reader(file)
        if tuple(next(rows, ())) != HEADER:
            raise ConfigError(f"{path} is not a table of names: choose another out.names_table, or remove it")
        yield from (row for row in rows if len(row) == len(HEADER))


def _table_row(scan: Scan) -> tuple[str, ...]:
    original = original_scan(scan)
    pairs = ((original.patient, scan.patient), (original.volume, scan.volume), (original.label, scan.label))
    flat = [text or "" for pair in pairs for text in pair]
    return (scan.source, path_of(scan), scan.key, *flat)


def _digest(url: str) -> str:
    place = os.path.realpath(storage.local_path(url)) if storage.is_local(url) else url.rstrip("/")
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:8]
