"""`retfound watch`: every committed checkpoint of a run probed as it lands, every n-th fine-tuned too.

Results go to RUN/evaluations/step_00000100/ (probe.json, metrics.json), the history to watch.json and
report.html in RUN/evaluations/, alarms to RUN/alarms.jsonl; what is there is not made again. An uncommitted
checkpoint is not seen. Probes look at the train and val parts alone, so that a checkpoint can be chosen by
them; the test part belongs to fine-tuning.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from retfound_dist.config.loading import load
from retfound_dist.config.schema import EvalOut, EvaluateConfig, WatchConfig
from retfound_dist.errors import (
    CheckpointError,
    ConfigError,
    FaultsFoundError,
    FormatError,
    ManifestError,
    RecordError,
    RetfoundError,
    StorageError,
    WeightsError,
)
from retfound_dist.evaluate.commands.comparison_row import complete_row, make_row
from retfound_dist.evaluate.commands.evaluate import load_labelled, set_threads
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import (
    NONE,
    WEIGHTS_CACHE,
    StartingWeights,
    open_starting_weights,
)
from retfound_dist.evaluate.report import text_tables
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.watching import probe_results
from retfound_dist.evaluate.watching import watch_history as histories
from retfound_dist.evaluate.watching.probe_results import ProbeResult
from retfound_dist.evaluate.watching.watch_history import History, is_of, start_url, steps_with
from retfound_dist.formats import checkpoint_folder, run_folder, url_kinds
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.formats.log_rows import read_log
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay


def watch_command(config_path: str, overrides: Sequence[str], quiet: bool = False) -> int:
    """Run `retfound watch`; raises RetfoundError for anything a person can mend, FaultsFoundError (exit 1)
    where an alarm was raised."""
    config, _ = load(WatchConfig, config_path, overrides)
    set_threads(config.threads)
    url = config.run.url
    if not checkpoint_folder.list_steps(url) and not url_kinds.is_run(url):
        raise ConfigError(f"run.url: {url_kinds.refusal(url, url_kinds.RUN)}")
    with ProgressDisplay(quiet) as show:
        _Watch(config, show).follow()
    return 0


def last_step(run: str) -> int | None:
    """The step on which the run ends, from its config.json; None where that cannot be known."""
    try:
        config = run_folder.read_config(run)
        train = config["train"]
        if train.get("steps"):
            return int(train["steps"])
        data = config["data"]
        manifest = read_manifest(data["shards"], data.get("first_shards", 0))
        samples = sum(shard.samples for shard in manifest.part(data["split"]))
        # 1e-9: a product that should be whole may come out a little larger, and would count as one step
        # more.
        return max(1, math.ceil(float(train["epochs"]) * samples / int(train["global_batch"]) - 1e-9))
    except (StorageError, RecordError, ManifestError, KeyError):
        return None


def due(steps: Sequence[int], every: int, end: int | None) -> list[int]:
    """Which of a run's steps are fine-tuned: every n-th and the last; none where `every` is 0."""
    return [step for i, step in enumerate(steps, 1) if every and (i % every == 0 or step == end)]


