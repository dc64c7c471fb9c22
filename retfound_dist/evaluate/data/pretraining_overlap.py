"""Counts, by part, the images of a labelled set that some weights were pretrained on.

The config of a run (in its COMMIT.json, and in files exported from it) names the shard set, its fingerprint
and the part; the set's indexes hold digests of every sample and of its source. No image of it is read. A run
that began from another run's checkpoint has seen that one's images too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from retfound_dist.errors import ManifestError, RetfoundError
from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.data.starting_weights import NONE, StartingWeights
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import SHARD_SET, is_prefix_of, set_fingerprint
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.images import image_digests
from retfound_dist.images.image_digests import Known

UNKNOWN, NO_PRETRAINING = "unknown", "no pretraining"
# A chain of runs that comes back to its beginning would never end.
LONGEST = 8
"""Most runs that are followed back, each to the one that it started from."""
HOW = {
    image_digests.SOURCES: "digests of pixels and files",
    image_digests.PACKED: "digests of packed pixels (the set holds none of its sources)",
    image_digests.STORED: "digests of stored files alone (the set holds none of pixels)",
}
# Rows of a comparison and checkpoints of a watched run mostly come from one shard set.
_read: dict[tuple[str, str], Known] = {}
"""Digests that this process has read, by fingerprint and part; the last few."""


def count(start: StartingWeights, parts: Mapping[str, SplitPart]) -> dict[str, Any]:
    """Images of each part that the weights were pretrained on, of how many, and how that is known.

    None in place of a count where it is not known; `how` says why.
    """
    of = {name: len(part) for name, part in parts.items()}
    if start.kind == NONE:
        return {**dict.fromkeys(of, 0), "of": of, "how": NO_PRETRAINING}
    sets, gaps = _pretraining_sets(start.meta.get("config"))
    # One set that knows little about its images makes the whole answer as weak as that.
    level = min((known.level for known in sets), default=image_digests.SOURCES)
    # The empty array stands in for no set at all: NumPy refuses to join nothing.
    digests = np.unique(np.concatenate([np.zeros(0, np.uint64), *(known.sorted() for known in sets)]))
    counts = {
        name: int(image_digests.are_known(list(part.digests), digests).sum()) for name, part in parts.items()
    }
    # Digests of stored files miss an image that was encoded again, so finding none proves nothing.
    if sets and level == image_digests.STORED and not any(counts.values()):
        sets, gaps = [], ["its shard set holds no digests of pixels: pack it again"]
    if not sets:
        return {**dict.fromkeys(of), "of": of, "how": f"{UNKNOWN}: {'; '.join(gaps)}"}
    return {**counts, "of": of, "how": "; ".join([HOW[level], *gaps])}


def _pretraining_sets(config: Mapping[str, Any] | None) -> tuple[list[Known], list[str]]:
    """The shard sets that the weights were trained on; in words, what is not known of them."""
    known_sets, gaps = [], []
    for place, config_or_gap in enumerate(_configs_of_runs(config)):
        if isinstance(config_or_gap, str):
            gaps.append(config_or_gap)
            continue
        try:
            known_sets.append(_images_of_run(config_or_gap))
        except RetfoundError as error:
            gaps.append(" ".join(str(error).split()))
        # The config comes out of a weights file, and others may have written it in any shape.
        except (KeyError, TypeError, AttributeError):
            why = "they come without the config of a run" if not place else "a run before it kept no config"
            gaps.append(why)
    return known_sets, gaps


def _configs_of_runs(config: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any] | str]:
    """The run's config, then those of the runs that it started from; a text where one cannot be read."""
    run_config: Any = config or {}
    for _ in range(LONGEST):
        yield run_config
        init = str(run_config.get("model", {}).get("init", NONE))
        if init == NONE:
            return
        try:
            url = checkpoint_folder.resolve(init)
            if not checkpoint_folder.is_checkpoint(url):
                yield f"what {init} had seen, from which the run began, is not known"
                return
            run_config = checkpoint_folder.read_commit(url).config
        except RetfoundError as error:
            yield f"{init}, from which the run began, cannot be read ({error})"
            return


def _images_of_run(config: Mapping[str, Any]) -> Known:
    """Digests of the images that a run trains on; ManifestError or StorageError where they are unknown."""
    data, recorded_set = config["data"], config.get(SHARD_SET)
    try:
        manifest = read_manifest(data["shards"])
    except RetfoundError as error:
        raise ManifestError(f"the shard set it was trained on cannot be read at {data['shards']}") from error
    if recorded_set is None:
        manifest = manifest.first(data.get("first_shards", 0))
    elif is_prefix_of(recorded_set, manifest):
        manifest = manifest.first(recorded_set["shards"])
    else:
        raise ManifestError(f"{manifest.url} is not the shard set any more that the run was trained on")
    return _known(manifest, data["split"])


def _known(manifest: Manifest, split: str) -> Known:
    place = set_fingerprint(manifest.shards), split
    if place not in _read:
        if len(_read) > 3:
            _read.pop(next(iter(_read)))
        _read[place] = image_digests.part_digests(manifest, split)
    return _read[place]
