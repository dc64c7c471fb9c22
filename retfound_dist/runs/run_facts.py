"""Reads a run from its folder: only what is committed.

Files that cannot be read are left out and reported. They are never an error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from retfound_dist.errors import ConfigError, RecordError, RetfoundError, StorageError
from retfound_dist.formats import checkpoint_folder, run_folder, run_summary, url_kinds
from retfound_dist.formats.content_identity import NON_SETTINGS
from retfound_dist.formats.log_rows import Row, each_step_once
from retfound_dist.formats.log_rows import read_log as read_lines
from retfound_dist.formats.score_files import ScoreFile, WatchFile
from retfound_dist.io import storage
from retfound_dist.records import json_reader

T = TypeVar("T")
SILENT_S = 300.0
"""A run without a sign of life for this many seconds, and for three logged intervals, is `silent`."""
SCORE = "auroc"
"""The macro score that ranks evaluations."""
LOCK = "LOCK.json"
"""The lock file of `train/health/run_lock.py`. It exists while a process owns the run."""


@dataclass(frozen=True)
class Score:
    """The evaluation of one checkpoint."""

    step: int
    metrics: dict[str, Any]
    """The content of its metrics.json."""

    def value(self, name: str = SCORE) -> float | None:
        """A macro score, or None where it was not computed."""
        score = self.metrics["macro"].get(name)
        return None if score is None else float(score)

    def interval(self, name: str = SCORE) -> Sequence[float] | None:
        """The 95 % interval of a macro score."""
        interval: Sequence[float] | None = self.metrics.get("ci95", {}).get("macro", {}).get(name)
        return interval


@dataclass(frozen=True)
class RunFacts:
    """One run, as its folder shows it."""

    url: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    """metrics.jsonl, each step once."""
    all_rows: list[dict[str, Any]]
    """metrics.jsonl with every row, also of steps that were repeated after a restart."""
    events: list[dict[str, Any]]
    anomalies: list[dict[str, Any]]
    """Each once, also where its step was repeated."""
    checkpoints: list[int]
    """Committed steps. The newest checkpoint is last; it is the highest, unless the run went back."""
    scores: list[Score]
    alarms: list[dict[str, Any]]
    """The alarms of `retfound watch`."""
    watch_history: dict[str, Any]
    """watch.json; empty where `retfound watch` has not evaluated the run yet."""
    locked: bool
    read_at: float
    """When the folder was read, in unix seconds."""
    read_faults: list[str] = field(default_factory=list)
    """Sentences about files or lines of files that cannot be used."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return storage.name(self.url)

    @property
    def settings(self) -> dict[str, Any]:
        """The config as the user gave it, without what the run stores beside it."""
        return {name: section for name, section in self.config.items() if name not in NON_SETTINGS}

    @property
    def step(self) -> int:
        """The last logged step."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def total_steps(self) -> int | None:
        """Length of the schedule; None where it is set in epochs and nothing is logged yet."""
        train = self.config["train"]
        if train.get("steps"):
            return int(train["steps"])
        row = next((row for row in reversed(self.rows) if row["epoch"] > 0), None)
        return None if row is None else max(1, round(train.get("epochs", 0) * row["step"] / row["epoch"]))

    @property
    def last_activity(self) -> float:
        """Time of the last row or event, in unix seconds; 0 where there is none."""
        times = [float(row["time"]) for row in (*self.rows[-1:], *self.events[-1:]) if "time" in row]
        return max(times, default=0.0)

    @property
    def state(self) -> str:
        """`not started`, `starting`, `running`, `silent`, `stopped`, `failed` or `finished`."""
        last = next((e for e in reversed(self.events) if e["event"] in ("start", "end")), None)
        # The checkpoint of the last step proves it: an `end` event can be lost with its process.
        if self.total_steps and self.checkpoints[-1:] == [self.total_steps]:
            return "finished"
        if last is None:
            return "starting" if self.locked else "not started"
        if last["event"] == "end":
            return "finished" if last["reason"] == "finished" else "stopped"
        if not self.locked:
            return "failed"
        # A run with long steps that logs rarely is not silent between two rows of its log.
        interval_s = self.rows[-1]["step_s"] * self.config["train"].get("log_every", 1) if self.rows else 0.0
        silent_s = self.read_at - self.last_activity
        return "running" if silent_s < max(SILENT_S, 3 * interval_s) else "silent"

    @property
    def held_out_losses(self) -> list[tuple[int, float]]:
        """(step, loss) on the held-out images."""
        return [(r["step"], r["held_out_loss"]) for r in self.rows if r.get("held_out_loss") is not None]

    @property
    def best_score(self) -> Score | None:
        """The evaluation with the highest score."""
        scored = [score for score in self.scores if score.value() is not None]
        return max(scored, key=lambda score: score.value() or 0.0, default=None)

    @cached_property
    def list_values(self) -> dict[str, Any]:
        """The run's row in a list of runs, as plain values."""
        last, best, losses = self.rows[-1] if self.rows else {}, self.best_score, self.held_out_losses
        return {
            "url": self.url,
            "name": self.name,
            "state": self.state,
            "step": self.step,
            "steps": self.total_steps,
            "loss": last.get("loss_mean") or last.get("loss"),
            "held_out_loss": losses[-1][1] if losses else None,
            "images_per_s": last.get("images_per_s"),
            "world_size": last.get("world_size"),
            "checkpoint": self.checkpoints[-1] if self.checkpoints else None,
            "best": {"score": SCORE, "value": best.value(), "step": best.step} if best else None,
            "alarms": [row["message"] for row in self.alarms],
            "seen": self.last_activity,
        }


