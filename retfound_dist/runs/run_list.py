"""Reads a run from its folder, and lists all runs below a URL (`retfound runs`).

Reads only what is committed.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retfound_dist.config.loading import flatten
from retfound_dist.errors import ConfigError, RecordError, RetfoundError, StorageError
from retfound_dist.files.untrusted_text import plain
from retfound_dist.formats import checkpoint_folder, run_folder, run_summary, url_kinds
from retfound_dist.formats.content_identity import NON_SETTINGS, SHARD_SET
from retfound_dist.formats.log_rows import each_step_once
from retfound_dist.formats.score_files import ScoreFile, WatchFile
from retfound_dist.io import storage
from retfound_dist.runs.long_lists import (
    MANY,
    Progress,
    Tick,
    plain_line,
    plain_table,
    read_each,
    texts,
)
from retfound_dist.runs.readable_logs import read_log, read_part
from retfound_dist.runs.run_search import Fault, search_runs

SILENT_S = 300.0
"""A run without a sign of life for so long, and for three logged intervals, is called silent."""
SCORE = "auroc"
"""The macro score by which evaluations are ranked."""
LOCK = "LOCK.json"
"""`train/health/run_lock.py`'s: there while a process has the run."""
DAMAGED = "damaged"
"""State of a run whose folder cannot be read as one."""


@dataclass(frozen=True)
class Score:
    """One evaluation of a checkpoint."""

    step: int
    metrics: dict[str, Any]
    """Its metrics.json."""

    def value(self, name: str = SCORE) -> float | None:
        """A macro score."""
        score = self.metrics["macro"].get(name)
        return None if score is None else float(score)

    def interval(self, name: str = SCORE) -> Sequence[float] | None:
        """Its 95 % interval."""
        interval: Sequence[float] | None = self.metrics.get("ci95", {}).get("macro", {}).get(name)
        return interval


