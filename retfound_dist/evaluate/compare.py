"""`retfound compare`: several starting weights, the same fine-tuning, one table and what it proves.

Each row is an evaluation of its own at OUT/<name>/; a row that is complete with the same settings, data
and weights is not run again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist import storage
from retfound_dist.config import differences, load, to_dict
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate import results
from retfound_dist.evaluate.dataset import LabelledSet
from retfound_dist.evaluate.evaluate import evaluate_start, headline, load_labelled, set_threads
from retfound_dist.evaluate.paired import comparison
from retfound_dist.evaluate.progress import Display
from retfound_dist.evaluate.report import comparison_page, evaluation_page
from retfound_dist.evaluate.results import Evaluation
from retfound_dist.evaluate.start import Start, open_start
from retfound_dist.schema import CompareConfig, EvalOut, EvaluateConfig

COMPARE = "compare.json"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
_HOW = ("out.url", "threads", "data.workers", "checkpoint")
"""Settings that say where and how a row runs, not what comes out (weights are told by their sha256)."""


def compare_command(config_path: str, overrides: Sequence[str], quiet: bool = False) -> int:
    """Run `retfound compare`; raises RetfoundError for anything a person can mend."""
    config, _ = load(CompareConfig, config_path, overrides)
    set_threads(config.threads)
    _check_names(config)
    starts = {name: open_start(url, config.model) for name, url in config.weights.items()}
    with Display(quiet) as show:
        sizes = {start.image_size for start in starts.values()}
        sets = {size: load_labelled(config.data, size, show) for size in sorted(sizes)}
        rows = {
            name: evaluate_row(start, sets[start.image_size], row_config(config, name), show, name)
            for name, start in starts.items()
        }
        show.begin("comparing")
        tree = comparison(rows, config.bootstrap)
        _write(config, rows, starts, sets, tree)
        for sentence in tree["sentences"]:
            show.say(sentence)
        show.say(f"report: {report_url(config)}")
    return 0


def row_config(config: CompareConfig, name: str) -> EvaluateConfig:
    """The evaluation behind one row."""
    return EvaluateConfig(
        checkpoint=config.weights[name],
        data=config.data,
        out=EvalOut(url=storage.join(config.out.url, name)),
        seeds=config.seeds,
        model=config.model,
        finetune=config.finetune,
        threads=config.threads,
        bootstrap=config.bootstrap,
    )


def evaluate_row(
    start: Start, data: LabelledSet, config: EvaluateConfig, show: Display, name: str
) -> Evaluation:
    """The evaluation at `config.out.url`: read where it is complete and the same, else made."""
    held = results.read(config.out.url)
    if held and is_same(held.metrics, start, data, config):
        show.say(f"{name}: already evaluated; {headline(held)}")
        return held
    show.say(f"{name}: {start.url}")
    made = evaluate_start(start, data, config, show)
    results.write(config.out.url, made, data, evaluation_page(made, start, data))
    show.say(f"{name}: {headline(made)}")
    return made


def is_same(metrics: Mapping[str, Any], start: Start, data: LabelledSet, config: EvaluateConfig) -> bool:
    """Whether metrics.json came from these weights, these images and these settings."""
    changed = [key for key, *_ in differences(metrics["config"], to_dict(config)) if key not in _HOW]
    if start.kind != "none":
        changed = [key for key in changed if not key.startswith("model.")]
    return (
        not changed
        and metrics["checkpoint"]["sha256"] == start.identity
        and metrics["data"]["fingerprint"] == data.fingerprint
    )


def report_url(config: CompareConfig) -> str:
    """Where the page goes."""
    return config.out.report or storage.join(config.out.url, results.REPORT)


def _write(
    config: CompareConfig,
    rows: Mapping[str, Evaluation],
    starts: Mapping[str, Start],
    sets: Mapping[int, LabelledSet],
    tree: dict[str, Any],
) -> None:
    page = comparison_page(rows, starts, sets, tree["sentences"])
    storage.write_text(report_url(config), page)
    storage.write_json(storage.join(config.out.url, COMPARE), {**tree, "config": to_dict(config)})


def _check_names(config: CompareConfig) -> None:
    for name in config.weights:
        if not _NAME.match(name):
            raise ConfigError(
                f"weights.{name}: a row's name becomes a folder; use letters, digits, _ . and -"
            )
