"""Reads and writes a run's folder, and decides what may change when the run is started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.config.loading import differences, flatten, key_names, with_defaults
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import ManifestError, RetfoundError, RunConflictError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import (
    INIT_WEIGHTS,
    NON_SETTINGS,
    SHARD_SET,
    describe_change,
    weights_sha256,
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
"""File with the history that `retfound watch` writes."""
# Forbidden by default: a new setting counts as changing the result of a run until it is listed here.
CHANGEABLE_KEYS = (
    "run.",
    "data.workers",
    "data.cache_dir",
    "data.cache_gb",
    "data.patience_s",
    "data.bad_sample_budget",
    "data.held_out",
    "train.micro_batch",
    "train.zero_stage",
    "train.device",
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
"""Keys, or beginnings of keys, that decide how a run is executed but not what it computes. A restart may
change them."""
SHARD_SET_KEYS = ("data.shards", "data.first_shards")
"""Keys of the shard set's place and size. They are not compared where the run's config has its
fingerprint."""


def check_same_run(url: str, config: Mapping[str, Any], manifest: Manifest | None = None) -> bool:
    """Whether the folder already contains this run.

    RunConflictError where it contains another run, RecordError where its config is damaged.

    `manifest`: the shard set as it is now. The set is compared by content; for a run that was begun before
    fingerprints were stored, by URL.
    """
    where = storage.join(url, CONFIG)
    if not storage.exists(where):
        return False
    stored = _read_config_twice(url)
    _check_known_keys(where, stored)
    # Both configs get the defaults: a setting that did not exist when the run began had the effect of its
    # default.
    old, new = settings(stored), settings(config)
    by_content = manifest is not None and SHARD_SET in stored
    allowed_keys = (*CHANGEABLE_KEYS, *SHARD_SET_KEYS) if by_content else CHANGEABLE_KEYS
    changed = [
        change
        for change in differences(old, new)
        if not change[0].startswith(allowed_keys)
        and not _is_same_url(*change)
        and not _is_same_part(manifest, *change)
    ]
    # Last, because it may read a weights file of gigabytes.
    changed = [change for change in changed if not _has_same_init_weights(stored, *change)]
    if changed:
        first_changes = ", ".join(f"{key} was {was!r} and is now {now!r}" for key, was, now in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise RunConflictError(
            f"{url} holds another run ({first_changes}{more}): "
            "give this run another run.url, or undo the change"
        )
    if manifest is not None and by_content and (reason := describe_change(stored[SHARD_SET], manifest)):
        raise RunConflictError(f"{url} cannot continue: {reason}, or {new_run_advice(url)}")
    return True


def _read_config_twice(url: str) -> dict[str, Any]:
    """A run's config after two equal readings in a row."""
    # config.json has no checksum. A digit that changes on the way from the store is still valid JSON, would
    # look like another run, and would prevent the restart.
    previous, config = None, read_config(url)
    for _ in range(verified_files.MAX_READINGS):
        if config == previous:
            return config
        previous, config = config, read_config(url)
    raise StorageError(
        f"cannot read {storage.join(url, CONFIG)}: it gave different bytes each time; check the store"
    )


def new_run_advice(url: str) -> str:
    """Advice on how to use a run's weights where the run cannot continue."""
    newest = checkpoint_folder.newest(url)
    if newest is None:
        return "begin a new run at another run.url"
    return f"begin a new run from its weights: model.init={newest.url} and another run.url"


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings by dotted key. Missing keys get their defaults; sections that are not settings are
    left out.
    """
    return with_defaults(
        PretrainConfig, {name: part for name, part in config.items() if name not in NON_SETTINGS}
    )


def _check_known_keys(where: str, config: Mapping[str, Any]) -> None:
    """RunConflictError where the run was begun with settings that this version does not know."""
    known_keys = set(key_names(PretrainConfig))
    keys = [
        key
        for key, _ in flatten(config)
        if not key.startswith((*(f"{name}." for name in NON_SETTINGS), *CHANGEABLE_KEYS))
    ]
    if unknown := [key for key in keys if key not in known_keys]:
        raise RunConflictError(
            f"{where} has settings that this version does not know ({', '.join(unknown[:5])}): continue with "
            "the version that began the run (events.jsonl names it), or start a new run at another run.url"
        )


def _is_same_part(manifest: Manifest | None, key: str, was: Any, now: Any) -> bool:
    """Whether two values of data.split (such as `all` and `auto`) select the same shards of this set."""
    if key != "data.split" or manifest is None:
        return False
    try:
        return manifest.part(str(was)) == manifest.part(str(now))
    except ManifestError:
        return False


def _is_same_url(key: str, was: Any, now: Any) -> bool:
    """Whether two values of a setting that names a place are spellings of the same path or URL."""
    return key in ("data.shards", "model.init") and urls.is_same(str(was), str(now))


def _has_same_init_weights(stored: Mapping[str, Any], key: str, was: Any, now: Any) -> bool:
    """Whether a changed model.init still gives the same weights, because their file was only moved or copied.

    `stored`: the run's config as its folder has it, with the sha256 of the weights that the run began from.
    `key`, `was`, `now`: a changed setting and its values. False for other settings, where the folder has no
    sha256, and where the weights cannot be read.
    """
    stored_weights = stored.get(INIT_WEIGHTS)
    if key != "model.init" or not isinstance(stored_weights, Mapping):
        return False
    # The sha256 is that of the whole file, so the selected part of it must be the same too.
    if _selected_part(str(was)) != _selected_part(str(now)):
        return False
    try:
        return weights_sha256(str(now)) == stored_weights.get("sha256")
    except RetfoundError:
        return False


def _selected_part(init: str) -> str:
    """What a model.init of the form FILE#PART selects within its file; empty for the whole file."""
    # The name of an existing file may itself contain `#`.
    return "" if storage.exists(init) else init.rpartition("#")[2] if "#" in init else ""


def init_weights(url: str) -> dict[str, Any]:
    """The weights that the run began from, as its config has them ({"sha256": ...}); empty where it has
    none."""
    config = read_config(url) if storage.exists(storage.join(url, CONFIG)) else {}
    return dict(config.get(INIT_WEIGHTS, {}))


def write_config(url: str, config: Mapping[str, Any]) -> None:
    """Write the resolved config into the run's folder and read it back; StorageError where it did not
    arrive."""
    verified_files.write_json(storage.join(url, CONFIG), config)


def read_rows(url: str, name: str) -> list[Row]:
    """All JSON objects in one of the run's logs, of whatever kind; none where there is no such log."""
    return read_log(url, name, Row).rows


def read_metrics(url: str) -> list[Row]:
    """The run's logged steps in order, without repetitions."""
    return each_step_once(read_log(url, METRICS, AnyStep).rows)