@dataclass(frozen=True)
class RunFacts:
    """One run."""

    url: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    """metrics.jsonl, each step once."""
    written: list[dict[str, Any]]
    """metrics.jsonl as it was written, with what was done twice."""
    events: list[dict[str, Any]]
    anomalies: list[dict[str, Any]]
    """Each once, also of steps that were done again."""
    checkpoints: list[int]
    """Steps that are committed, the newest checkpoint's last: the highest, but in a run that went back."""
    scores: list[Score]
    alarms: list[dict[str, Any]]
    """Of `retfound watch`."""
    watch: dict[str, Any]
    """Its history (watch.json); empty where it has not looked yet."""
    locked: bool
    now: float
    """When it was read, unix seconds."""
    left_out: list[str] = field(default_factory=list)
    """Sentences about what of its files cannot be used."""

    @property
    def name(self) -> str:
        """The folder's."""
        return storage.name(self.url)

    @property
    def settings(self) -> dict[str, Any]:
        """The config as it was given, without what the run keeps beside it."""
        return {name: section for name, section in self.config.items() if name not in NON_SETTINGS}

    @property
    def step(self) -> int:
        """The last one logged."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def steps(self) -> int | None:
        """Length of the schedule; None where epochs are set and nothing is logged yet."""
        train = self.config["train"]
        if train.get("steps"):
            return int(train["steps"])
        row = next((row for row in reversed(self.rows) if row["epoch"] > 0), None)
        return None if row is None else max(1, round(train.get("epochs", 0) * row["step"] / row["epoch"]))

    @property
    def seen(self) -> float:
        """The last sign of life, unix seconds; 0: none."""
        times = [float(row["time"]) for row in (*self.rows[-1:], *self.events[-1:]) if "time" in row]
        return max(times, default=0.0)

    @property
    def state(self) -> str:
        """`finished`, `stopped`, `running`, `silent`, `failed` or `not started`."""
        last = next((e for e in reversed(self.events) if e["event"] in ("start", "end")), None)
        # The checkpoint of the last step proves it: an `end` event can be lost with its process.
        if self.steps and self.checkpoints[-1:] == [self.steps]:
            return "finished"
        if last is None:
            return "starting" if self.locked else "not started"
        if last["event"] == "end":
            return "finished" if last["reason"] == "finished" else "stopped"
        if not self.locked:
            return "failed"
        # A run of long steps that logs rarely is not silent between two lines of its log.
        every = self.rows[-1]["step_s"] * self.config["train"].get("log_every", 1) if self.rows else 0.0
        return "running" if self.now - self.seen < max(SILENT_S, 3 * every) else "silent"

    @property
    def held_out(self) -> list[tuple[int, float]]:
        """(step, loss) on the held-out images."""
        return [(r["step"], r["held_out_loss"]) for r in self.rows if r.get("held_out_loss") is not None]

    @property
    def best(self) -> Score | None:
        """The evaluation with the highest score."""
        known = [score for score in self.scores if score.value() is not None]
        return max(known, key=lambda score: score.value() or 0.0, default=None)


def read_run(url: str) -> RunFacts:
    """All that a run's folder says; ConfigError where there is none. What cannot be used is `left_out`."""
    config = _config(url)
    names = (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES, run_folder.ALARMS)
    logs = {name: read_log(url, name) for name in names}
    watch, watch_fault = read_part(url, run_folder.WATCH, WatchFile)
    checkpoints, commit_faults = _checkpoints(url)
    scores, score_faults = _scores(url)
    faults = [*(fault for _, fault in logs.values()), watch_fault, *commit_faults, *score_faults]
    written = logs[run_folder.METRICS][0]
    return RunFacts(
        url=url,
        config=config,
        rows=each_step_once(written),
        written=written,
        events=logs[run_folder.EVENTS][0],
        anomalies=list({(a["step"], a["kind"]): a for a in logs[run_folder.ANOMALIES][0]}.values()),
        checkpoints=checkpoints,
        scores=scores,
        alarms=logs[run_folder.ALARMS][0],
        watch=dict(watch or {}),
        locked=storage.exists(storage.join(url, LOCK)),
        now=time.time(),
        left_out=[text for text in faults if text],
    )


def read_brief(url: str) -> RunFacts:
    """A run as far as a list shows it: by its summary, else all of it."""
    # The summary is one file. A whole run takes several listings and files, each a round trip to the store.
    summarized = run_summary.read(url)
    if summarized is None:
        whole, fault = read_run(url), run_summary.damage(url)
        return replace(whole, left_out=[*whole.left_out, fault]) if fault else whole
    return RunFacts(
        url=url,
        config=summarized.config,
        rows=summarized.rows,
        written=summarized.rows,
        events=summarized.events,
        anomalies=[],
        checkpoints=summarized.checkpoints,
        scores=[Score(scored.step, {"macro": scored.macro}) for scored in summarized.scores.values()],
        alarms=summarized.alarms,
        watch={},
        locked=summarized.locked,
        now=time.time(),
    )


def _config(url: str) -> dict[str, Any]:
    """The run's config; ConfigError says what stands there instead of a run."""
    try:
        return run_folder.read_config(url, remedy="")
    except (StorageError, RecordError) as error:
        has_config = storage.is_folder(url) and storage.exists(storage.join(url, run_folder.CONFIG))
        text = url_kinds.refusal(url, url_kinds.RUN)
        raise ConfigError(f"{text} ({error})" if has_config else text) from error


def _checkpoints(url: str) -> tuple[list[int], list[str]]:
    """Steps of the committed checkpoints by age up to the newest readable one; a line on each later one."""
    checkpoints, faults = checkpoint_folder.list_commits(url, (RetfoundError,)), list[str]()
    # Later damaged checkpoints are told: the run cannot go on from them. Older ones do not matter for it.
    while checkpoints and checkpoints[-1].held is None:
        bad = checkpoints.pop()
        reason = str(bad.fault).replace(f"{url}/", "")
        faults.append(f"the checkpoint of step {bad.step:,} is left out: {reason}")
    return [checkpoint.step for checkpoint in checkpoints], faults


