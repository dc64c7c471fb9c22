"""`retfound compare`: several starting weights, the same fine-tuning, one table and what it proves.

Each row is an evaluation of its own at OUT/<name>/; a row that is complete with the same settings, data
and weights is not run again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist import storage
from retfound_dist.config import load, to_dict
from retfound_dist.errors import ConfigError, StorageError
from retfound_dist.evaluate import results
from retfound_dist.evaluate.dataset import LabelledSet
from retfound_dist.evaluate.evaluate import headline, load_labelled, set_threads
from retfound_dist.evaluate.paired import comparison
from retfound_dist.evaluate.progress import Display
from retfound_dist.evaluate.report import comparison_page
from retfound_dist.evaluate.results import Evaluation
from retfound_dist.evaluate.row import complete_row, make_row
from retfound_dist.evaluate.sidebyside import make_rows
from retfound_dist.evaluate.start import Start, open_start
from retfound_dist.schema import CompareConfig, EvalOut, EvaluateConfig

COMPARE = "compare.json"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


def compare_command(config_path: str, overrides: Sequence[str], quiet: bool = False) -> int:
    """Run `retfound compare`; raises RetfoundError for anything a person can mend."""
    config, _ = load(CompareConfig, config_path, overrides)
    set_threads(config.threads)
    _check_names(config)
    starts = {name: open_start(url, config.model) for name, url in config.weights.items()}
    with Display(quiet) as show:
        sizes = {start.image_size for start in starts.values()}
        sets = {size: load_labelled(config.data, size, show, config.external) for size in sorted(sizes)}
        rows = _make_rows(config, starts, sets, show)
        show.begin("comparing")
        tree = comparison(rows, config.bootstrap)
        _write(config, rows, tree)
        for sentence in tree["sentences"]:
            show.say(sentence)
        show.say(f"report: {report_url(config)}")
    return 0


def row_config(config: CompareConfig, name: str) -> EvaluateConfig:
    """The evaluation behind one row."""
    return EvaluateConfig(
        checkpoint=config.weights[name],
        data=config.data,
        external=config.external,
        out=EvalOut(url=storage.join(config.out.url, name)),
        seeds=config.seeds,
        model=config.model,
        finetune=config.finetune,
        probe=config.probe,
        threads=config.threads,
        bootstrap=config.bootstrap,
    )


def _make_rows(
    config: CompareConfig, starts: Mapping[str, Start], sets: Mapping[int, LabelledSet], show: Display
) -> dict[str, Evaluation]:
    """Every row's evaluation: read where it is complete and the same, else made."""
    wanted = {name: row_config(config, name) for name in config.weights}
    rows: dict[str, Evaluation] = {}
    for name, row in wanted.items():
        held = complete_row(starts[name], sets[starts[name].image_size], row)
        if held:
            show.say(f"{name}: already evaluated; {headline(held)}")
            rows[name] = held
    missing = {name: row for name, row in wanted.items() if name not in rows}
    if config.jobs > 1 and len(missing) > 1:
        make_rows(missing, config.jobs, config.threads, show)
        rows |= {name: _read(row) for name, row in missing.items()}
    else:
        for name, row in missing.items():
            show.say(f"{name}: {starts[name].url}")
            rows[name] = make_row(starts[name], sets[starts[name].image_size], row, show)
    return {name: rows[name] for name in wanted}


def _read(row: EvaluateConfig) -> Evaluation:
    held = results.read(row.out.url)
    if held is None:
        raise StorageError(f"the evaluation just written to {row.out.url} cannot be read back")
    return held


def report_url(config: CompareConfig) -> str:
    """Where the page goes."""
    return config.out.report or storage.join(config.out.url, results.REPORT)


def _write(config: CompareConfig, rows: Mapping[str, Evaluation], tree: dict[str, Any]) -> None:
    page = comparison_page(rows, tree["sentences"])
    storage.write_text(report_url(config), page)
    storage.write_json(storage.join(config.out.url, COMPARE), {**tree, "config": to_dict(config)})


def _check_names(config: CompareConfig) -> None:
    for name in config.weights:
        if not _NAME.match(name):
            raise ConfigError(
                f"weights.{name}: a row's name becomes a folder; use letters, digits, _ . and -"
            )