def read_run(url: str) -> RunFacts:
    """Reads the whole folder of a run; ConfigError where there is no run."""
    config = _config(url)
    names = (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES, run_folder.ALARMS)
    logs = {name: read_log(url, name) for name in names}
    watch_history, watch_fault = read_run_file(url, run_folder.WATCH, WatchFile)
    checkpoints, commit_faults = _checkpoints(url)
    scores, score_faults = _scores(url)
    faults = [*(fault for _, fault in logs.values()), watch_fault, *commit_faults, *score_faults]
    all_rows = logs[run_folder.METRICS][0]
    return RunFacts(
        url=url,
        config=config,
        rows=each_step_once(all_rows),
        all_rows=all_rows,
        events=logs[run_folder.EVENTS][0],
        anomalies=list({(a["step"], a["kind"]): a for a in logs[run_folder.ANOMALIES][0]}.values()),
        checkpoints=checkpoints,
        scores=scores,
        alarms=logs[run_folder.ALARMS][0],
        watch_history=dict(watch_history or {}),
        locked=storage.exists(storage.join(url, LOCK)),
        read_at=time.time(),
        read_faults=[fault for fault in faults if fault],
    )


def read_run_overview(url: str) -> RunFacts:
    """Reads what a list shows of a run: from its summary file, else from the whole folder."""
    # The summary is one file. A whole run takes several listings and files, each a round trip to the store.
    overview = run_summary.read(url)
    if overview is None:
        run, fault = read_run(url), run_summary.damage_text(url)
        return replace(run, read_faults=[*run.read_faults, fault]) if fault else run
    return RunFacts(
        url=url,
        config=overview.config,
        rows=overview.rows,
        all_rows=overview.rows,
        events=overview.events,
        anomalies=[],
        checkpoints=overview.checkpoints,
        scores=[Score(scored.step, {"macro": scored.macro}) for scored in overview.scores.values()],
        alarms=overview.alarms,
        watch_history={},
        locked=overview.locked,
        read_at=time.time(),
    )


def _config(url: str) -> dict[str, Any]:
    """The run's config; the ConfigError says what is at the URL instead of a run."""
    try:
        return run_folder.read_config(url, remedy="")
    except (StorageError, RecordError) as error:
        has_config = storage.is_folder(url) and storage.exists(storage.join(url, run_folder.CONFIG))
        text = url_kinds.wrong_kind_message(url, url_kinds.RUN)
        raise ConfigError(f"{text} ({error})" if has_config else text) from error


def _checkpoints(url: str) -> tuple[list[int], list[str]]:
    """Committed steps by age up to the newest readable checkpoint, and a line about each later one."""
    checkpoints, faults = checkpoint_folder.list_commits(url, (RetfoundError,)), list[str]()
    # Only damaged checkpoints after that are reported: the run cannot continue from them. Older ones do not
    # matter to it.
    while checkpoints and checkpoints[-1].commit is None:
        damaged = checkpoints.pop()
        reason = str(damaged.fault).replace(f"{url}/", "")
        faults.append(f"the checkpoint of step {damaged.step:,} is left out: {reason}")
    return [checkpoint.step for checkpoint in checkpoints], faults


def _scores(url: str) -> tuple[list[Score], list[str]]:
    """The evaluations of the run's checkpoints, and a line about each that cannot be used."""
    scores, faults = [], []
    folder = storage.join(url, "evaluations")
    for name in storage.list_names(folder):
        step = name.removeprefix("step_")
        if not name.startswith("step_") or not step.isdecimal():
            continue
        metrics, fault = read_run_file(folder, f"{name}/metrics.json", ScoreFile)
        if metrics:
            scores.append(Score(int(step), dict(metrics)))
        if fault:
            faults.append(f"evaluations/{fault}")
    return scores, faults


def read_log(url: str, name: str) -> tuple[list[Row], str]:
    """The usable rows of one of a run's logs, and a line about the others; empty where all are usable."""
    try:
        log = read_lines(url, name)
    except StorageError as error:
        return [], f"{name} cannot be read: {error}"
    return log.rows, replace(log, where=name).fault


def read_run_file(url: str, name: str, kind: type[T]) -> tuple[T | None, str]:
    """A JSON file of a run as `kind`, and why it is left out; (None, "") where there is no such file."""
    file_url = storage.join(url, name)
    try:
        return (json_reader.read(file_url, kind, "it is left out") if storage.exists(file_url) else None), ""
    except RetfoundError as error:
        # The page or list names the run already, so the file's name is enough.
        return None, str(error).replace(file_url, name, 1)
