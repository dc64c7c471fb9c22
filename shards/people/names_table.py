"""The table from digests back to names: on this machine, readable by its owner alone.

    source,path,key,patient,patient_digest,volume,volume_digest,label,label_digest

It is never written where the set is. Its place: `out.names_table`, else
$XDG_DATA_HOME/retfound/names/NAME-<digest of out.url>.csv (~/.local/share/...).
"""

from __future__ import annotations

import csv
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping

from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import ConfigError, StorageError
from retfound_dist.io import storage
from shards.images.scan import Scan
from shards.people.pseudonyms import PseudonymizedRead, original_scan, path_of

HEADER = (
    *("source", "path", "key", "patient", "patient_digest"),
    *("volume", "volume_digest", "label", "label_digest"),
)
# surrogateescape: names of files may hold bytes that are no UTF-8, and the table must give them back.
_TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


def table_path(config: PackConfig, env: Mapping[str, str] | None = None) -> str:
    """Where the table of a set stands; ConfigError for a place that others may read with the set."""
    wanted = config.out.names_table
    if not wanted:
        env = os.environ if env is None else env
        home = env.get("HOME") or os.path.expanduser("~")
        base = env.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
        return os.path.join(base, "retfound", "names", f"{config.out.name}-{_digest(config.out.url)}.csv")
    if not storage.is_local(wanted):
        raise ConfigError(f"out.names_table={wanted} is not on this machine: names stay here, move it")
    path = os.path.abspath(storage.local_path(wanted))
    if os.path.isdir(path):
        raise ConfigError(
            f"out.names_table={wanted} is a folder: give the file's path, such as {path}/names.csv"
        )
    if storage.is_local(config.out.url):
        # Real paths: a link that leads into the set would go where the set goes.
        folder = os.path.realpath(storage.local_path(config.out.url))
        if os.path.commonpath([folder, os.path.realpath(path)]) == folder:
            raise ConfigError(
                f"out.names_table={wanted} lies in the shard set, which goes to others: move it"
            )
    return path


def write_table(config: PackConfig, scans: Iterable[Scan]) -> str:
    """Write the names of all pseudonymized scans, mode 600; gives the path, empty where there are none.

    Rows of other sources stay: a set that was appended to has one table.
    """
    hidden = (scan for scan in scans if isinstance(scan.read, PseudonymizedRead))
    first = next(hidden, None)
    if first is None:
        return ""
    path = table_path(config)
    # Beside its target: a rename replaces a file at once only within one file system.
    draft = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _write(draft, path, (first, *hidden))
    except OSError as error:
        raise StorageError(
            f"cannot write the table of names {path} ({error.strerror}): give another out.names_table"
        ) from error
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
    return path


def _write(draft: str, path: str, scans: Iterable[Scan]) -> None:
    scans = list(scans)
    fresh = {scan.source for scan in scans}
    # Mode 600 from the first byte: a chmod after opening would leave a moment in which others can read.
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", **_TEXT) as file:  # type: ignore[call-overload]
        rows = csv.writer(file)
        rows.writerow(HEADER)
        rows.writerows(row for row in _old_rows(path) if row[0] not in fresh)
        rows.writerows(map(_row, scans))
        file.flush()
        # On disk before the first shard: after a crash its digests could not be led back to names.
        os.fsync(handle)
    os.replace(draft, path)


def _old_rows(path: str) -> Iterator[list[str]]:
    if not os.path.exists(path):
        return
    with open(path, **_TEXT) as file:  # type: ignore[call-overload]
        rows = csv.reader(file)
        if tuple(next(rows, ())) != HEADER:
            raise ConfigError(f"{path} is no table of names: choose another out.names_table, or remove it")
        yield from (row for row in rows if len(row) == len(HEADER))


def _row(scan: Scan) -> tuple[str, ...]:
    original = original_scan(scan)
    pairs = ((original.patient, scan.patient), (original.volume, scan.volume), (original.label, scan.label))
    flat = [text or "" for pair in pairs for text in pair]
    return (scan.source, path_of(scan), scan.key, *flat)


def _digest(url: str) -> str:
    place = os.path.realpath(storage.local_path(url)) if storage.is_local(url) else url.rstrip("/")
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:8]
