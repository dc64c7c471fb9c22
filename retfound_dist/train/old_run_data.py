"""Checks that an old run still has the shard set it was trained on.

Runs of early versions kept no fingerprint of their set. Their newest checkpoint and their log hold the
digests of their steps' global batches. The same digests follow from the shard set and the config alone, so a
set that grew or was packed anew is found without reading an image.
"""

from __future__ import annotations

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import RunConflictError
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.content_identity import SHARD_SET
from retfound_dist.formats.shard_set import Manifest, read_index
from retfound_dist.io import storage
from retfound_dist.stream.batch_plan import batch_digest
from retfound_dist.stream.loader import make_plan

# Several, for a bad sample that was replaced changes the digest of its step; few, for each costs the indexes
# of the shards in its batch.
LOOKED_AT = 20
"""Logged steps that are compared, newest first."""


def check_old_run(config: PretrainConfig, manifest: Manifest) -> None:
    """RunConflictError where an old run's newest checkpoint was trained on other samples than these.

    A run whose config holds a fingerprint is checked elsewhere; one without a checkpoint was trained on
    nothing.
    """
    url = config.run.url
    where = storage.join(url, run_folder.CONFIG)
    if not storage.exists(where) or SHARD_SET in run_folder.read_config(url):
        return
    commit = checkpoint_folder.newest(url)
    if commit is None:
        return
    rows = [row for row in run_folder.read_metrics(url) if row["step"] <= commit.step]
    logged = [(commit.step, commit.batch_digest)]
    logged += [(row["step"], str(row.get("batch_digest"))) for row in rows[: -LOOKED_AT - 1 : -1]]
    # One that agrees is enough: where a bad sample was replaced, the digest is not the planned one.
    if not any(digest_of(config, manifest, step) == digest for step, digest in logged):
        raise RunConflictError(
            f"{url} cannot go on: step {commit.step} was trained on other samples than {manifest.url} gives "
            "it now, so the set has grown or was packed anew; where it has grown, data.first_shards=N names "
            f"the shards that the run began with, or {run_folder.new_run(url)}"
        )


def digest_of(config: PretrainConfig, manifest: Manifest, step: int) -> str:
    """The batch digest of a step (1 is the first) as metrics.jsonl holds it; reads the indexes it needs."""
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    part, batch = manifest.part(config.data.split), plan.batch(step - 1)
    places = list(zip(batch.shard.tolist(), batch.index.tolist(), strict=True))
    entries = {shard: read_index(manifest.url, part[shard]) for shard in {shard for shard, _ in places}}
    return f"{batch_digest([entries[shard][index].key for shard, index in places]):016x}"
