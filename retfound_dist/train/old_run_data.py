"""Checks that the shard set of an old run has not changed.

Runs of early versions have no fingerprint of their set. But their newest checkpoint and their log contain the
digests of global batches. These can be computed from the indexes of the shards and the config. So a set that
grew or was packed again is detected without reading an image.
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

# Several, because a replaced bad sample changes the digest of its step. Few, because each needs the indexes
# of all shards in its batch.
COMPARED_STEPS = 20
"""Number of logged steps that are compared, newest first."""


def check_old_run(config: PretrainConfig, manifest: Manifest) -> None:
    """RunConflictError if an old run's newest checkpoint was trained on other samples than these.

    Newer runs have a fingerprint in their config and are checked elsewhere. A run without a checkpoint can be
    trained on any set.
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
    logged += [(row["step"], str(row.get("batch_digest"))) for row in rows[: -COMPARED_STEPS - 1 : -1]]
    # One match is enough: a step with a replaced bad sample has another digest than planned.
    if not any(planned_digest(config, manifest, step) == digest for step, digest in logged):
        raise RunConflictError(
            f"{url} cannot be resumed: step {commit.step} was trained on other samples than {manifest.url} "
            "now gives for it, so the set has grown or was packed again; if it has grown, set "
            "data.first_shards=N to the number of shards at the beginning of the run, or "
            f"{run_folder.new_run_advice(url)}"
        )


def planned_digest(config: PretrainConfig, manifest: Manifest, step: int) -> str:
    """The batch digest of a step (1 is the first) as in metrics.jsonl; reads the indexes of its shards."""
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    part, batch = manifest.part(config.data.split), plan.batch(step - 1)
    places = list(zip(batch.shard.tolist(), batch.index.tolist(), strict=True))
    entries = {shard: read_index(manifest.url, part[shard]) for shard in {shard for shard, _ in places}}
    return f"{batch_digest([entries[shard][index].key for shard, index in places]):016x}"
