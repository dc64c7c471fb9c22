"""Reads and writes committed checkpoints, which training writes and evaluation reads.

A checkpoint is a folder `RUN/checkpoints/step_00000100/`. Its `COMMIT.json` is written last and lists every
file with its size and sha256. Without it there is no checkpoint.

Only files that the commit lists belong to the checkpoint. Every save uses new names (`state-3f9a61c0/`), so a
file that a commit lists is never overwritten. When a step is saved again, readers see the old checkpoint
until the new `COMMIT.json` replaces the old one in one step.
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
from retfound_dist.records.plain_names import checked_path

FORMAT = 1
COMMIT = "COMMIT.json"
WEIGHTS = "model.safetensors"
STATE, PARTS, UNIVERSAL = "state", "parts", "universal"
"""Folders of a checkpoint; their names end in the mark of their save. They hold the training state, each
rank's part of the weights until the parts are merged, and the state converted for another number of ranks."""
ErrorTypes = tuple[type[RetfoundError], ...]
PARALLEL_READS = 8
"""Commits that are read at the same time."""
UNUSABLE = (CheckpointError, FormatError)
"""Errors of a commit that cannot be used: it is damaged, or of another format."""
# At least eight digits: `checkpoint_url` pads to eight, and steps from 100,000,000 on are longer.
_STEP = re.compile(r"^step_(\d{8,})$")
_WEIGHTS = re.compile(r"^model(-[0-9a-f]+)?\.safetensors$")
_STATE = re.compile(rf"^{STATE}(-[0-9a-f]+)?/(.+)$")
# Names that a save may leave behind. Other files in the folder were put there by a person: never delete them.
# `io.storage` ends the names of incomplete files in `.tmp`.
_SAVED_NAMES = re.compile(
    rf"^(({STATE}|{PARTS}|{UNIVERSAL})(-[0-9a-f]+)?|model(-[0-9a-f]+)?\.safetensors|.+\.[0-9a-f]{{8}}\.tmp)$"
)


@dataclass(frozen=True, kw_only=True)
class CommitFields:
    """The fields of COMMIT.json."""

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
    """Increased by a start that did not continue from the newest checkpoint. A checkpoint of a later
    generation is newer, whatever its step."""
    chosen: str = ""
    """The checkpoint that `run.resume` named, and the job that named it. When that job is restarted, it
    continues from its own later checkpoints, not from this one again."""


@dataclass(frozen=True, kw_only=True)
class Commit(CommitFields):
    """A committed checkpoint: its URL and the fields of its COMMIT.json."""

    url: str

    @property
    def weights(self) -> str:
        """Name of the weights' file; CheckpointError where there is none."""
        if weights_names := [name for name in self.files if _WEIGHTS.match(name)]:
            return weights_names[0]
        raise CheckpointError(f"{self.url} has no {WEIGHTS}; use another checkpoint")

    @property
    def state(self) -> dict[str, str]:
        """Files of the training state: stored name -> name without the save's mark (`state/...`)."""
        matches = {name: _STATE.match(name) for name in self.files}
        return {name: f"{STATE}/{match[2]}" for name, match in matches.items() if match}


def new_mark() -> str:
    """A random mark, which makes the file names of one save different from those of every other save."""
    return uuid.uuid4().hex[:8]


def name_with_mark(name: str, mark: str) -> str:
    """The name under which a save stores one of its files: `state-3f9a61c0/x` for `state/x`."""
    folder, slash, rest = name.partition("/")
    return f"{folder}-{mark}{slash}{rest}"


def weights_name(url: str, mark: str) -> str:
    """The file name for the weights of a save: plain where no other save has files there, else with its mark.

    Call it after the state of this save was written.
    """
    # Two processes may save the same step at the same time. Each writes its state before it lists the folder,
    # so at least one of them sees the other's files and avoids the plain name.
    names_of_this_save = {f"{STATE}-{mark}", f"{PARTS}-{mark}"}
    return f"model-{mark}.safetensors" if set(storage.list_names(url)) - names_of_this_save else WEIGHTS


def checkpoint_url(run_url: str, step: int) -> str:
    """The URL of a step's checkpoint."""
    return storage.join(run_url, "checkpoints", f"step_{step:08d}")


def evaluation_url(run_url: str, step: int) -> str:
    """The URL of the evaluation of a step's checkpoint."""
    return storage.join(run_url, "evaluations", f"step_{step:08d}")


def write_commit(commit: Commit) -> None:
    """Commit a checkpoint whose files are all stored. It replaces an older commit of the same step."""
    tree = asdict(commit)
    del tree["url"]
    verified_files.write_json(storage.join(commit.url, COMMIT), {"format": FORMAT, **tree})


def read_commit(url: str) -> Commit:
    """A checkpoint's commit; CheckpointError where there is none or it is damaged, FormatError where it is of
    another format, StorageError where it cannot be read."""
    commit_url = storage.join(url, COMMIT)
    try:
        commit_fields = json_reader.parse(
            verified_files.read(commit_url), CommitFields, commit_url, "use another checkpoint", format=FORMAT
        )
    except StorageError as error:
        if verified_files.is_missing(error):
            raise CheckpointError(f"{url} is not a committed checkpoint: {error}") from error
        raise
    except FormatError:
        raise
    except RecordError as error:
        raise CheckpointError(str(error)) from error
    # Names become local paths when files are fetched. `../x` in a forged commit would lead out of the folder.
    for name in commit_fields.files:
        checked_path(name, commit_url, CheckpointError)
    return Commit(
        url=url, **{field.name: getattr(commit_fields, field.name) for field in fields(commit_fields)}
    )


def is_checkpoint(url: str) -> bool:
    """Whether there is a committed checkpoint at the URL."""
    return storage.exists(storage.join(url, COMMIT))


