"""Counts the images of each part of a labelled set that the weights were pretrained on.

The config of a run names the shard set, its fingerprint and the part. It is in COMMIT.json and in weights
exported from the run. The indexes of the shard set have digests of every sample and of its source, so no
image of it is read. A run that started from a checkpoint of another run has seen the images of that run too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from retfound_dist.errors import ManifestError, RetfoundError
from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.data.starting_weights import NONE, StartingWeights
from retfound_dist.evaluate.scores import wording
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import SHARD_SET, is_prefix_of, set_fingerprint
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.images import image_digests
from retfound_dist.images.image_digests import ImageDigests

UNKNOWN, NO_PRETRAINING = "unknown", "no pretraining"
# A limit, because runs that name each other as their start would never end.
MAX_RUNS = 8
"""Number of runs that are followed back, each to the run that it started from."""
METHOD_TEXTS = {
    image_digests.SOURCES: "digests of pixels and files",
    image_digests.PACKED: "digests of packed pixels (the set holds none of its sources)",
    image_digests.STORED: "digests of stored files alone (the set holds none of pixels)",
}
# A cache, because rows of a comparison and checkpoints of a watched run mostly share one shard set.
_digest_cache: dict[tuple[str, str], ImageDigests] = {}
"""The last digests that this process has read, by fingerprint and part."""


def overlap_line(overlap: Mapping[str, Any], row: str = "") -> str:
    """A warning where test or val images were seen in pretraining, or that it is not known; else empty.

    `row`: the name of a row of a comparison, with a colon.
    """
    if warning := wording.pretrained_warning(overlap):
        return f"warning: {row}{warning}"
    return f"{row}{wording.pretrained_note(overlap)}" if str(overlap["how"]).startswith(UNKNOWN) else ""


def count_overlap(start: StartingWeights, parts: Mapping[str, SplitPart]) -> dict[str, Any]:
    """The number of images of each part that the weights were pretrained on; `of`: all images of the part.

    A count is None where it is not known. `how` is the method of counting, or why the count is not known.
    """
    part_sizes = {name: len(part) for name, part in parts.items()}
    if start.kind == NONE:
        return {**dict.fromkeys(part_sizes, 0), "of": part_sizes, "how": NO_PRETRAINING}
    sets, unknown_reasons = _pretraining_sets(start.meta.get("config"))
    # The answer is as weak as the set that has the fewest kinds of digests.
    level = min((known.level for known in sets), default=image_digests.SOURCES)
    # The empty array is for the case of no set: NumPy cannot concatenate an empty list.
    digests = np.unique(np.concatenate([np.zeros(0, np.uint64), *(known.sorted_unique() for known in sets)]))
    counts = {
        name: int(image_digests.have_known_digest(list(part.digests), digests).sum())
        for name, part in parts.items()
    }
    # Digests of stored files miss an image that was encoded again, so a count of 0 proves nothing.
    if sets and level == image_digests.STORED and not any(counts.values()):
        sets, unknown_reasons = [], ["its shard set holds no digests of pixels: pack it again"]
    if not sets:
        return {
            **dict.fromkeys(part_sizes),
            "of": part_sizes,
            "how": f"{UNKNOWN}: {'; '.join(unknown_reasons)}",
        }
    return {**counts, "of": part_sizes, "how": "; ".join([METHOD_TEXTS[level], *unknown_reasons])}


def _pretraining_sets(config: Mapping[str, Any] | None) -> tuple[list[ImageDigests], list[str]]:
    """Digests of the images that the weights were trained on, and reasons why some of them are not known.

    `config`: the config of the run that trained the weights. One set is for that run, and one for each
    earlier run that it started from.
    """
    digest_sets, unknown_reasons = [], []
    for runs_back, config_or_reason in enumerate(_configs_of_runs(config)):
        if isinstance(config_or_reason, str):
            unknown_reasons.append(config_or_reason)
            continue
        try:
            digest_sets.append(_images_of_run(config_or_reason))
        except RetfoundError as error:
            unknown_reasons.append(" ".join(str(error).split()))
        # The config comes from a weights file, where other programs may have written anything.
        except (KeyError, TypeError, AttributeError):
            unknown_reasons.append(
                "an earlier run has no config" if runs_back else "the weights have no config of a run"
            )
    return digest_sets, unknown_reasons


def _configs_of_runs(config: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any] | str]:
    """The config of the run, then of the runs that it started from; a reason where one cannot be read."""
    run_config: Any = config or {}
    for _ in range(MAX_RUNS):
        yield run_config
        init = str(run_config.get("model", {}).get("init", NONE))
        if init == NONE:
            return
        try:
            url = checkpoint_folder.resolve(init)
            if not checkpoint_folder.is_checkpoint(url):
                yield f"the run started from {init}, whose training images are not known"
                return
            run_config = checkpoint_folder.read_commit(url).config
        except RetfoundError as error:
            yield f"the run started from {init}, which cannot be read ({error})"
            return


def _images_of_run(config: Mapping[str, Any]) -> ImageDigests:
    """Digests of the images that a run trains on; ManifestError or StorageError where they are unknown."""
    data, recorded_set = config["data"], config.get(SHARD_SET)
    try:
        manifest = read_manifest(data["shards"])
    except RetfoundError as error:
        raise ManifestError(f"the shard set of the run cannot be read at {data['shards']}") from error
    if recorded_set is None:
        manifest = manifest.first_shards(data.get("first_shards", 0))
    elif is_prefix_of(recorded_set, manifest):
        manifest = manifest.first_shards(recorded_set["shards"])
    else:
        raise ManifestError(f"{manifest.url} is no longer the shard set that the run was trained on")
    return _cached_digests(manifest, data["split"])


def _cached_digests(manifest: Manifest, split: str) -> ImageDigests:
    """Digests of the images in one part of a shard set, read once."""
    cache_key = set_fingerprint(manifest.shards), split
    if cache_key not in _digest_cache:
        if len(_digest_cache) > 3:
            _digest_cache.pop(next(iter(_digest_cache)))
        _digest_cache[cache_key] = image_digests.part_digests(manifest, split)
    return _digest_cache[cache_key]
