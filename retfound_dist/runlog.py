"""A run's folder: its config, its metrics, and what may change when it is started again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist import commit, storage, urls
from retfound_dist.config import differences, flatten, key_names, with_defaults
from retfound_dist.errors import ManifestError, RetfoundError, RunConflictError, StorageError
from retfound_dist.identity import INIT_WEIGHTS, KEPT, SHARD_SET, weights_sha256, what_changed
from retfound_dist.schema import PretrainConfig
from retfound_dist.shardset import Manifest

CONFIG, METRICS = "config.json", "metrics.jsonl"
EVENTS, ANOMALIES = "events.jsonl", "anomalies.jsonl"
ALARMS, WATCH = "alarms.jsonl", "evaluations/watch.json"
"""What `retfound watch` leaves: each alarm once, and its history."""
HOW = (
    "run.url",
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

    A key that the run's config lacks, for it was written before there was one, has its default. The shard
    set is the same where its content is (`manifest`: the set of today). A run that was begun before
    fingerprints were kept is compared by the set's URL.
    """
    where = storage.join(url, CONFIG)
    if not storage.exists(where):
        return False
    held = storage.read_json(where)
    if not isinstance(held, Mapping) or not isinstance(held.get("train"), Mapping):
        raise RunConflictError(f"{where} is of another program: give this run a run.url of its own")
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


def new_run(url: str) -> str:
    """How to go on with a run's weights where the run itself cannot."""
    steps = commit.list_steps(url)
    if not steps:
        return "begin a new run at another run.url"
    newest = commit.checkpoint_url(url, steps[-1])
    return f"begin a new run from its weights: model.init={newest} and another run.url"


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
    where = storage.join(url, CONFIG)
    held = storage.read_json(where) if storage.exists(where) else {}
    known = held.get(INIT_WEIGHTS) if isinstance(held, Mapping) else None
    return dict(known) if isinstance(known, Mapping) else {}


def write_config(url: str, config: Mapping[str, Any]) -> None:
    """Put the resolved config into the run's folder."""
    storage.write_json(storage.join(url, CONFIG), config)


def read_rows(url: str, name: str) -> list[dict[str, Any]]:
    """All whole lines of one of the run's logs, as they were written; none where there is no such log."""
    where = storage.join(url, name)
    if not storage.exists(where):
        return []
    return [json.loads(line) for line in _whole_lines(storage.read_bytes(where))]


def read_metrics(url: str) -> list[dict[str, Any]]:
    """The run's logged steps in order, each once: of a step done twice the later line counts."""
    steps = {row["step"]: row for row in read_rows(url, METRICS)}
    return [steps[step] for step in sorted(steps)]


def append_rows(url: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add objects as lines to one of the run's logs: in place on a disk, whole on an object store.

    What a killed run wrote in part goes.
    """
    where = storage.join(url, name)
    lines = (urls.mask(json.dumps(row, allow_nan=False), least=urls.LEAST_IN_FILES) for row in rows)
    data = b"".join(line.encode() + b"\n" for line in lines)
    if not storage.is_local(where):
        before = storage.read_bytes(where) if storage.exists(where) else b""
        storage.write_bytes(where, _joined(before) + data)
        return
    path = storage.local_path(where)
    if os.path.exists(path) and not _ends_whole(path):
        storage.write_bytes(where, _joined(storage.read_bytes(where)))
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "ab") as file:
            file.write(data)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _ends_whole(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        if not file.tell():
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _whole_lines(data: bytes) -> list[bytes]:
    """Lines that were written to their end; a killed run may leave a part of one."""
    return [line for line in data[: data.rfind(b"\n") + 1].splitlines() if line.endswith(b"}")]


def _joined(data: bytes) -> bytes:
    return b"".join(line + b"\n" for line in _whole_lines(data))
