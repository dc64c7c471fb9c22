"""The history of a watched run: the probe of each checkpoint, and comparisons of them.

watch.json    RUN/evaluations/: rows, alarms, the starting weights
report.html   RUN/evaluations/: the same as a page
alarms.jsonl  RUN/: each alarm once, when it was raised
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Alarm, WatchConfig
from retfound_dist.errors import FormatError, RecordError
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import checkpoint_identity
from retfound_dist.evaluate.probe import probing
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION
from retfound_dist.evaluate.report.watch_page import watch_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.watching import probe_alarms, probe_results
from retfound_dist.evaluate.watching.probe_alarms import ComparedCheckpoint, Point
from retfound_dist.evaluate.watching.probe_results import DevelopmentSet, ProbeResult, development_set
from retfound_dist.formats import checkpoint_folder, run_folder, run_summary
from retfound_dist.formats.log_rows import read_log
from retfound_dist.io import storage

T = TypeVar("T")
_SHOWN = ("macro", "ci95", "minus_linear", "note")
"""What pages show of a probe."""
_STEP = re.compile(r"^step_(\d{8,})$")


def folder(run: str) -> str:
    """The folder with the evaluations of a run."""
    return storage.join(run, "evaluations")


def start_url(run: str) -> str:
    """The folder with the probe of the run's starting weights."""
    return storage.join(folder(run), probe_alarms.START)


def steps_with(run: str, name: str) -> list[int]:
    """Steps whose evaluation folder has the file `name`, rising. Their checkpoints may be deleted by now."""
    steps = [int(m.group(1)) for n in storage.list_names(folder(run)) if (m := _STEP.match(n))]
    return sorted(
        s for s in steps if storage.exists(storage.join(checkpoint_folder.evaluation_url(run, s), name))
    )


