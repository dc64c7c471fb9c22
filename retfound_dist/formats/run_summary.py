"""`summary.json` of a run: what a list of runs shows of it, so that a list of thousands reads no logs.

The run writes it as it goes, `retfound watch` after an evaluation. Whoever reads it checks it against what
the store says of the files it was made from: lines that a log has gained since are read, checkpoints and
evaluations that are new or were written again too. A summary that does not fit its files, and a run with
damage of any kind, is left to the reader of whole runs, which says what is wrong.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from retfound_dist.errors import FormatError, RecordError, RetfoundError, StorageError
from retfound_dist.formats import checkpoint_folder, log_rows, run_folder, score_files
from retfound_dist.formats.checkpoint_folder import COMMIT
from retfound_dist.io import storage
from retfound_dist.io.folder_state import FileState, marks_of
from retfound_dist.records import json_reader

SUMMARY, LOCK = "summary.json", "LOCK.json"
LOGS = (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES, run_folder.ALARMS)
_FILES = frozenset((SUMMARY, LOCK, run_folder.CONFIG, *LOGS))
_FOLDERS = {"checkpoints": COMMIT, "evaluations": "metrics.json"}
_STEP = re.compile(r"(evaluations)/step_(\d+)/[^/]+")
_COMMIT = re.compile(r"(checkpoints)/step_(\d{8,})/[^/]+")
_SHOWN = ("auroc",)
"""Macro scores that a list shows."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """How far a log was read."""

    bytes: int = 0
    last: int = 0
    """crc32 of the last line."""
    length: int = 0
    """Bytes of the last line."""
    tag: str = ""
    """What the store said of the file then."""


@dataclass(frozen=True)
class ScoredEvaluation:
    """An evaluation, as far as a list shows it."""

    step: int
    mark: FileState
    macro: dict[str, float | None]


@dataclass(frozen=True)
class CommittedStep:
    """A checkpoint whose commit was read."""

    step: int
    mark: FileState
    """Of the commit."""
    generation: int


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run."""

    format: Literal[1] = 1
    config: Row
    config_mark: FileState
    read: dict[str, Read] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    """The last logged step with an epoch, the last with a held-out loss, and the last, by step."""
    events: list[Row] = field(default_factory=list)
    """The last start or end, and the last of any kind."""
    alarms: list[Row] = field(default_factory=list)
    commits: list[CommittedStep] = field(default_factory=list)
    """By rising step."""
    scores: dict[str, ScoredEvaluation] = field(default_factory=dict)
    """By path; of committed evaluations."""
    locked: bool = False

    @property
    def checkpoints(self) -> list[int]:
        """Steps that are committed, the newest checkpoint's last."""
        found = [
            checkpoint_folder.Found(each.step, None, generation=each.generation) for each in self.commits
        ]
        return [each.step for each in sorted(found, key=lambda each: each.age)]


def read(url: str) -> RunSummary | None:
    """The run's summary, brought up to date; None where it has none, or none that can be trusted."""
    marks = marks_of(url, _FILES, _FOLDERS)
    if SUMMARY not in marks:
        return None
    held = _held(url)
    return _up_to_date(url, held, marks) if held else None


def damage(url: str) -> str:
    """A sentence where the run's summary is damaged; empty where it is sound, of a later version or none."""
    where = storage.join(url, SUMMARY)
    try:
        if storage.exists(where):
            json_reader.read(where, RunSummary, "all logs are read instead: remove this file")
    except (FormatError, StorageError):
        pass
    except RecordError as error:
        return str(error)
    return ""


def refresh(url: str) -> None:
    """Write the run's summary anew; of its logs only what was added is read. Nothing where there is damage.

    Whoever cannot write it has no summary, which costs a reader time and nothing else.
    """
    with suppress(StorageError, OSError):
        marks = marks_of(url, _FILES, _FOLDERS)
        held = (_held(url) if SUMMARY in marks else None) or RunSummary(
            config={}, config_mark=FileState(0, "")
        )
        now = _up_to_date(url, held, marks)
        if now is None and SUMMARY in marks:
            storage.delete(storage.join(url, SUMMARY))
        elif now is not None:
            storage.write_json(storage.join(url, SUMMARY), asdict(now))


def _held(url: str) -> RunSummary | None:
    try:
        return json_reader.read(storage.join(url, SUMMARY), RunSummary, "")
    except (RecordError, StorageError):
        return None


