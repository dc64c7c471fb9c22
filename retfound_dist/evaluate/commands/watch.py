"""`retfound watch`: probes every new checkpoint of a run, and also fine-tunes every n-th.

Results are in RUN/evaluations/step_00000100/ (probe.json, metrics.json), the history in watch.json and
report.html in RUN/evaluations/, alarms in RUN/alarms.jsonl. Existing results are not made again. Uncommitted
checkpoints are ignored. Probes use only the train and val parts, so that a checkpoint can be chosen by them.
The test part is only for fine-tuned checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

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
from retfound_dist.evaluate.commands.comparison_row import complete_evaluation, evaluate_and_write
from retfound_dist.evaluate.commands.evaluate import set_threads
from retfound_dist.evaluate.commands.set_messages import load_labelled
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import (
    NONE,
    WEIGHTS_CACHE,
    StartingWeights,
    open_starting_weights,
)
from retfound_dist.evaluate.finetune.trained_parameters import check_methods
from retfound_dist.evaluate.report import text_tables
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.scores import probe_wording, wording
from retfound_dist.evaluate.watching import probe_results
from retfound_dist.evaluate.watching import watch_history as histories
from retfound_dist.evaluate.watching.probe_results import ProbeResult
from retfound_dist.evaluate.watching.watch_history import History, is_probe_of, start_url, steps_with
from retfound_dist.formats import checkpoint_folder, run_folder, url_kinds
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.formats.log_rows import read_log
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.io import storage
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.runtime.progress import ProgressDisplay


def watch_command(config_path: str, overrides: Sequence[str], quiet: bool = False) -> int:
    """Run `retfound watch`; RetfoundError for anything that a user can fix.

    FaultsFoundError (exit 1) where an alarm was raised.
    """
    config, _ = load(WatchConfig, config_path, overrides)
    set_threads(config.threads)
    url = config.run.url
    if not checkpoint_folder.list_steps(url) and not url_kinds.is_run(url):
        raise ConfigError(f"run.url: {url_kinds.wrong_kind_message(url, url_kinds.RUN)}")
    with ProgressDisplay(quiet) as show:
        _Watch(config, show).follow()
    return 0


def last_step(run: str) -> int | None:
    """The last step of the run, from its config.json; None where it is not known."""
    try:
        config = run_folder.read_config(run)
        train = config["train"]
        if train.get("steps"):
            return int(train["steps"])
        data = config["data"]
        manifest = read_manifest(data["shards"], data.get("first_shards", 0))
        samples = sum(shard.samples for shard in manifest.part(data["split"]))
        # 1e-9, because rounding may make a whole number slightly larger, which would add a step.
        return max(1, math.ceil(float(train["epochs"]) * samples / int(train["global_batch"]) - 1e-9))
    except (StorageError, RecordError, ManifestError, KeyError):
        return None


def steps_to_finetune(steps: Sequence[int], every: int, end: int | None) -> list[int]:
    """The steps of a run that are fine-tuned: every n-th and the last; none where `every` is 0."""
    return [step for i, step in enumerate(steps, 1) if every and (i % every == 0 or step == end)]


class _Watch:
    """Watches one run."""

    def __init__(self, config: WatchConfig, show: ProgressDisplay) -> None:
        self.config, self.show, self.run = config, show, config.run.url
        self._weights_cache = IdentityCache(storage.join(histories.folder(self.run), WEIGHTS_CACHE))
        self._sets: dict[int, LabelledSet] = {}
        self._history: History | None = None
        self._finetuned: set[int] = set()
        """Steps that have an evaluation of these weights, images and settings."""
        self._deleted: set[int] = set()
        """Checkpoints that were deleted before they could be read."""

    def follow(self) -> None:
        """Probe and fine-tune until the run has reached its last step, or no new checkpoint comes."""
        # monotonic, so that a corrected clock does not end the watch.
        changed = time.monotonic()
        while True:
            task = self._next_task()
            if task:
                self._process(*task)
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
        self._raise_alarms()

    def _next_task(self) -> tuple[str, int] | None:
        """The next task: probes first, because they are fast, then fine-tuning."""
        committed = [step for step in checkpoint_folder.list_steps(self.run) if step not in self._deleted]
        if self._history is None:
            return ("begin", committed[0]) if committed else None
        probes = self._history.steps
        new_step = next((step for step in committed if step not in probes), None)
        end = last_step(self.run)
        # A run that went back commits its last step again, with other weights than those that were probed.
        if new_step is None and end is not None and self._was_replaced(end, probes):
            new_step = end
            self._finetuned.discard(end)
        if new_step is not None:
            return "probe", new_step
        candidates = steps_to_finetune(sorted(probes), self.config.finetune_every, end)
        steps = (step for step in candidates if step in committed and not self._is_finetuned(step))
        return next((("tune", step) for step in steps), None)

    def _is_over(self, end: int) -> bool:
        """Whether the last checkpoint was probed, and is the newest one or deleted.

        A run that went back has an older checkpoint of its last step until it reaches this step again.
        """
        if self._history is None or end not in self._history.steps:
            return False
        newest = checkpoint_folder.newest(self.run)
        return (
            newest is None
            or newest.step == end
            or not checkpoint_folder.is_checkpoint(checkpoint_folder.checkpoint_url(self.run, end))
        )

    def _was_replaced(self, step: int, probes: Mapping[int, ProbeResult]) -> bool:
        """Whether other weights replaced those that were probed."""
        return step in probes and not is_probe_of(
            checkpoint_folder.checkpoint_url(self.run, step), probes[step]
        )

    def _is_finetuned(self, step: int) -> bool:
        """Whether a step has an evaluation of its weights, these images and these settings."""
        # Cached, because every poll asks, and the check opens the weights and reads the evaluation.
        if step not in self._finetuned and step in steps_with(self.run, evaluation_files.METRICS):
            start = open_starting_weights(
                checkpoint_folder.checkpoint_url(self.run, step), self.config.model, self._weights_cache
            )
            reason = "it was evaluated with other images or settings"
            try:
                if complete_evaluation(
                    start, self._labelled(start), self._evaluation_config(step), self.show
                ):
                    self._finetuned.add(step)
                    reason = ""
            except FormatError:
                raise
            except RecordError as error:
                reason = str(error)
            if reason:
                self.show.say(f"step {step:,} is evaluated again: {reason}")
        return step in self._finetuned

    def _process(self, action: str, step: int) -> None:
        """Load the history, or probe or fine-tune one checkpoint."""
        try:
            start = open_starting_weights(
                checkpoint_folder.checkpoint_url(self.run, step), self.config.model, self._weights_cache
            )
        # A checkpoint may be deleted between listing and reading, which is not an error.
        except (CheckpointError, StorageError, WeightsError):
            if checkpoint_folder.is_checkpoint(checkpoint_folder.checkpoint_url(self.run, step)):
                raise
            self.show.say(f"step {step}: the checkpoint was deleted before it could be read")
            self._deleted.add(step)
            return
        data = self._labelled(start)
        history = self._history = self._history or self._start_history(start, data)
        if action == "probe":
            self._probe_checkpoint(step, start, data, history)
        elif action == "tune":
            self._finetune(step, start, data)
        for row in history.write():
            self.show.warn(f"ALARM: {row['message']}")
            if self.config.alarm.stop:
                self._raise_alarms()

    def _probe_checkpoint(
        self, step: int, start: StartingWeights, data: LabelledSet, history: History
    ) -> None:
        """Probe the checkpoint of a step, add the scores to the history and print them."""
        where = checkpoint_folder.evaluation_url(self.run, step)
        result = probe_results.probe_checkpoint(
            *(start, data, self.config.probe, self.config.bootstrap, where, self.show),
            watched=self.config.alarm.method,
        )
        history.add_probe(step, result)
        self._show_scores(f"{step:,}", result)

    def _finetune(self, step: int, start: StartingWeights, data: LabelledSet) -> None:
        self.show.say(f"step {step:,}, fine-tuned:")
        evaluate_and_write(start, data, self._evaluation_config(step), self.show)
        self._finetuned.add(step)

    def _evaluation_config(self, step: int) -> EvaluateConfig:
        """The config for fine-tuning the checkpoint of a step."""
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

    def _start_history(self, checkpoint: StartingWeights, data: LabelledSet) -> History:
        """The history, with the existing probes and the probe of the starting weights."""
        config = self.config
        if config.finetune_every:
            # Now, and not at the first fine-tuning, which may be days later.
            check_methods(checkpoint.backbone, config.finetune)
        history = History.load(config, data, self.show.warn)
        overlap = pretraining_overlap.count_overlap(
            checkpoint, {name: data.parts[name] for name in probe_results.PARTS}
        )
        if note := wording.probe_overlap_warning(overlap):
            self.show.say(note)
        self.show.say(_header(config.alarm.method, config.probe.folds))
        start = self._starting_weights(checkpoint)
        if start:
            start_probe = probe_results.probe_checkpoint(
                *(start, data, config.probe, config.bootstrap, start_url(self.run), self.show),
                watched=config.alarm.method,
            )
            history.add_probe(0, start_probe)
            self._show_scores("start", start_probe)
        for step, result in sorted(history.steps.items()):
            self._show_scores(f"{step:,}", result)
        return history

    def _show_scores(self, step: str, result: ProbeResult) -> None:
        """A line with the scores of the probe that alarms judge by."""
        scores = result.tree.get(self.config.alarm.method)
        columns = (
            text_tables.score_columns(scores, text_tables.TERMINAL_SCORES)
            if scores
            else "  no such probe: the checkpoint was probed by an older version and is deleted"
        )
        self.show.say(f"{step:>9}{columns}")

    def _starting_weights(self, checkpoint: StartingWeights) -> StartingWeights | None:
        """The starting weights of the run, at the image size of its checkpoints; None where unreadable."""
        init = run_folder.read_config(self.run).get("model", {}).get("init", NONE)
        if init == NONE:
            return StartingWeights(NONE, NONE, self._random_start(checkpoint), NONE)
        try:
            model = replace(self.config.model, image_size=checkpoint.image_size)
            start = open_starting_weights(init, model, self._weights_cache)
        except RetfoundError as error:
            self.show.warn(f"no comparison with the run's starting weights: {error}")
            return None
        # The file of model.init may have been replaced since the run started.
        recorded = run_folder.init_weights(self.run)
        if recorded and not start.identity.startswith(recorded["sha256"]):
            reason = f"{init} has other weights now"
            self.show.warn(f"no comparison with the run's starting weights: {reason}")
            return None
        return start

    @staticmethod
    def _random_start(checkpoint: StartingWeights) -> Backbone:
        """The encoder of a run's checkpoints before its first step."""
        assert isinstance(checkpoint.backbone, PlainVit)
        return PlainVit(None, checkpoint.backbone.shape, checkpoint.image_size)

    def _labelled(self, start: StartingWeights) -> LabelledSet:
        if start.image_size not in self._sets:
            self._sets[start.image_size] = load_labelled(self.config.data, start.backbone, self.show)
        return self._sets[start.image_size]

    def _raise_alarms(self) -> None:
        """FaultsFoundError where this watch or an earlier one has raised an alarm."""
        log = read_log(self.run, run_folder.ALARMS)
        if log.fault:
            self.show.warn(log.fault)
        if raised := log.rows:
            count = f"{len(raised)} alarm{'s' if len(raised) > 1 else ''}"
            where = storage.join(self.run, run_folder.ALARMS)
            raise FaultsFoundError(f"{count} in {where}; the last: {raised[-1]['message']}")


def _header(method: str, folds: int) -> str:
    title = f"{probe_wording.PROBES[method]} of train and val, {folds}-fold; the test part is not used"
    return f"{title}\n{'step':>9}" + text_tables.score_headings(text_tables.TERMINAL_SCORES)
