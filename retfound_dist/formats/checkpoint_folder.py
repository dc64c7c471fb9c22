"""Committed checkpoints: what stands between training and evaluation.

A checkpoint is a folder `RUN/checkpoints/step_00000100/` whose `COMMIT.json`, written last, names
every file with its size and sha256. Without it there is no checkpoint.

The commit alone says which files are the checkpoint's. Every save writes to names of its own
(`state-3f9a61c0/`), so nothing that a commit names is ever written again: a step that is saved once more is
the old checkpoint until the new `COMMIT.json` takes the place of the old one, whole; then it is the new one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

from retfound_dist.errors import CheckpointError, FormatError, RecordError, RetfoundError, StorageError
from retfound_dist.formats import run_config, url_kinds
from retfound_dist.io import storage, verified_files
from retfound_dist.io.storage import FileInfo
from retfound_dist.records import json_reader
from retfound_dist.records.plain_names import plain_path

FORMAT = 1
COMMIT = "COMMIT.json"
WEIGHTS = "model.safetensors"
STATE, PARTS, UNIVERSAL = "state", "parts", "universal"
"""Folders of a checkpoint, which bear the mark of their save: training state, weights of each rank until they
are put together, the state converted for another number of ranks."""
Errors = tuple[type[RetfoundError], ...]
AT_ONCE = 8
"""Commits that are read side by side."""
UNUSABLE = (CheckpointError, FormatError)
"""A commit that is damaged, or of another format: it says nothing of the run."""
_STEP = re.compile(r"^step_(\d{8,})$")
_WEIGHTS = re.compile(r"^model(-[0-9a-f]+)?\.safetensors$")
_STATE = re.compile(rf"^{STATE}(-[0-9a-f]+)?/(.+)$")
_OURS = re.compile(
    rf"^(({STATE}|{PARTS}|{UNIVERSAL})(-[0-9a-f]+)?|model(-[0-9a-f]+)?\.safetensors|.+\.[0-9a-f]{{8}}\.tmp)$"
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What COMMIT.json holds."""

    step: json_reader.Count
    samples: json_reader.Count
    world_size: json_reader.Count
    zero_stage: json_reader.Count
    precision: str
    batch_digest: str
    time: str
    config: dict[str, Any]
    """The run's config.json: its settings and, as `shard_set`, what it trains on."""
    files: dict[str, FileInfo]
    generation: json_reader.Count = 0
    """Raised by a start that did not go on from the newest checkpoint; a later one is newer at any step."""
    chosen: str = ""
    """What `run.resume` insisted on, and in which job: its restarts go on from what they have saved."""


@dataclass(frozen=True, kw_only=True)
class Commit(Written):
    """What a committed checkpoint says of itself."""

    url: str

    @property
    def weights(self) -> str:
        """Name of the weights' file; CheckpointError where there is none."""
        if found := [name for name in self.files if _WEIGHTS.match(name)]:
            return found[0]
        raise CheckpointError(f"{self.url} holds no {WEIGHTS}; use another checkpoint")

    @property
    def state(self) -> dict[str, str]:
        """Files of the training state: the name of each, and what a save calls it (`state/...`)."""
        found = {name: _STATE.match(name) for name in self.files}
        return {name: f"{STATE}/{match[2]}" for name, match in found.items() if match}


def new_mark() -> str:
    """What sets the names of one save apart from those of all others."""
    return uuid.uuid4().hex[:8]


def marked(name: str, mark: str) -> str:
    """The name at which a save puts one of its files: `state/x` at `state-3f9a61c0/x`."""
    folder, slash, rest = name.partition("/")
    return f"{folder}-{mark}{slash}{rest}"


def weights_name(url: str, mark: str) -> str:
    """The name for the weights of a save whose other files are there: the plain one where it is alone.

    Of two that save one step at a time each has put its state before it looks, so one of them sees the other.
    """
    own = {f"{STATE}-{mark}", f"{PARTS}-{mark}"}
    return f"model-{mark}.safetensors" if set(storage.list_names(url)) - own else WEIGHTS


def checkpoint_url(run_url: str, step: int) -> str:
    """Where the checkpoint of a step stands."""
    return storage.join(run_url, "checkpoints", f"step_{step:08d}")


def evaluation_url(run_url: str, step: int) -> str:
    """Where the evaluation of a step's checkpoint stands."""
    return storage.join(run_url, "evaluations", f"step_{step:08d}")


def write_commit(commit: Commit) -> None:
    """Commit a checkpoint whose files are all in place; an older commit of the step ends with it."""
    tree = asdict(commit)
    del tree["url"]
    verified_files.write_json(storage.join(commit.url, COMMIT), {"format": FORMAT, **tree})


def read_commit(url: str) -> Commit:
    """A checkpoint's commit; CheckpointError where there is none or it is damaged, FormatError where it is of
    another format, StorageError where it cannot be read."""
    where = storage.join(url, COMMIT)
    try:
        held = json_reader.parse(
            verified_files.read(where), Written, where, "use another checkpoint", format=FORMAT
        )
    except StorageError as error:
        if verified_files.is_missing(error):
            raise CheckpointError(f"{url} is not a committed checkpoint: {error}") from error
        raise
    except FormatError:
        raise
    except RecordError as error:
        raise CheckpointError(str(error)) from error
    for name in held.files:
        plain_path(name, where, CheckpointError)
    return Commit(url=url, **{field.name: getattr(held, field.name) for field in fields(held)})