def _config(url: str, held: RunSummary, mark: FileState | None) -> Row | None:
    """The run's config, read again where it was written again; None where there is none, or damage."""
    if mark is None:
        return None
    try:
        return held.config if mark == held.config_mark else dict(run_folder.read_config(url, remedy=""))
    except (StorageError, RecordError):
        return None


def _commits(
    url: str, held: Sequence[CommittedStep], marks: Mapping[str, FileState]
) -> list[CommittedStep] | None:
    """Every commit that is there; one whose file is the same is not read again. None: damage."""
    there = {int(m[2]): mark for path, mark in marks.items() if (m := _COMMIT.fullmatch(path))}
    known = {each.step: each for each in held if there.get(each.step) == each.mark}
    try:
        read = checkpoint_folder.read_commits(url, sorted(there.keys() - known.keys()), tolerated=())
    except RetfoundError:
        return None
    known |= {each.step: CommittedStep(each.step, there[each.step], each.generation) for each in read}
    return [known[step] for step in sorted(known)]


def _up_to_date(url: str, held: RunSummary, marks: Mapping[str, FileState]) -> RunSummary | None:
    """With what was written since; None where a log is not the one that was read, or anything is damaged."""
    config = _config(url, held, marks.get(run_folder.CONFIG))
    scores, commits = _scores(url, held.scores, marks), _commits(url, held.commits, marks)
    if config is None or scores is None or commits is None:
        return None
    how_far, fresh = {}, {}
    for name in LOGS:
        found = _added(url, name, held.read.get(name, Read()), marks.get(name))
        if found is None:
            return None
        how_far[name], fresh[name] = found
    return RunSummary(
        config=config,
        config_mark=marks[run_folder.CONFIG],
        read=how_far,
        rows=_kept_rows([*held.rows, *fresh[run_folder.METRICS]]),
        events=_kept_events([*held.events, *fresh[run_folder.EVENTS]]),
        alarms=[*held.alarms, *fresh[run_folder.ALARMS]],
        commits=commits,
        scores=scores,
        locked=LOCK in marks,
    )


def _added(url: str, name: str, before: Read, mark: FileState | None) -> tuple[Read, list[Row]] | None:
    """How far a log is read now, and its new lines; None where it is another log or holds damage."""
    size, tag = (mark.bytes, mark.tag) if mark else (0, "")
    if size == before.bytes and tag == before.tag:
        return before, []
    begin = before.bytes - before.length
    data = storage.read_range(storage.join(url, name), begin, size) if size > begin else b""
    if zlib.crc32(data[: before.length]) != before.last:
        return None
    lines = data[before.length : data.rfind(b"\n") + 1].splitlines(keepends=True)
    if not lines:
        return replace(before, tag=tag), []
    found = json_reader.parse_lines(b"".join(lines), log_rows.KINDS[name], name)
    if found.bad or found.unread:
        return None
    last = lines[-1]
    far = Read(before.bytes + sum(map(len, lines)), zlib.crc32(last), len(last), tag)
    return far, [dict(row) for row in found.rows]


def _kept_rows(rows: Sequence[Row]) -> list[Row]:
    """Of each step the later row; then the last, the last with an epoch, the last held out."""
    steps = {row["step"]: row for row in rows}
    rising = [steps[step] for step in sorted(steps)]
    kept: dict[Any, Row] = {}
    for names in ((), ("epoch",), ("held_out_loss",)):
        found = next((row for row in reversed(rising) if all(row.get(name) for name in names)), None)
        if found is not None:
            kept[found["step"]] = found
    return [kept[step] for step in sorted(kept)]


def _kept_events(events: Sequence[Row]) -> list[Row]:
    turn = next((e for e in reversed(events) if e["event"] in ("start", "end")), None)
    last = list(events[-1:])
    return last if turn is None or turn is events[-1] else [turn, *last]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _scores(
    url: str, held: Mapping[str, ScoredEvaluation], marks: Mapping[str, FileState]
) -> dict[str, ScoredEvaluation] | None:
    """Every evaluation that is there; one whose file is the same is not read again. None: damage."""
    found = {}
    for path, mark in marks.items():
        if not (step := _STEP.fullmatch(path)):
            continue
        if (known := held.get(path)) is not None and known.mark == mark:
            found[path] = known
            continue
        try:
            macro = json_reader.read(storage.join(url, path), score_files.ScoreFile, "")["macro"]
            found[path] = ScoredEvaluation(
                int(step[2]), mark, {name: _number(macro.get(name)) for name in _SHOWN}
            )
        except (StorageError, RecordError):
            return None
    return found
