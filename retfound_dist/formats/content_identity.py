"""Decides by content whether two shard sets or two weights files are the same, never by path, size or URL.

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
from retfound_dist.formats.shard_set import Manifest, Shard, lasting_name
from retfound_dist.io import storage
from retfound_dist.records import json_reader

SHARD_SET = "shard_set"
"""Section of a run's `config.json`, and of the config in its COMMIT.json: the set it trains on."""
INIT_WEIGHTS = "init_weights"
"""Section beside it: the weights the run began from, {"sha256": ...}; only with `model.init`."""
NON_SETTINGS = (SHARD_SET, INIT_WEIGHTS)
"""Sections of config.json that are not settings."""


def set_fingerprint(shards: Sequence[Shard]) -> str:
    """sha256 over name, part, number of samples and sha256 of each shard, in order."""
    # Without the generation in a name: packing the same images over an old set gives `oct.2-000000.tar`, and
    # a run must be able to go on with it. Without `fields_sha256`: labels and patients lie in the shards,
    # whose sha256 covers them, and sets packed by older versions have no such field.
    rows = [[lasting_name(shard.name), shard.split, shard.samples, shard.sha256] for shard in shards]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def describe_set(manifest: Manifest) -> dict[str, Any]:
    """The facts by which a run recognizes its shard set at any URL; they are stored in its config.json."""
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
    # The whole name first: `#` is a legal letter of a file's name.
    file = url if storage.exists(url) else url.rpartition("#")[0]
    if not file or not storage.exists(file) or storage.is_folder(file):
        return ""
    digest = hashlib.sha256()
    with storage.open_read(file) as stream, storage.storage_errors(file, "read"):
        while chunk := stream.read(storage.CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_prefix_of(facts: Mapping[str, Any], manifest: Manifest) -> bool:
    """Whether the set with these `facts` (see `describe_set`) is the beginning of this one, or all of it."""
    return set_fingerprint(manifest.shards[: facts["shards"]]) == str(facts["fingerprint"])


def describe_change(facts: Mapping[str, Any], manifest: Manifest) -> str:
    """How the set differs from the one with these `facts`, and what to do about it; empty: it is the same."""
    first, now = facts["shards"], len(manifest.shards)
    if not is_prefix_of(facts, manifest):
        return (
            f"{manifest.url} ({now:,} shards, {manifest.samples:,} images) is not the set that the run began "
            f"with ({first:,} shards, {facts['samples']:,} images): other images, or packed otherwise; bring "
            "that set back"
        )
    if now == first:
        return ""
    more = f"{now - first:,} shard{'s' if now - first > 1 else ''}"
    return (
        f"{manifest.url} has grown since the run began: {more} with {manifest.samples - facts['samples']:,} "
        f"images came after the {first:,} with {facts['samples']:,} images; "
        f"go on with those it began with: data.first_shards={first}"
    )


class IdentityCache:
    """A cache of facts about files in a small JSON file. An entry is valid while the store's mark is the
    same.

    An entry that cannot be read or written, or that was changed by others, counts as missing. That costs a
    download and is never an error.
    """

    def __init__(self, url: str = "") -> None:
        """`url`: the JSON file; empty: the cache lives in this process only."""
        self._url = url
        self._rows: dict[str, dict[str, Any]] = {}
        if url:
            with suppress(StorageError, RecordError):
                self._rows = (
                    json_reader.read(url, dict[str, dict[str, Any]], "") if storage.exists(url) else {}
                )

    def recall(self, url: str, mark: str) -> dict[str, Any] | None:
        """The facts about the file at a URL with this mark; None where the file has to be read."""
        row = self._rows.get(url, {})
        facts = row.get("facts")
        if not mark or not isinstance(facts, dict) or row != _remembered(mark, facts):
            return None
        return dict(facts)

    def remember(self, url: str, mark: str, facts: Mapping[str, Any]) -> None:
        """Store facts about a file. `mark`: its mark, which was the same before and after it was read."""
        row = _remembered(mark, facts)
        if not mark or self._rows.get(url) == row:
            return
        self._rows[url] = row
        if self._url:
            try:
                storage.write_json(self._url, self._rows)
            except StorageError:
                # A folder that is read-only stays so: do not try again for every file.
                self._url = ""


def _remembered(mark: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the cache, with a checksum.

    The file may be edited by hand or damaged. A wrong sha256 would then let another set or other weights pass
    as the same.
    """
    text = json.dumps([mark, facts], sort_keys=True)
    return {"mark": mark, "facts": dict(facts), "sum": hashlib.sha256(text.encode()).hexdigest()}
