"""A run's folder: its config, its metrics, and what may change when it is started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.config.loading import differences, flatten, key_names, with_defaults
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import ManifestError, RetfoundError, RunConflictError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import (
    INIT_WEIGHTS,
    KEPT,
    SHARD_SET,
    weights_sha256,
    what_changed,
)
from retfound_dist.formats.log_rows import ALARMS as ALARMS
from retfound_dist.formats.log_rows import ANOMALIES as ANOMALIES
from retfound_dist.formats.log_rows import EVENTS as EVENTS
from retfound_dist.formats.log_rows import METRICS as METRICS
from retfound_dist.formats.log_rows import AnyStep, Row, each_step_once, read_log
from retfound_dist.formats.log_writer import append_rows as append_rows
from retfound_dist.formats.run_config import CONFIG as CONFIG
from retfound_dist.formats.run_config import read_config as read_config
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.io import storage, urls, verified_files

WATCH = "evaluations/watch.json"
"""The history that `retfound watch` leaves."""
HOW = (
    "run.",
    "data.workers",
    "data.cache_dir",
    "data.cache_gb",
    "data.patience_s",
    "data.bad_sample_budget",
    "data.held_out",
    "train.micro_batch",
    "train.zero_stage",
    "train.compile",
    "train.log_every",
    "train.stop_at_step",
    "train.activation_checkpointing",
    "train.offload_optimizer",
    "train.threads",
    "train.max_minutes",
    "train.grace_s",
    "train.hang_minutes",
    "train.bad_step_budget",
    "train.tensorboard",
    "train.profile_steps",
    "checkpoint.",
)
"""Keys that say how a run is carried out, never what it computes: free to change on a restart."""


DATA = ("data.shards", "data.first_shards")
"""Keys that say where the shard set is: what it holds decides, where a run's config says that."""


def check_same_run(url: str, config: Mapping[str, Any], manifest: Manifest | None = None) -> bool:
    """Whether the folder holds this run already; RunConflictError when it holds another one.

    RecordError where its config is damaged.

    A key that the run's config lacks, for it was written before there was one, has its default. The shard
    set is the same where its content is (`manifest`: the set of today). A run that was begun before
    fingerprints were kept is compared by the set's URL.
    """
    where = storage.join(url, CONFIG)
    if not storage.exists(where):
        return False
    held = _surely_held(url)
    _refuse_unknown(where, held)
    old, new = settings(held), settings(config)
    by_content = manifest is not None and SHARD_SET in held
    free = (*HOW, *DATA) if by_content else HOW
    changed = [
        d
        for d in differences(old, new)
        if not d[0].startswith(free) and not _is_same_url(*d) and not _is_same_part(manifest, *d)
    ]
    changed = [d for d in changed if not _is_same_init(held, *d)]
    if changed:
        shown = ", ".join(f"{key} was {was!r} and is now {now!r}" for key, was, now in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise RunConflictError(
            f"{url} holds another run ({shown}{more}): "
            "start this one at a run.url of its own, or undo the change"
        )
    if manifest is not None and by_content and (why := what_changed(held[SHARD_SET], manifest)):
        raise RunConflictError(f"{url} cannot go on: {why}, or {new_run(url)}")
    return True


def _surely_held(url: str) -> dict[str, Any]:
    """A run's config as two readings in a row have it: a digit that flipped on its way is JSON too."""
    before, held = None, read_config(url)
    for _ in range(verified_files.MOST_READINGS):
        if held == before:
            return held
        before, held = held, read_config(url)
    raise StorageError(f"cannot read {storage.join(url, CONFIG)}: each reading gave something else")


def new_run(url: str) -> str:
    """How to go on with a run's weights where the run itself cannot."""
    newest = checkpoint_folder.newest(url)
    if newest is None:
        return "begin a new run at another run.url"
    return f"begin a new run from its weights: model.init={newest.url} and another run.url"


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings by dotted key, with the defaults of keys it was written without; data left out."""
    return with_defaults(PretrainConfig, {name: part for name, part in config.items() if name not in KEPT})


def _refuse_unknown(where: str, held: Mapping[str, Any]) -> None:
    """RunConflictError where the run was begun with settings that this version does not know."""
    known = set(key_names(PretrainConfig))
    flat = [key for key, _ in flatten(held) if not key.startswith((*(f"{name}." for name in KEPT), *HOW))]
    if strange := [key for key in flat if key not in known]:
        raise RunConflictError(
            f"{where} has settings that this version does not know ({', '.join(strange[:5])}): go on with "
            "the version that began the run (events.jsonl names it), or start at another run.url"
        )


def _is_same_part(manifest: Manifest | None, key: str, was: Any, now: Any) -> bool:
    """Whether `all` and `auto`, say, are the same shards of this set."""
    if key != "data.split" or manifest is None:
        return False
    try:
        return manifest.part(str(was)) == manifest.part(str(now))
    except ManifestError:
        return False


def _is_same_url(key: str, was: Any, now: Any) -> bool:
    return key in ("data.shards", "model.init") and urls.is_same(str(was), str(now))


def _is_same_init(held: Mapping[str, Any], key: str, was: Any, now: Any) -> bool:
    """Whether the weights that a run began from have only moved: told by their content."""
    known = held.get(INIT_WEIGHTS)
    if key != "model.init" or not isinstance(known, Mapping) or _part_of(str(was)) != _part_of(str(now)):
        return False
    try:
        return weights_sha256(str(now)) == known.get("sha256")
    except RetfoundError:
        return False


def _part_of(init: str) -> str:
    return "" if storage.exists(init) else init.rpartition("#")[2] if "#" in init else ""


def init_weights(url: str) -> dict[str, Any]:
    """What the run's config says of the weights that it began from; empty where it says nothing."""
    held = read_config(url) if storage.exists(storage.join(url, CONFIG)) else {}
    return dict(held.get(INIT_WEIGHTS, {}))


def write_config(url: str, config: Mapping[str, Any]) -> None:
    """Put the resolved config into the run's folder and see that it arrived, else StorageError."""
    verified_files.write_json(storage.join(url, CONFIG), config)


def read_rows(url: str, name: str) -> list[Row]:
    """The objects in one of the run's logs, as they were written; none where there is no such log."""
    return read_log(url, name, Row).rows


def read_metrics(url: str) -> list[Row]:
    """The run's logged steps in order, each once."""
    return each_step_once(read_log(url, METRICS, AnyStep).rows)