def is_checkpoint(url: str) -> bool:
    """Whether a committed checkpoint stands at the URL."""
    return storage.exists(storage.join(url, COMMIT))


def list_steps(run_url: str) -> list[int]:
    """Steps whose checkpoints are committed, rising."""
    folder = storage.join(run_url, "checkpoints")
    steps = [int(m.group(1)) for n in storage.list_names(folder) if (m := _STEP.match(n))]
    return sorted(step for step in steps if is_checkpoint(checkpoint_url(run_url, step)))


@dataclass(frozen=True)
class Found:
    """A step of a run with a COMMIT.json."""

    step: int
    held: Commit | None
    fault: RetfoundError | None = None
    """Why there is no commit to read."""
    generation: int = 0
    """The commit's. One that cannot be read may be the newest, so it counts as of the last generation."""

    @property
    def age(self) -> tuple[int, int]:
        """Of two the larger is newer: a later generation at any step, then the later step."""
        return self.generation, self.step


def read_commits(run_url: str, steps: Sequence[int], tolerated: Errors) -> list[Found]:
    """The commits of these steps, in this order; faults of the `tolerated` kinds are told, others raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(partial(_find, run_url, tolerated), steps))
    last = max((each.generation for each in found), default=0)
    return [each if each.held else replace(each, generation=last) for each in found]


def by_age(run_url: str, tolerated: Errors = UNUSABLE) -> list[Found]:
    """Every committed checkpoint of a run, the newest last; the one place that says which is newer.

    A fault of the `tolerated` kinds is told with its step, others are raised.
    """
    return sorted(read_commits(run_url, list_steps(run_url), tolerated), key=lambda each: each.age)


def _find(run_url: str, tolerated: Errors, step: int) -> Found:
    url = checkpoint_url(run_url, step)
    try:
        held = read_commit(url)
        if held.step != step:
            raise CheckpointError(f"{url}: its {COMMIT} is of step {held.step}; use another checkpoint")
    except tolerated as error:
        return Found(step, None, error)
    return Found(step, held, generation=held.generation)


def resolve(url: str) -> str:
    """The weights meant by a URL: a run's URL means its newest committed checkpoint, all else itself.

    A newest one that is damaged is meant too: who reads it says so, and no older one takes its place unasked.
    CheckpointError where it is something of ours that holds no weights, or a run without a checkpoint.
    """
    if not storage.is_folder(url) or is_checkpoint(url):
        return url
    if found := by_age(url):
        return checkpoint_url(url, found[-1].step)
    kind = url_kinds.kind_at(url)
    if kind == url_kinds.RUN:
        first = _first_save(run_config.read_config(url))
        raise CheckpointError(
            f"{url} is a run without a checkpoint yet{first}: wait for it, or give other weights"
        )
    raise CheckpointError(url_kinds.refusal(url, url_kinds.WEIGHTS))


def _first_save(config: dict[str, Any]) -> str:
    """When a run commits its first checkpoint, as far as its config says."""
    every = config.get("checkpoint", {}).get("every_steps")
    ends = [n for n in (every, config["train"].get("steps"), config["train"].get("stop_at_step")) if n]
    return f"; its first comes at step {min(ends):,}" if ends else ""


def newest(run_url: str) -> Commit | None:
    """The newest commit that can be read; None where there is none."""
    return next((each.held for each in reversed(by_age(run_url)) if each.held), None)


def fetch(commit: Commit, name: str, target: str) -> None:
    """Copy one file of a checkpoint to a local path and check it against the commit.

    CheckpointError where it is not the file that was committed, StorageError where it cannot be read.
    """
    if name not in commit.files:
        raise CheckpointError(f"{commit.url} holds no {name}; use another checkpoint")
    where = storage.join(commit.url, name)
    if why := verified_files.fetch(where, target, commit.files[name]):
        if is_checkpoint(commit.url) and read_commit(commit.url) != commit:
            raise CheckpointError(f"{commit.url} was saved again while it was read: start again")
        raise CheckpointError(f"{where} differs from its commit ({why}); use another checkpoint")


def fetch_weights(url: str, target: str) -> Commit:
    """Copy a checkpoint's weights to a local path; gives the commit that they are of.

    That is the new one where the step is saved again meanwhile.
    """
    held = read_commit(url)
    try:
        fetch(held, held.weights, target)
    except CheckpointError:
        now = read_commit(url)
        if now == held:
            raise
        fetch(now, now.weights, target)
        return now
    return held


def spare_names(held: Commit, names: Sequence[str]) -> list[str]:
    """Of the entries of a checkpoint's folder those that a save left and its commit does not name.

    A converted state stands beside: it is not spare where there is a state that it is of.
    """
    named = {name.partition("/")[0] for name in held.files}
    converted = bool(held.state)
    return [
        name
        for name in names
        if _OURS.match(name) and name not in named and not (converted and name.startswith(UNIVERSAL))
    ]
