"""Compares shard sets and weights files by content, never by path, size or URL.

Weights are identified by the sha256 of their file. A shard set is identified by its fingerprint: a hash over
every shard's name, part, number of samples and sha256, in order. A set keeps its fingerprint under another
path, on another store and in a cache. One changed shard changes it.

Computing a file's sha256 needs a download. The result is cached together with the store's mark of the file
(`storage.version_mark`: ETag, size and time). While the mark is the same, no second download is needed. A
mark alone never identifies a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from retfound_dist.errors import RecordError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.shard_set import Manifest, Shard, stable_name
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.runtime.humanize import plural

SHARD_SET = "shard_set"
"""Section of a run's `config.json`, and of the config in its COMMIT.json: the set it trains on."""
INIT_WEIGHTS = "init_weights"
"""Section beside it: the weights the run began from, {"sha256": ...}; only with `model.init`."""
NON_SETTINGS = (SHARD_SET, INIT_WEIGHTS)
"""Sections of config.json that are not settings."""


def set_fingerprint(shards: Sequence[Shard]) -> str:
    """sha256 over name, part, number of samples and sha256 of each shard, in order."""
    # Without the generation in a name: packing the same images over an old set gives `oct.2-000000.tar`, and
    # a run must be able to continue with it. Without `fields_sha256`: the sha256 of the shards covers labels
    # and patients, and sets packed by older versions do not have this field.
    rows = [[stable_name(shard.name), shard.split, shard.samples, shard.sha256] for shard in shards]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def describe_set(manifest: Manifest) -> dict[str, Any]:
    """The facts by which a run recognizes its shard set at any URL. They are stored in its config.json."""
    return {
        "fingerprint": set_fingerprint(manifest.shards),
        "shards": len(manifest.shards),
        "samples": manifest.samples,
    }


def weights_sha256(url: str) -> str:
    """sha256 of the weights file at a path or URL; empty where there is none.

    A checkpoint's is taken from its commit, without a download. `#PART` at the end of a name is ignored: it
    selects something within the file.
    """
    if checkpoint_folder.is_checkpoint(url):
        commit = checkpoint_folder.read_commit(url)
        return commit.files[commit.weights].sha256
    # The whole name first, because a file name may contain `#`.
    file = url if storage.exists(url) else url.rpartition("#")[0]
    if not file or not storage.exists(file) or storage.is_folder(file):
        return ""
    digest = hashlib.sha256()
    with storage.open_read(file) as stream, storage.storage_errors(file, "read"):
        while chunk := stream.read(storage.CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_prefix_of(facts: Mapping[str, Any], manifest: Manifest) -> bool:
    """Whether the set with these `facts` (see `describe_set`) is this set, or the beginning of it."""
    return set_fingerprint(manifest.shards[: facts["shards"]]) == str(facts["fingerprint"])


def describe_change(facts: Mapping[str, Any], manifest: Manifest) -> str:
    """How the set differs from the one with these `facts`, and what to do about it; empty: it is the same."""
    first_count, count = facts["shards"], len(manifest.shards)
    if not is_prefix_of(facts, manifest):
        return (
            f"{manifest.url} ({count:,} shards, {manifest.samples:,} images) is not the set that the run "
            f"began with ({first_count:,} shards, {facts['samples']:,} images): it has other images or was "
            "packed with other settings; restore the first set"
        )
    if count == first_count:
        return ""
    return (
        f"{manifest.url} has grown since the run began, from {plural(first_count, 'shard')} with "
        f"{facts['samples']:,} images to {count:,} shards with {manifest.samples:,} images; "
        f"continue with the first ones: data.first_shards={first_count}"
    )


class IdentityCache:
    """A cache of facts about files in a small JSON file. An entry is valid while the store's mark is the
    same.

    An entry that cannot be read or written, or that somebody changed, counts as missing. Then the file is
    downloaded again. It is never an error.
    """

    def __init__(self, url: str = "") -> None:
        """`url`: the JSON file; empty: the cache exists only in this process."""
        self._url = url
        self._rows: dict[str, dict[str, Any]] = {}
        if url:
            with suppress(StorageError, RecordError):
                self._rows = (
                    json_reader.read(url, dict[str, dict[str, Any]], "") if storage.exists(url) else {}
                )

    def get(self, url: str, mark: str) -> dict[str, Any] | None:
        """The facts about the file at a URL with this mark; None where the file has to be read."""
        row = self._rows.get(url, {})
        facts = row.get("facts")
        if not mark or not isinstance(facts, dict) or row != _cache_entry(mark, facts):
            return None
        return dict(facts)

    def put(self, url: str, mark: str, facts: Mapping[str, Any]) -> None:
        """Store facts about a file. `mark`: its mark, which was the same before and after it was read."""
        row = _cache_entry(mark, facts)
        if not mark or self._rows.get(url) == row:
            return
        self._rows[url] = row
        if self._url:
            try:
                storage.write_json(self._url, self._rows)
            except StorageError:
                # A read-only folder stays read-only: do not try again for every file.
                self._url = ""


def _cache_entry(mark: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the cache, with a checksum.

    The file may be damaged or edited by hand. With a wrong sha256, other data would be taken for the same.
    """
    text = json.dumps([mark, facts], sort_keys=True)
    return {"mark": mark, "facts": dict(facts), "sum": hashlib.sha256(text.encode()).hexdigest()}
