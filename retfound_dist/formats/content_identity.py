"""Whether two things are the same: their content says, never a path, a size or a URL's text.

Weights are known by the sha256 of their file, a shard set by its fingerprint: a hash over every shard's
name, part, number of samples and sha256, in order. So a set is the same under another path, on another
store and in another cache, and another one as soon as one shard differs.

A file's sha256 takes a download. It is remembered with the store's mark of the file (`storage.version_mark`:
ETag, size and time); the same mark needs no second download. A mark is never an identity by itself.
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
"""Section of a run's `config.json`, and of the config in its COMMIT.json, that says what it trains on."""
INIT_WEIGHTS = "init_weights"
"""Section beside it that says which weights the run began from, {"sha256": ...}; only with `model.init`."""
KEPT = (SHARD_SET, INIT_WEIGHTS)
"""The sections that are no settings."""


def set_fingerprint(shards: Sequence[Shard]) -> str:
    """sha256 over name, part, number of samples and sha256 of each shard, in order.

    The name is that of a first packing: a set that replaced one of the same content is the same. Labels and
    patients lie in the shards, so what the manifest holds of them beside (`fields_sha256`) does not count.
    """
    rows = [[lasting_name(shard.name), shard.split, shard.samples, shard.sha256] for shard in shards]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def describe_set(manifest: Manifest) -> dict[str, Any]:
    """What a run keeps of its shard set, to know it again anywhere."""
    return {
        "fingerprint": set_fingerprint(manifest.shards),
        "shards": len(manifest.shards),
        "samples": manifest.samples,
    }


def weights_sha256(url: str) -> str:
    """sha256 of the weights' file at a path or URL, of a checkpoint's as its commit says; empty: none there.

    A `#PART` of the name is left out: it chooses within the file.
    """
    if checkpoint_folder.is_checkpoint(url):
        held = checkpoint_folder.read_commit(url)
        return held.files[held.weights].sha256
    file = url if storage.exists(url) else url.rpartition("#")[0]
    if not file or not storage.exists(file) or storage.is_folder(file):
        return ""
    digest = hashlib.sha256()
    with storage.open_read(file) as stream, storage.explained(file, "read"):
        while chunk := stream.read(storage.CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_beginning(held: Mapping[str, Any], manifest: Manifest) -> bool:
    """Whether the set that `describe_set` told of is the first shards of this one, or all of them."""
    return set_fingerprint(manifest.shards[: held["shards"]]) == str(held["fingerprint"])


def what_changed(held: Mapping[str, Any], manifest: Manifest) -> str:
    """How the set differs from the one that `describe_set` told of, and what to do; empty: the same."""
    first, now = held["shards"], len(manifest.shards)
    if not is_beginning(held, manifest):
        return (
            f"{manifest.url} ({now:,} shards, {manifest.samples:,} images) is not the set that the run began "
            f"with ({first:,} shards, {held['samples']:,} images): other images, or packed otherwise; bring "
            "that set back"
        )
    if now == first:
        return ""
    more = f"{now - first:,} shard{'s' if now - first > 1 else ''}"
    return (
        f"{manifest.url} has grown since the run began: {more} with {manifest.samples - held['samples']:,} "
        f"images came after the {first:,} with {held['samples']:,} images; "
        f"go on with those it began with: data.first_shards={first}"
    )


class IdentityCache:
    """What was found out of files, kept in a small JSON file, believed while the store's mark is the same.

    What cannot be read or written, or is not what was written, is not remembered: that costs a download,
    never an error.
    """

    def __init__(self, url: str = "") -> None:
        """`url`: where it is kept; empty: for this process alone."""
        self._url = url
        self._rows: dict[str, dict[str, Any]] = {}
        if url:
            with suppress(StorageError, RecordError):
                self._rows = (
                    json_reader.read(url, dict[str, dict[str, Any]], "") if storage.exists(url) else {}
                )

    def recall(self, url: str, mark: str) -> dict[str, Any] | None:
        """What was remembered of the file at a URL under this mark; None: read it. No mark, no memory."""
        row = self._rows.get(url, {})
        facts = row.get("facts")
        if not mark or not isinstance(facts, dict) or row != _remembered(mark, facts):
            return None
        return dict(facts)

    def remember(self, url: str, mark: str, facts: Mapping[str, Any]) -> None:
        """Keep what was found out of the file that bore this mark before and after it was read."""
        row = _remembered(mark, facts)
        if not mark or self._rows.get(url) == row:
            return
        self._rows[url] = row
        if self._url:
            try:
                storage.write_json(self._url, self._rows)
            except StorageError:
                self._url = ""


def _remembered(mark: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a memory; its sum tells when a byte of it has changed since."""
    text = json.dumps([mark, facts], sort_keys=True)
    return {"mark": mark, "facts": dict(facts), "sum": hashlib.sha256(text.encode()).hexdigest()}
