"""Reads and writes a run's `summary.json`: the facts that a list of runs shows, so that it need not read
logs.

The run writes it while it trains, and `retfound watch` writes it after an evaluation. A reader compares it
with the sizes and tags of the files it was made from. It then reads only what is new: lines added to a log,
and checkpoints and evaluations that are new or were written again. Where a summary does not fit its files,
or where the run has any damage, `read` returns None. The caller then reads the whole run, which reports what
is wrong.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from retfound_dist.errors import FormatError, RecordError, RetfoundError, StorageError
from retfound_dist.formats import checkpoint_folder, log_rows, run_folder, score_files
from retfound_dist.formats.checkpoint_folder import COMMIT
from retfound_dist.io import storage
from retfound_dist.io.folder_state import FileState, file_states
from retfound_dist.records import json_reader

SUMMARY, LOCK = "summary.json", "LOCK.json"
LOGS = (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES, run_folder.ALARMS)
_FILES = frozenset((SUMMARY, LOCK, run_folder.CONFIG, *LOGS))
_FOLDERS = {"checkpoints": COMMIT, "evaluations": "metrics.json"}
_STEP_PATHS = {
    "checkpoints": re.compile(r"checkpoints/step_(\d{8,})/[^/]+"),
    "evaluations": re.compile(r"evaluations/step_(\d+)/[^/]+"),
}
_SHOWN_SCORES = ("auroc",)
"""Macro scores that a list shows."""
# A run and a `retfound watch` write it without a lock: each writes a whole new file, and each reader compares
# it with the logs. If both write at the same time, the summary may be a little old.
Row = dict[str, Any]


@dataclass(frozen=True)
class ReadPosition:
    """How far a log was read."""

    bytes: int = 0
    last: int = 0
    """crc32 of the last line that was read. It shows whether this is still the same log."""
    length: int = 0
    """Bytes of that line."""
    tag: str = ""
    """The store's tag of the file at that time."""


@dataclass(frozen=True)
class ScoredEvaluation:
    """The part of an evaluation that a list shows."""

    step: int
    mark: FileState
    macro: dict[str, float | None]


@dataclass(frozen=True)
class CommittedStep:
    """A committed checkpoint."""

    step: int
    mark: FileState
    """The state of its COMMIT.json when it was read."""
    generation: int


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The content of summary.json."""

    format: Literal[1] = 1
    config: Row
    config_mark: FileState
    read: dict[str, ReadPosition] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    """By step: the last logged step, the last one with an epoch, and the last one with a held-out loss."""
    events: list[Row] = field(default_factory=list)
    """The last start or end, and the last event of any kind."""
    alarms: list[Row] = field(default_factory=list)
    commits: list[CommittedStep] = field(default_factory=list)
    """In ascending order of steps."""
    scores: dict[str, ScoredEvaluation] = field(default_factory=dict)
    """Path below the run -> a committed evaluation."""
    locked: bool = False

    @property
    def checkpoints(self) -> list[int]:
        """Committed steps, the newest checkpoint's last."""
        # By `ListedCheckpoint.age`, so that a list and a resume agree on which checkpoint is the newest.
        commits = [
            checkpoint_folder.ListedCheckpoint(commit.step, None, generation=commit.generation)
            for commit in self.commits
        ]
        return [commit.step for commit in sorted(commits, key=lambda commit: commit.age)]


def read(url: str) -> RunSummary | None:
    """The run's summary, brought up to date; None where there is none, or it cannot be trusted."""
    marks = file_states(url, _FILES, _FOLDERS)
    if SUMMARY not in marks:
        return None
    stored = _read_stored(url)
    return _up_to_date(url, stored, marks) if stored else None


def damage_text(url: str) -> str:
    """A sentence on how the run's summary is damaged; empty where it is valid, missing or of a later
    version."""
    where = storage.join(url, SUMMARY)
    try:
        if storage.exists(where):
            json_reader.read(where, RunSummary, "all logs are read instead; delete this file")
    except (FormatError, StorageError):
        pass
    except RecordError as error:
        return str(error)
    return ""


def refresh(url: str) -> None:
    """Update the run's summary, or delete it where the run has damage. Only new parts of its logs are
    read."""
    # Errors of the store are ignored: without a summary a reader only takes longer, and a run must not stop.
    with suppress(StorageError, OSError):
        # Sizes and tags are read before the files. So the next reader reads a line again that is added in
        # between. Otherwise that line would count as read and be missing for ever.
        marks = file_states(url, _FILES, _FOLDERS)
        stored = (_read_stored(url) if SUMMARY in marks else None) or RunSummary(
            config={}, config_mark=FileState(0, "")
        )
        updated = _up_to_date(url, stored, marks)
        if updated is None and SUMMARY in marks:
            storage.delete(storage.join(url, SUMMARY))
        elif updated is not None:
            storage.write_json(storage.join(url, SUMMARY), asdict(updated))


def _read_stored(url: str) -> RunSummary | None:
    """The summary that is stored with a run; None where there is none or it cannot be read."""
    try:
        return json_reader.read(storage.join(url, SUMMARY), RunSummary, "")
    except (RecordError, StorageError):
        return None


def _config(url: str, stored: RunSummary, mark: FileState | None) -> Row | None:
    """The run's config, read only where the file has changed; None where it is missing or damaged."""
    if mark is None:
        return None
    try:
        return stored.config if mark == stored.config_mark else dict(run_folder.read_config(url, remedy=""))
    except (StorageError, RecordError):
        return None