class _Watch:
    """One run being followed."""

    def __init__(self, config: WatchConfig, show: ProgressDisplay) -> None:
        self.config, self.show, self.run = config, show, config.run.url
        self._memory = IdentityCache(storage.join(histories.folder(self.run), WEIGHTS_CACHE))
        self._sets: dict[int, LabelledSet] = {}
        self._history: History | None = None
        self._tuned: set[int] = set()
        """Steps whose evaluation is there and of these weights, images and settings."""
        self._gone: set[int] = set()
        """Checkpoints that were deleted before they could be read."""

    def follow(self) -> None:
        """Probe and fine-tune until the run has reached its last step, or nothing new comes."""
        # monotonic: a clock that is set right must not end the watch.
        changed = time.monotonic()
        while True:
            todo = self._next()
            if todo:
                self._do(*todo)
                changed = time.monotonic()
                continue
            end, idle = last_step(self.run), (time.monotonic() - changed) / 60
            if end is not None and self._is_over(end):
                self.show.say(f"the run has reached its last step, {end}")
                break
            if self.config.stop_after_minutes and idle >= self.config.stop_after_minutes:
                self.show.say(f"no new checkpoint for {self.config.stop_after_minutes:g} minutes")
                break
            self.show.begin(f"waiting for a checkpoint of {self.run}")
            time.sleep(self.config.poll_seconds)
        self._end()

    def _next(self) -> tuple[str, int] | None:
        """What to do now: probes first, for they are quick; then what is due for fine-tuning."""
        committed = [step for step in checkpoint_folder.list_steps(self.run) if step not in self._gone]
        if self._history is None:
            return ("begin", committed[0]) if committed else None
        known = self._history.steps
        fresh = next((step for step in committed if step not in known), None)
        end = last_step(self.run)
        # A run that went back commits its last step anew: what was probed before is of other weights.
        if fresh is None and end is not None and self._is_saved_again(end, known):
            fresh = end
            self._tuned.discard(end)
        if fresh is not None:
            return "probe", fresh
        wanted = due(sorted(known), self.config.finetune_every, end)
        todo = (step for step in wanted if step in committed and not self._is_tuned(step))
        return next((("tune", step) for step in todo), None)

    def _is_over(self, end: int) -> bool:
        """Whether the checkpoint of the run's last step was probed and is its newest, or is gone.

        A run that went back has an older one of its last step until it gets there once more.
        """
        if self._history is None or end not in self._history.steps:
            return False
        newest = checkpoint_folder.newest(self.run)
        return (
            newest is None
            or newest.step == end
            or not checkpoint_folder.is_checkpoint(checkpoint_folder.checkpoint_url(self.run, end))
        )

    def _is_saved_again(self, step: int, known: Mapping[int, ProbeResult]) -> bool:
        """Whether other weights were committed in place of those that were probed."""
        return step in known and not is_of(checkpoint_folder.checkpoint_url(self.run, step), known[step])

    def _is_tuned(self, step: int) -> bool:
        """Whether the evaluation of a step is of its weights, these images and these settings; asked once."""
        # The answer takes opening the weights and reading the evaluation, and is asked for at every poll.
        if step not in self._tuned and step in steps_with(self.run, evaluation_files.METRICS):
            start = open_starting_weights(
                checkpoint_folder.checkpoint_url(self.run, step), self.config.model, self._memory
            )
            why = "evaluated before with other images or settings"
            try:
                if complete_row(start, self._labelled(start.image_size), self._row(step)):
                    self._tuned.add(step)
                    why = ""
            except FormatError:
                raise
            except RecordError as error:
                why = str(error)
            if why:
                self.show.say(f"step {step:,}: {why}; once more")
        return step in self._tuned

    def _do(self, action: str, step: int) -> None:
        """Read the past, or probe or fine-tune one checkpoint."""
        try:
            start = open_starting_weights(
                checkpoint_folder.checkpoint_url(self.run, step), self.config.model, self._memory
            )
        # A checkpoint may be deleted between listing and reading. That is no error; one that is still there
        # is.
        except (CheckpointError, StorageError, WeightsError):
            if checkpoint_folder.is_checkpoint(checkpoint_folder.checkpoint_url(self.run, step)):
                raise
            self.show.say(f"step {step}: its checkpoint was deleted before it could be read")
            self._gone.add(step)
            return
        data = self._labelled(start.image_size)
        history = self._history = self._history or self._begin(start, data)
        if action == "probe":
            self._probe(step, start, data, history)
        elif action == "tune":
            self._finetune(step, start, data)
        for row in history.write():
            self.show.warn(f"ALARM: {row['message']}")
            if self.config.alarm.stop:
                self._end()

    def _probe(self, step: int, start: StartingWeights, data: LabelledSet, history: History) -> None:
        where = checkpoint_folder.evaluation_url(self.run, step)
        probed = probe_results.probe_start(
            start, data, self.config.probe, self.config.bootstrap, where, self.show
        )
        history.add(step, probed)
        self.show.say(_line(f"{step:,}", probed.tree))

    def _finetune(self, step: int, start: StartingWeights, data: LabelledSet) -> None:
        self.show.say(f"step {step:,}, fine-tuned:")
        make_row(start, data, self._row(step), self.show)
        self._tuned.add(step)

    def _row(self, step: int) -> EvaluateConfig:
        """The fine-tuning of a step's checkpoint."""
        config = self.config
        return EvaluateConfig(
            checkpoint=checkpoint_folder.checkpoint_url(self.run, step),
            data=config.data,
            out=EvalOut(url=checkpoint_folder.evaluation_url(self.run, step)),
            seeds=config.seeds,
            model=config.model,
            finetune=config.finetune,
            probe=config.probe,
            threads=config.threads,
            bootstrap=config.bootstrap,
        )

    def _begin(self, checkpoint: StartingWeights, data: LabelledSet) -> History:
        """What is known from before, begun with the starting weights' probe."""
        config, history = self.config, History.of(self.config, data, self.show.warn)
        seen = pretraining_overlap.count_overlap(
            checkpoint, {name: data.parts[name] for name in probe_results.PARTS}
        )
        if note := wording.probe_overlap_warning(seen):
            self.show.say(note)
        self.show.say(_header(config.probe.folds))
        start = self._starting_weights(checkpoint)
        if start:
            start_probe = probe_results.probe_start(
                start, data, config.probe, config.bootstrap, start_url(self.run), self.show
            )
            history.add(0, start_probe)
            self.show.say(_line("start", start_probe.tree))
        for step, probed in sorted(history.steps.items()):
            self.show.say(_line(f"{step:,}", probed.tree))
        return history

    def _starting_weights(self, checkpoint: StartingWeights) -> StartingWeights | None:
        """What the run began from, at its checkpoints' image size; None (and said) if it cannot be read."""
        init = run_folder.read_config(self.run).get("model", {}).get("init", NONE)
        if init == NONE:
            return StartingWeights(NONE, NONE, checkpoint.shape, checkpoint.image_size, NONE)
        try:
            start = open_starting_weights(init, self.config.model, self._memory)
        except RetfoundError as error:
            self.show.warn(f"no comparison with the run's starting weights: {error}")
            return None
        # The file that model.init names may have been replaced since the run began from it.
        recorded = run_folder.init_weights(self.run)
        if recorded and not start.identity.startswith(recorded["sha256"]):
            reason = f"{init} holds other weights by now"
            self.show.warn(f"no comparison with the run's starting weights: {reason}")
            return None
        return replace(start, image_size=checkpoint.image_size)

    def _labelled(self, size: int) -> LabelledSet:
        if size not in self._sets:
            self._sets[size] = load_labelled(self.config.data, size, self.show)
        return self._sets[size]

    def _end(self) -> None:
        """FaultsFoundError where there are alarms, of this watch or an earlier one."""
        log = read_log(self.run, run_folder.ALARMS)
        if log.fault:
            self.show.warn(log.fault)
        if raised := log.rows:
            kinds = f"{len(raised)} alarm{'s' if len(raised) > 1 else ''}"
            where = storage.join(self.run, run_folder.ALARMS)
            raise FaultsFoundError(f"{kinds} in {where}; the last: {raised[-1]['message']}")


def _header(folds: int) -> str:
    title = f"linear probe of train and val, {folds}-fold; the test part is not looked at"
    return f"{title}\n{'step':>9}" + text_tables.heading(text_tables.SHOWN)


def _line(step: str, tree: dict[str, Any]) -> str:
    return f"{step:>9}" + text_tables.scores(tree["linear"], text_tables.SHOWN)
