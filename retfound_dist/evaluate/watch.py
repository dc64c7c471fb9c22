"""`retfound watch`: every committed checkpoint of a run evaluated once, as it lands.

Results go to RUN/evaluations/step_00000100/; one with its metrics.json is done, so a restart repeats
nothing. An uncommitted checkpoint is not seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist import commit, storage
from retfound_dist.config import load
from retfound_dist.errors import ConfigError, ManifestError, StorageError
from retfound_dist.evaluate import results, wording
from retfound_dist.evaluate.dataset import LabelledSet
from retfound_dist.evaluate.evaluate import load_labelled, set_threads
from retfound_dist.evaluate.progress import Display
from retfound_dist.evaluate.row import make_row
from retfound_dist.evaluate.start import open_start
from retfound_dist.schema import EvalOut, EvaluateConfig, WatchConfig
from retfound_dist.shardset import read_manifest

_SHOWN = ("auroc", "aupr", "balanced_accuracy")


def watch_command(config_path: str, overrides: Sequence[str], quiet: bool = False) -> int:
    """Run `retfound watch`; raises RetfoundError for anything a person can mend."""
    config, _ = load(WatchConfig, config_path, overrides)
    set_threads(config.threads)
    url = config.run.url
    if not commit.list_steps(url) and not storage.exists(storage.join(url, "config.json")):
        raise ConfigError(f"run.url={url} holds no run: give the folder that `retfound pretrain` writes")
    with Display(quiet) as show:
        show.say(_header())
        for step in done_steps(url):
            held = results.read(commit.evaluation_url(url, step))
            if held:
                show.say(_line(step, held.metrics))
        _follow(config, show)
    return 0


def done_steps(run: str) -> list[int]:
    """Steps whose evaluation is complete, rising."""
    return [s for s in commit.list_steps(run) if storage.exists(_metrics_url(run, s))]


def pending_steps(run: str) -> list[int]:
    """Steps that are committed and not evaluated, rising."""
    done = set(done_steps(run))
    return [step for step in commit.list_steps(run) if step not in done]


def last_step(run: str) -> int | None:
    """The step on which the run ends, from its config.json; None where that cannot be known."""
    try:
        config = storage.read_json(storage.join(run, "config.json"))
        train = config["train"]
        if train["steps"]:
            return int(train["steps"])
        data = config["data"]
        samples = sum(shard.samples for shard in read_manifest(data["shards"]).part(data["split"]))
        return max(1, math.ceil(float(train["epochs"]) * samples / int(train["global_batch"]) - 1e-9))
    except (StorageError, ManifestError, KeyError, TypeError):
        return None


def _follow(config: WatchConfig, show: Display) -> None:
    sets: dict[int, LabelledSet] = {}
    changed = time.monotonic()
    while True:
        pending = pending_steps(config.run.url)
        if pending:
            _evaluate_step(config, pending[0], sets, show)
            changed = time.monotonic()
            continue
        end = last_step(config.run.url)
        if end is not None and end in done_steps(config.run.url):
            show.say(f"the run has reached its last step, {end}")
            return
        idle = (time.monotonic() - changed) / 60
        if config.stop_after_minutes and idle >= config.stop_after_minutes:
            show.say(f"no new checkpoint for {config.stop_after_minutes:g} minutes (stop_after_minutes)")
            return
        show.begin(f"waiting for a checkpoint of {config.run.url}")
        time.sleep(config.poll_seconds)


def _evaluate_step(config: WatchConfig, step: int, sets: dict[int, LabelledSet], show: Display) -> None:
    url = commit.evaluation_url(config.run.url, step)
    row = EvaluateConfig(
        checkpoint=commit.checkpoint_url(config.run.url, step),
        data=config.data,
        out=EvalOut(url=url),
        seeds=config.seeds,
        model=config.model,
        finetune=config.finetune,
        threads=config.threads,
        bootstrap=config.bootstrap,
    )
    start = open_start(row.checkpoint, row.model)
    if start.image_size not in sets:
        sets[start.image_size] = load_labelled(config.data, start.image_size, show)
    data = sets[start.image_size]
    made = make_row(start, data, row, show)
    show.say(_line(step, made.metrics))


def _metrics_url(run: str, step: int) -> str:
    return storage.join(commit.evaluation_url(run, step), results.METRICS)


def _header() -> str:
    return f"{'step':>10}" + "".join(f"  {wording.LABELS[name]:>24}" for name in _SHOWN)


def _line(step: int, metrics: Mapping[str, Any]) -> str:
    cells = (wording.score(metrics["macro"][name], metrics["ci95"]["macro"][name]) for name in _SHOWN)
    return f"{step:>10}" + "".join(f"  {cell:>24}" for cell in cells)