def _scores(url: str) -> tuple[list[Score], list[str]]:
    """The evaluations of the run's checkpoints, and a sentence about each that cannot be used."""
    scores, faults = [], []
    folder = storage.join(url, "evaluations")
    for name in storage.list_names(folder):
        step = name.removeprefix("step_")
        if not name.startswith("step_") or not step.isdecimal():
            continue
        tree, fault = read_part(folder, f"{name}/metrics.json", ScoreFile)
        if tree:
            scores.append(Score(int(step), dict(tree)))
        if fault:
            faults.append(f"evaluations/{fault}")
    return scores, faults


def config_differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By run: the keys in which it is not as more than half of all runs; how a run is carried out left out.

    Where no value has more than half, every run shows its own. A shard set at several URLs is one.
    """
    first: dict[str, Mapping[str, Any]] = {}
    flat = {name: _with_one_url(tree, first) for name, tree in configs.items()}
    keys = sorted(
        {key for values in flat.values() for key in values if not key.startswith(run_folder.CHANGEABLE_KEYS)}
    )
    known: dict[Any, str] = {}
    written = {name: texts({key: values.get(key) for key in keys}, known) for name, values in flat.items()}
    usual = {}
    for key in keys:
        value, count = Counter(values[key] for values in written.values()).most_common(1)[0]
        usual[key] = value if 2 * count > len(flat) else None
    return {
        name: {key: values.get(key) for key in keys if written[name][key] != usual[key]}
        for name, values in flat.items()
    }


def _with_one_url(tree: Mapping[str, Any], first: dict[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of a run by key; its shard set by the URL that the first run on that set gives it.

    `first`: of each set, what the first run on it says of where the set is.
    """
    values = {key: value for key, value in flatten(tree) if key.split(".")[0] not in NON_SETTINGS}
    if shard_set := tree.get(SHARD_SET):
        data_settings = {key: value for key, value in values.items() if key in run_folder.DATA}
        values |= first.setdefault(json.dumps(shard_set, sort_keys=True), data_settings)
    return values


def summary(run: RunFacts) -> dict[str, Any]:
    """One line of the list as plain values."""
    last, best = run.rows[-1] if run.rows else {}, run.best
    return {
        "url": run.url,
        "name": run.name,
        "state": run.state,
        "step": run.step,
        "steps": run.steps,
        "loss": last.get("loss_mean") or last.get("loss"),
        "held_out_loss": run.held_out[-1][1] if run.held_out else None,
        "images_per_s": last.get("images_per_s"),
        "world_size": last.get("world_size"),
        "checkpoint": run.checkpoints[-1] if run.checkpoints else None,
        "best": {"score": SCORE, "value": best.value(), "step": best.step} if best else None,
        "alarms": [row["message"] for row in run.alarms],
        "seen": run.seen,
    }


def read_all(url: str, tick: Tick | None = None) -> tuple[list[RunFacts], list[Fault]]:
    """Every run below a URL, as far as a list shows it, and the folders that cannot be shown."""
    looked = search_runs(url)
    runs, faults = list[RunFacts](), list(looked.others)
    for run_url, run in zip(looked.runs, read_each(looked.runs, _shown, tick), strict=True):
        if isinstance(run, Exception):
            faults.append(Fault(run_url, f"cannot be shown: {fault_text(run)}", is_run=True))
        else:
            runs.append(run)
    return runs, faults


def _shown(url: str) -> RunFacts:
    """A run that a list can show."""
    run = read_brief(url)
    summary(run)
    return run


def fault_text(error: Exception) -> str:
    """What is wrong with a run's files, in a line."""
    if isinstance(error, RetfoundError):
        return " ".join(str(error).split())
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return f"its files hold something unexpected ({text})"