def _steps(folder: str, paths: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The paths of files of steps in one of the run's folders, each with its step."""
    for path in paths:
        # Most paths are of other folders, and a pattern is slower than a comparison.
        if path.startswith(folder) and (match := _STEP_PATHS[folder].fullmatch(path)):
            yield path, int(match[1])


def _commits(
    url: str, stored: Sequence[CommittedStep], marks: Mapping[str, FileState]
) -> list[CommittedStep] | None:
    """Every commit in the run's folder, read only where its file has changed; None where one is damaged."""
    current = {step: marks[path] for path, step in _steps("checkpoints", marks)}
    commits = {commit.step: commit for commit in stored if current.get(commit.step) == commit.mark}
    try:
        new = checkpoint_folder.read_commits(url, sorted(current.keys() - commits.keys()), tolerated=())
    except RetfoundError:
        return None
    commits |= {
        commit.step: CommittedStep(commit.step, current[commit.step], commit.generation) for commit in new
    }
    return [commits[step] for step in sorted(commits)]


def _up_to_date(url: str, stored: RunSummary, marks: Mapping[str, FileState]) -> RunSummary | None:
    """The summary with everything that was written since.

    None where a log is not the one that was read before, or anything is damaged.
    """
    if _known_marks(stored) == {path: mark for path, mark in marks.items() if path not in (SUMMARY, LOCK)}:
        return stored if stored.locked == (LOCK in marks) else replace(stored, locked=LOCK in marks)
    config = _config(url, stored, marks.get(run_folder.CONFIG))
    scores, commits = _scores(url, stored.scores, marks), _commits(url, stored.commits, marks)
    if config is None or scores is None or commits is None:
        return None
    positions, new_rows = {}, {}
    for name in LOGS:
        added = _read_added(url, name, stored.read.get(name, ReadPosition()), marks.get(name))
        if added is None:
            return None
        positions[name], new_rows[name] = added
    return RunSummary(
        config=config,
        config_mark=marks[run_folder.CONFIG],
        read=positions,
        rows=_last_rows([*stored.rows, *new_rows[run_folder.METRICS]]),
        events=_last_events([*stored.events, *new_rows[run_folder.EVENTS]]),
        alarms=[*stored.alarms, *new_rows[run_folder.ALARMS]],
        commits=commits,
        scores=scores,
        locked=LOCK in marks,
    )


def _known_marks(stored: RunSummary) -> dict[str, FileState]:
    """The states of all files that a summary was made from, by path."""
    logs = {name: FileState(read.bytes, read.tag) for name, read in stored.read.items() if read.tag}
    commits = {
        f"{checkpoint_folder.checkpoint_url('', commit.step)}/{COMMIT}": commit.mark
        for commit in stored.commits
    }
    scores = {path: scored.mark for path, scored in stored.scores.items()}
    return {run_folder.CONFIG: stored.config_mark, **logs, **commits, **scores}


def _read_added(
    url: str, name: str, before: ReadPosition, mark: FileState | None
) -> tuple[ReadPosition, list[Row]] | None:
    """The new position in a log, and the rows since the old one; None where it is another log or damaged."""
    size, tag = (mark.bytes, mark.tag) if mark else (0, "")
    if size == before.bytes and tag == before.tag:
        return before, []
    # From the beginning of the last line that was read: its checksum shows whether this is still the same
    # log.
    begin = before.bytes - before.length
    data = storage.read_range(storage.join(url, name), begin, size) if size > begin else b""
    if zlib.crc32(data[: before.length]) != before.last:
        return None
    # Only up to the last line end: the rest is still being written, and is read the next time.
    lines = data[before.length : data.rfind(b"\n") + 1].splitlines(keepends=True)
    if not lines:
        return replace(before, tag=tag), []
    parsed = json_reader.parse_lines(b"".join(lines), log_rows.KINDS[name], name)
    if parsed.bad or parsed.unread_reason:
        return None
    last = lines[-1]
    position = ReadPosition(before.bytes + sum(map(len, lines)), zlib.crc32(last), len(last), tag)
    return position, [dict(row) for row in parsed.rows]


def _last_rows(rows: Sequence[Row]) -> list[Row]:
    """The last row, the last one with an epoch and the last one with a held-out loss, in order of steps."""
    rows = log_rows.each_step_once(list(rows))
    selected: dict[Any, Row] = {}
    for key in (None, "epoch", "held_out_loss"):
        row = next((row for row in reversed(rows) if key is None or row.get(key)), None)
        if row is not None:
            selected[row["step"]] = row
    return [selected[step] for step in sorted(selected)]


def _last_events(events: Sequence[Row]) -> list[Row]:
    start_or_end = next((e for e in reversed(events) if e["event"] in ("start", "end")), None)
    last = list(events[-1:])
    return last if start_or_end is None or start_or_end is events[-1] else [start_or_end, *last]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _scores(
    url: str, stored: Mapping[str, ScoredEvaluation], marks: Mapping[str, FileState]
) -> dict[str, ScoredEvaluation] | None:
    """Every evaluation in the run's folder, read only where its file has changed; None where one is
    damaged."""
    scores = {}
    for path, step in _steps("evaluations", marks):
        mark = marks[path]
        if (stored_score := stored.get(path)) is not None and stored_score.mark == mark:
            scores[path] = stored_score
            continue
        try:
            macro = json_reader.read(storage.join(url, path), score_files.ScoreFile, "")["macro"]
            scores[path] = ScoredEvaluation(
                step, mark, {name: _number(macro.get(name)) for name in _SHOWN_SCORES}
            )
        except (StorageError, RecordError):
            return None
    return scores