def list_steps(run_url: str) -> list[int]:
    """Steps whose checkpoints are committed, in ascending order."""
    folder = storage.join(run_url, "checkpoints")
    steps = [int(m.group(1)) for n in storage.list_names(folder) if (m := _STEP.match(n))]
    return sorted(step for step in steps if is_checkpoint(checkpoint_url(run_url, step)))


@dataclass(frozen=True)
class ListedCheckpoint:
    """A step with a COMMIT.json, and the commit or why it could not be read."""

    step: int
    commit: Commit | None
    fault: RetfoundError | None = None
    """Why the commit could not be read."""
    generation: int = 0
    """The commit's generation. A commit that cannot be read may be the newest, so it gets the last
    generation."""

    @property
    def age(self) -> tuple[int, int]:
        """Sort key, the newest last: the generation first, then the step."""
        return self.generation, self.step


def read_commits(run_url: str, steps: Sequence[int], tolerated: ErrorTypes) -> list[ListedCheckpoint]:
    """The commits of these steps, in this order. Errors of the `tolerated` classes are returned, others
    raised."""
    if not steps:
        return []  # without starting threads: a long list of runs asks for no new commits of most runs
    # Threads, because this is only waiting: on an object store each small file costs one round trip.
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        listed = list(pool.map(partial(_read_listed, run_url, tolerated), steps))
    last = max((one.generation for one in listed), default=0)
    return [one if one.commit else replace(one, generation=last) for one in listed]


def list_commits(run_url: str, tolerated: ErrorTypes = UNUSABLE) -> list[ListedCheckpoint]:
    """Every committed checkpoint of a run, the newest last. Only this function decides which one is newer.

    Errors of the `tolerated` classes are returned with their step, others raised.
    """
    return sorted(read_commits(run_url, list_steps(run_url), tolerated), key=lambda commit: commit.age)


def _read_listed(run_url: str, tolerated: ErrorTypes, step: int) -> ListedCheckpoint:
    url = checkpoint_url(run_url, step)
    try:
        commit = read_commit(url)
        if commit.step != step:
            raise CheckpointError(
                f"{url}: its {COMMIT} is that of step {commit.step}; use another checkpoint"
            )
    except tolerated as error:
        return ListedCheckpoint(step, None, error)
    return ListedCheckpoint(step, commit, generation=commit.generation)


def resolve(url: str) -> str:
    """The URL of the weights that a URL means: for a run its newest committed checkpoint, otherwise the URL.

    CheckpointError where it is a run without a checkpoint, or another folder without weights.
    """
    if not storage.is_folder(url) or is_checkpoint(url):
        return url
    if commits := list_commits(url):
        # Even if the newest is damaged: otherwise an older one would be evaluated under the run's name
        # without notice. Reading the damaged one raises an error.
        return checkpoint_url(url, commits[-1].step)
    kind = url_kinds.kind_at(url)
    if kind == url_kinds.RUN:
        first = _first_save_clause(run_config.read_config(url))
        raise CheckpointError(
            f"{url} is a run that has no checkpoint yet{first}: wait for one, or give other weights"
        )
    raise CheckpointError(url_kinds.wrong_kind_message(url, url_kinds.WEIGHTS))


def _first_save_clause(config: dict[str, Any]) -> str:
    """A clause on when a run commits its first checkpoint; empty where its config does not tell."""
    every_steps = config.get("checkpoint", {}).get("every_steps")
    steps = [n for n in (every_steps, config["train"].get("steps"), config["train"].get("stop_at_step")) if n]
    return f"; its first is due at step {min(steps):,}" if steps else ""


def newest(run_url: str) -> Commit | None:
    """The newest commit that can be read; None where there is none."""
    return next((listed.commit for listed in reversed(list_commits(run_url)) if listed.commit), None)


def fetch(commit: Commit, name: str, target: str) -> None:
    """Copy one file of a checkpoint to a local path and check it against the commit.

    CheckpointError where it is not the file that was committed, StorageError where it cannot be read.
    """
    if name not in commit.files:
        raise CheckpointError(f"{commit.url} has no {name}; use another checkpoint")
    file_url = storage.join(commit.url, name)
    if difference := verified_files.fetch(file_url, target, commit.files[name]):
        # A save of the same step may have replaced the commit and removed the old files meanwhile. Then
        # nothing is damaged.
        if is_checkpoint(commit.url) and read_commit(commit.url) != commit:
            raise CheckpointError(f"{commit.url} was saved again while it was read: start the command again")
        raise CheckpointError(f"{file_url} differs from its commit ({difference}); use another checkpoint")


def fetch_weights(url: str, target: str) -> Commit:
    """Copy a checkpoint's weights to a local path. Returns the commit that they belong to.

    Where the step was saved again meanwhile, that is the new commit.
    """
    commit = read_commit(url)
    try:
        fetch(commit, commit.weights, target)
    except CheckpointError:
        # If the commit has changed, the step was saved again meanwhile, and its new weights are as good.
        new_commit = read_commit(url)
        if new_commit == commit:
            raise
        fetch(new_commit, new_commit.weights, target)
        return new_commit
    return commit


def leftover_names(commit: Commit, names: Sequence[str]) -> list[str]:
    """Entries of a checkpoint's folder (`names`) that a save left behind and that the commit does not
    list."""
    committed = {name.partition("/")[0] for name in commit.files}
    # A converted state is made after the commit, so no commit lists it. It is used as long as its source
    # exists.
    has_state = bool(commit.state)
    return [
        name
        for name in names
        if _SAVED_NAMES.match(name)
        and name not in committed
        and not (has_state and name.startswith(UNIVERSAL))
    ]