def check_folder(url: str) -> None:
    """StorageError where no runs can stand at or below a URL."""
    kind = url_kinds.kind_at(url)
    if kind == url_kinds.NOTHING:
        raise StorageError(f"there is nothing at {url}: give a folder or a prefix with runs below it")
    if not storage.is_folder(url):
        raise StorageError(f"{url} is {kind}: give a folder or a prefix with runs below it")


def runs_command(url: str, as_json: bool) -> int:
    """`retfound runs`: list them; 0, or StorageError where there is no folder at the URL."""
    check_folder(url)
    runs, faults = read_all(url.rstrip("/") or "/", Progress(f"reading the runs below {url}"))
    differ = config_differences({run.url: run.config for run in runs})
    damaged = [fault for fault in faults if fault.is_run]
    if as_json:
        rows_as_json = [summary(run) | {"differences": differ[run.url]} for run in runs]
        print(json.dumps([*rows_as_json, *map(damaged_summary, damaged)], indent=1))
    elif runs or damaged:
        console = Console(soft_wrap=False, highlight=False)
        line = partial(console.print, markup=False) if len(runs) <= MANY else plain_line
        if len(runs) <= MANY:
            console.print(table(runs, damaged))
        else:
            rows = [*map(_cells, runs), *map(_damaged_cells, damaged)]
            print(*plain_table(HEADS, rows), sep="\n")
        for run in runs:
            if run.alarms:
                last = plain(f"ALARM: {run.name}: {run.alarms[-1]['message']}")
                line(last, style="bold red")
            if differ[run.url]:
                settings = ", ".join(f"{key}={json.dumps(value)}" for key, value in differ[run.url].items())
                line(plain(f"{run.name} differs: {settings}"))
            for text in run.left_out:
                line(plain(f"{run.name}: {text}"))
    else:
        print(f"no runs at or below {url}, which is {url_kinds.kind_at(url)}")
    for fault in faults:
        print(fault, file=sys.stderr if as_json else sys.stdout)
    return 0


HEADS = ("run", "state", "step", "loss", "held out", "img/s", "saved", f"best {SCORE.upper()}")


def damaged_summary(fault: Fault) -> dict[str, Any]:
    """The line of a run that cannot be read, as plain values."""
    return {"url": fault.url, "name": storage.name(fault.url), "state": DAMAGED, "fault": str(fault)}


STYLES = {"running": "green", "finished": "bold", "failed": "red", DAMAGED: "red", "silent": "yellow"}


def table(runs: Sequence[RunFacts], damaged: Sequence[Fault] = ()) -> Table:
    """For a person; good at 80 columns: what is asked for most comes first, the rest folds."""
    drawn = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    for place, head in enumerate(HEADS):
        drawn.add_column(head, justify="left" if place < 2 else "right", overflow="fold")
    for run in runs:
        name, state, *others = _cells(run)
        drawn.add_row(Text(name, style="bold"), Text(state, style=STYLES.get(state, "")), *others)
    for fault in damaged:
        name, state, *others = _damaged_cells(fault)
        drawn.add_row(Text(name, style="bold"), Text(state, style=STYLES[DAMAGED]), *others)
    return drawn


def _cells(run: RunFacts) -> list[str]:
    """A run's line under `HEADS`."""
    summarized = summary(run)
    total = f"/{summarized['steps']}" if summarized["steps"] else ""
    best = summarized["best"]
    return [
        plain(run.name),
        summarized["state"],
        f"{summarized['step']}{total}",
        _number(summarized["loss"], 4),
        _number(summarized["held_out_loss"], 4),
        _number(summarized["images_per_s"], 0),
        str(summarized["checkpoint"] or "-"),
        f"{best['value']:.3f} @{best['step']}" if best else "-",
    ]


def _damaged_cells(fault: Fault) -> list[str]:
    """The line of a run that cannot be read."""
    return [plain(storage.name(fault.url)), DAMAGED, *["-"] * (len(HEADS) - 2)]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
