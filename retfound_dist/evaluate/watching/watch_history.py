"""The history of a watched run: each checkpoint's probe beside the starting weights' and the best before it.

watch.json    RUN/evaluations/: rows, alarms, the starting weights
report.html   RUN/evaluations/: the same as a page
alarms.jsonl  RUN/: each alarm once, as it was raised
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Alarm, WatchConfig
from retfound_dist.errors import FormatError, RecordError
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import checkpoint_identity
from retfound_dist.evaluate.probe import linear_probe
from retfound_dist.evaluate.report.watch_page import watch_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.watching import probe_alarms, probe_results
from retfound_dist.evaluate.watching.probe_alarms import ComparedCheckpoint, Point
from retfound_dist.evaluate.watching.probe_results import Development, ProbeResult, development
from retfound_dist.formats import checkpoint_folder, run_folder, run_summary
from retfound_dist.formats.log_rows import read_log
from retfound_dist.io import storage

T = TypeVar("T")
_STEP = re.compile(r"^step_(\d{8,})$")


def folder(run: str) -> str:
    """Where a run's evaluations stand."""
    return storage.join(run, "evaluations")


def start_url(run: str) -> str:
    """Where the probe of the run's starting weights stands."""
    return storage.join(folder(run), probe_alarms.START)


def steps_with(run: str, name: str) -> list[int]:
    """Steps whose folder of evaluations holds a file, rising; their checkpoints may be gone since."""
    steps = [int(m.group(1)) for n in storage.list_names(folder(run)) if (m := _STEP.match(n))]
    return sorted(
        s for s in steps if storage.exists(storage.join(checkpoint_folder.evaluation_url(run, s), name))
    )


@dataclass
class History:
    """The probes of one run on one labelled set."""

    config: WatchConfig
    images: Development
    fingerprint: str
    warn: Callable[[str], None]
    start: ProbeResult | None = None
    steps: dict[int, ProbeResult] = field(default_factory=dict)
    _drawn: dict[int, Point] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, config: WatchConfig, data: LabelledSet, warn: Callable[[str], None]) -> History:
        """What stands in the run's folder already, from the same images and settings.

        `warn` is told of files that are damaged, each once.
        """
        history = cls(config, development(data), data.fingerprint, warn)
        for step in steps_with(config.run.url, probe_results.PROBE):
            probed = history._told(probe_results.read, checkpoint_folder.evaluation_url(config.run.url, step))
            if (
                probed
                and history._fits(probed)
                and is_of(checkpoint_folder.checkpoint_url(config.run.url, step), probed)
            ):
                history.steps[step] = probed
        return history

    def add(self, step: int, probed: ProbeResult) -> None:
        """Take in a checkpoint's probe; 0 is the starting weights'."""
        self._drawn.pop(step, None)
        if step:
            self.steps[step] = probed
        else:
            self.start = probed

    def judged(self) -> list[ComparedCheckpoint]:
        """Every checkpoint beside what came before."""
        start = self._point(0, self.start) if self.start else None
        points = [self._point(step, self.steps[step]) for step in sorted(self.steps)]
        return probe_alarms.judge(start, points, self.config.alarm.least)

    def tree(self) -> dict[str, Any]:
        """watch.json."""
        judged = self.judged()
        return {
            "run": self.config.run.url,
            "start": self.start.tree if self.start else None,
            "rows": [self._row(checkpoint) for checkpoint in judged],
            "newest": self.newest(),
            "alarms": probe_alarms.alarms(judged, self.config.alarm),
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
        """Put watch.json, the page, and what is new in alarms.jsonl; the alarms that are new."""
        tree, run = self.tree(), self.config.run.url
        # A watch that is started again finds the same alarms again: those that are logged already are not
        # new.
        known = {_name(row) for row in read_log(run, run_folder.ALARMS).rows}
        fresh = [row for row in tree["alarms"] if _name(row) not in known]
        # The log of alarms first: watch.json and the page can be made again from the probes, an alarm that
        # nobody saw cannot.
        if fresh:
            run_folder.append_rows(run, run_folder.ALARMS, fresh)
        storage.write_json(storage.join(run, run_folder.WATCH), tree)
        steps = steps_with(run, evaluation_files.METRICS)
        tuned = {
            step: self._told(evaluation_files.read_whole, checkpoint_folder.evaluation_url(run, step))
            for step in steps
        }
        page = watch_page(tree, {step: evaluation for step, evaluation in tuned.items() if evaluation})
        storage.write_text(storage.join(folder(run), evaluation_files.REPORT), page)
        # `retfound runs` shows alarms by the summary, which would else be older than they are.
        run_summary.refresh(run)
        return fresh

    def _row(self, checkpoint: ComparedCheckpoint) -> dict[str, Any]:
        tree, step = self.steps[checkpoint.point.step].tree, checkpoint.point.step
        where = checkpoint_folder.evaluation_url(self.config.run.url, step)
        is_finetuned = storage.exists(storage.join(where, evaluation_files.METRICS))
        tuned = self._told(evaluation_files.read_metrics, where) if is_finetuned else None
        return {
            "step": step,
            "samples": tree["checkpoint"]["samples"],
            "pretrained_on": tree["checkpoint"].get("pretrained_on"),
            **{m: {k: tree[m][k] for k in ("macro", "ci95")} for m in linear_probe.METHODS},
            "to_start": checkpoint.to_start and checkpoint.to_start.describe(),
            "to_best": checkpoint.to_best and checkpoint.to_best.describe(),
            "finetuned": tuned and {k: tuned[k] for k in ("macro", "ci95")},
        }

    def _told(self, read: Callable[[str], T], url: str) -> T | None:
        """What is read; None where it is damaged, which is said once."""
        try:
            return read(url)
        # Not damage: a newer version wrote it (as in probe_results).
        except FormatError:
            raise
        except RecordError as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                self.warn(str(error))
            return None

    def _point(self, step: int, probed: ProbeResult) -> Point:
        # Scoring on every resample is the slow part, and all earlier steps are asked for with each new
        # checkpoint.
        if step not in self._drawn:
            rule = self.config.alarm
            drawn_R = self._resampled(probed.probabilities[rule.method], rule)
            self._drawn[step] = Point(step, probed.tree[rule.method]["macro"][rule.metric], drawn_R)
        return self._drawn[step]

    def _resampled(self, probabilities_NC: Floats, rule: Alarm) -> Floats:
        weights_RN = bootstrap.resample(self.images.units_N, self.config.bootstrap, 0)
        return bootstrap.scores(self.images.labels_N, probabilities_NC, weights_RN)["macro"][rule.metric]

    def _fits(self, probed: ProbeResult) -> bool:
        tree = probed.tree
        return bool(
            tree["data"]["fingerprint"] == self.fingerprint
            and tree["probe"] == to_dict(self.config.probe)
            and tree["bootstrap"]["resamples"] == self.config.bootstrap
        )


def is_of(checkpoint: str, probed: ProbeResult) -> bool:
    """Whether a probe is of the weights that stand there now; what was removed since cannot have changed."""
    if not checkpoint_folder.is_checkpoint(checkpoint):
        return True
    return bool(probed.tree["checkpoint"]["sha256"] == checkpoint_identity(checkpoint))


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("step", "kind", "method", "metric"))
