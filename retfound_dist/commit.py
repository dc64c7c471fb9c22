"""Committed checkpoints: what stands between training and evaluation.

A checkpoint is a folder `RUN/checkpoints/step_00000100/` whose `COMMIT.json`, written last, names
every file with its size and sha256. Without it there is no checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from retfound_dist import kinds, names, storage
from retfound_dist.errors import CheckpointError, StorageError

FORMAT = 1
COMMIT = "COMMIT.json"
WEIGHTS = "model.safetensors"
_STEP = re.compile(r"^step_(\d{8,})$")


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What a committed checkpoint says of itself."""

    url: str
    step: int
    samples: int
    world_size: int
    zero_stage: int
    precision: str
    batch_digest: str
    time: str
    config: dict[str, Any]
    """The run's config.json: its settings and, as `shard_set`, what it trains on."""
    files: dict[str, storage.FileInfo]


def checkpoint_url(run_url: str, step: int) -> str:
    """Where the checkpoint of a step stands."""
    return storage.join(run_url, "checkpoints", f"step_{step:08d}")


def evaluation_url(run_url: str, step: int) -> str:
    """Where the evaluation of a step's checkpoint stands."""
    return storage.join(run_url, "evaluations", f"step_{step:08d}")


def write_commit(commit: Commit) -> None:
    """Commit a checkpoint whose files are all in place."""
    tree = asdict(commit)
    del tree["url"]
    storage.write_json(storage.join(commit.url, COMMIT), {"format": FORMAT, **tree})


def read_commit(url: str) -> Commit:
    """A checkpoint's commit; CheckpointError where there is none.

    What a newer version wrote beside what is known here is passed over.
    """
    where = storage.join(url, COMMIT)
    try:
        tree = storage.read_json(where)
    except StorageError as error:
        raise CheckpointError(f"{url} is not a committed checkpoint: {error}") from error
    if tree.get("format") != FORMAT:
        raise CheckpointError(
            f"{where} has format {tree.get('format')!r}, this version reads format {FORMAT}"
        )
    try:
        held = {names.plain_path(n, where, CheckpointError): info for n, info in tree["files"].items()}
        files = {name: storage.FileInfo(**info) for name, info in held.items()}
        known = {field.name for field in fields(Commit)} - {"url", "files"}
        return Commit(url=url, files=files, **{key: tree[key] for key in tree.keys() & known})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{where} is damaged ({error}); use another checkpoint") from error


def is_checkpoint(url: str) -> bool:
    """Whether a committed checkpoint stands at the URL."""
    return storage.exists(storage.join(url, COMMIT))


def list_steps(run_url: str) -> list[int]:
    """Steps whose checkpoints are committed, rising."""
    folder = storage.join(run_url, "checkpoints")
    steps = [int(m.group(1)) for n in storage.list_names(folder) if (m := _STEP.match(n))]
    return sorted(step for step in steps if is_checkpoint(checkpoint_url(run_url, step)))


def resolve(url: str) -> str:
    """The weights meant by a URL: a run's URL means its newest committed checkpoint, all else itself.

    CheckpointError where it is something of ours that holds no weights, or a run without a checkpoint.
    """
    if not storage.is_folder(url) or is_checkpoint(url):
        return url
    steps = list_steps(url)
    if steps:
        return checkpoint_url(url, steps[-1])
    kind = kinds.kind_at(url)
    if kind == kinds.RUN:
        first = _first_save(storage.read_json(storage.join(url, "config.json")))
        raise CheckpointError(
            f"{url} is a run without a checkpoint yet{first}: wait for it, or give other weights"
        )
    raise CheckpointError(kinds.refusal(url, kinds.WEIGHTS))


def _first_save(config: dict[str, Any]) -> str:
    """When a run commits its first checkpoint, as far as its config says."""
    every = config.get("checkpoint", {}).get("every_steps")
    ends = [n for n in (every, config["train"].get("steps"), config["train"].get("stop_at_step")) if n]
    return f"; its first comes at step {min(ends):,}" if ends else ""


def fetch(commit: Commit, name: str, target: str) -> None:
    """Copy one file of a checkpoint to a local path and check it against the commit."""
    if name not in commit.files:
        raise CheckpointError(f"{commit.url} holds no {name}; use another checkpoint")
    if storage.get_file(storage.join(commit.url, name), target) != commit.files[name]:
        raise CheckpointError(
            f"{storage.join(commit.url, name)} differs from its commit; use another checkpoint"
        )