@dataclass
class History:
    """The probes of one run on one labelled set."""

    config: WatchConfig
    images: DevelopmentSet
    fingerprint: str
    warn: Callable[[str], None]
    start: ProbeResult | None = None
    steps: dict[int, ProbeResult] = field(default_factory=dict)
    _points: dict[int, Point] = field(default_factory=dict)
    _warnings_shown: set[str] = field(default_factory=set)

    @classmethod
    def load(cls, config: WatchConfig, data: LabelledSet, warn: Callable[[str], None]) -> History:
        """The probes that already exist for this run, with the same images and settings.

        `warn` is called once for each damaged file.
        """
        history = cls(config, development_set(data), data.fingerprint, warn)
        for step in steps_with(config.run.url, probe_results.PROBE):
            result = history._read_or_warn(
                probe_results.read, checkpoint_folder.evaluation_url(config.run.url, step)
            )
            checkpoint = checkpoint_folder.checkpoint_url(config.run.url, step)
            if (
                result
                and history._has_same_settings(result)
                and is_probe_of(checkpoint, result)
                # Else it is probed again, as long as there is a checkpoint.
                and (history._is_watched(result) or not checkpoint_folder.is_checkpoint(checkpoint))
            ):
                history.steps[step] = result
        return history

    def add_probe(self, step: int, result: ProbeResult) -> None:
        """Add the probe of a checkpoint; step 0 is the starting weights."""
        self._points.pop(step, None)
        if step:
            self.steps[step] = result
        else:
            self.start = result

    def compared(self) -> list[ComparedCheckpoint]:
        """Every checkpoint, compared with those before it."""
        start = self._watched_point(0, self.start) if self.start else None
        points = [self._watched_point(step, self.steps[step]) for step in sorted(self.steps)]
        return probe_alarms.compare_checkpoints(start, points, self.config.alarm.least)

    def tree(self) -> dict[str, Any]:
        """watch.json."""
        compared = self.compared()
        return {
            "run": self.config.run.url,
            "start": self.start.tree if self.start else None,
            "rows": [self._checkpoint_row(checkpoint) for checkpoint in compared],
            "newest": self.newest(),
            "alarms": probe_alarms.alarm_rows(compared, self.config.alarm),
            "config": to_dict(self.config),
        }

    def newest(self) -> int | None:
        """The step of the newest checkpoint that was probed; None where none was."""
        probed_steps = [
            commit.step
            for commit in checkpoint_folder.list_commits(self.config.run.url)
            if commit.step in self.steps
        ]
        return probed_steps[-1] if probed_steps else max(self.steps, default=None)

    def write(self) -> list[dict[str, Any]]:
        """Write watch.json, the page and new alarms; returns the new alarms."""
        tree, run = self.tree(), self.config.run.url
        # A watch that is started again finds the same alarms: those in the log are not new.
        logged_alarms = {_alarm_key(row) for row in read_log(run, run_folder.ALARMS).rows}
        new_alarms = [row for row in tree["alarms"] if _alarm_key(row) not in logged_alarms]
        # The log of alarms first, because only watch.json and the page can be made again from the probes.
        if new_alarms:
            run_folder.append_rows(run, run_folder.ALARMS, new_alarms)
        storage.write_json(storage.join(run, run_folder.WATCH), tree)
        steps = steps_with(run, evaluation_files.METRICS)
        finetuned = {
            step: self._read_or_warn(evaluation_files.read_whole, checkpoint_folder.evaluation_url(run, step))
            for step in steps
        }
        page = watch_page(tree, {step: evaluation for step, evaluation in finetuned.items() if evaluation})
        storage.write_text(storage.join(folder(run), evaluation_files.REPORT), page)
        # `retfound runs` reads alarms from the summary, which would be outdated otherwise.
        run_summary.refresh(run)
        return new_alarms

    def _checkpoint_row(self, checkpoint: ComparedCheckpoint) -> dict[str, Any]:
        """A checkpoint's scores and comparisons, as they are stored in watch.json."""
        tree, step = self.steps[checkpoint.point.step].tree, checkpoint.point.step
        where = checkpoint_folder.evaluation_url(self.config.run.url, step)
        is_finetuned = storage.exists(storage.join(where, evaluation_files.METRICS))
        finetuned = self._read_or_warn(evaluation_files.read_metrics, where) if is_finetuned else None
        return {
            "step": step,
            "samples": tree["checkpoint"]["samples"],
            "pretrained_on": tree["checkpoint"].get("pretrained_on"),
            **{m: {k: v for k, v in tree[m].items() if k in _SHOWN} for m in probing.METHODS if m in tree},
            "to_start": checkpoint.to_start and checkpoint.to_start.describe(),
            "to_best": checkpoint.to_best and checkpoint.to_best.describe(),
            "finetuned": finetuned and {k: finetuned[k] for k in ("macro", "ci95")},
        }

    def _read_or_warn(self, read: Callable[[str], T], url: str) -> T | None:
        """The result of `read`; None where the file is damaged, with one warning."""
        try:
            return read(url)
        # A file of a newer version is not damaged (as in probe_results).
        except FormatError:
            raise
        except RecordError as error:
            if str(error) not in self._warnings_shown:
                self._warnings_shown.add(str(error))
                self.warn(str(error))
            return None

    def _watched_point(self, step: int, result: ProbeResult) -> Point:
        """The watched score of a step, with its resamples."""
        # Cached, because scoring all resamples is slow and each new checkpoint needs all earlier points.
        if step not in self._points:
            rule = self.config.alarm
            if not self._is_watched(result):
                return Point(step, None, np.empty(0))
            resampled_R = self._resampled(result.probabilities[rule.method], rule)
            self._points[step] = Point(step, result.tree[rule.method]["macro"][rule.metric], resampled_R)
        return self._points[step]

    def _is_watched(self, result: ProbeResult) -> bool:
        """Whether a probe has the method of the alarms, and features that can be compared with new ones."""
        version = result.tree.get("features_version")
        return self.config.alarm.method in result.probabilities and version == FEATURES_VERSION

    def _resampled(self, probabilities_NC: Floats, rule: Alarm) -> Floats:
        weights_RN = bootstrap.resample(self.images.units_N, self.config.bootstrap, 0)
        return bootstrap.scores(self.images.labels_N, probabilities_NC, weights_RN)["macro"][rule.metric]

    def _has_same_settings(self, result: ProbeResult) -> bool:
        tree = result.tree
        return bool(
            tree["data"]["fingerprint"] == self.fingerprint
            and probing.has_settings(tree["probe"], self.config.probe)
            and tree["bootstrap"]["resamples"] == self.config.bootstrap
        )


def is_probe_of(checkpoint: str, result: ProbeResult) -> bool:
    """Whether a probe is of the weights of this checkpoint; True where the checkpoint was deleted."""
    if not checkpoint_folder.is_checkpoint(checkpoint):
        return True
    return bool(result.tree["checkpoint"]["sha256"] == checkpoint_identity(checkpoint))


def _alarm_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("step", "kind", "method", "metric"))
