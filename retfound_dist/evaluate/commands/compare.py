"""`retfound compare`: several starting weights, the same fine-tuning, one table and what it proves.

Each row is an evaluation of its own at OUT/<name>/ (OUT/labels_0.1/<name>/ with a tenth of the labels); a
row that is complete with the same settings, data and weights is not run again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from retfound_dist.config.loading import load, to_dict
from retfound_dist.config.schema import CompareConfig, EvalOut, EvaluateConfig
from retfound_dist.errors import ConfigError, RecordError, StorageError
from retfound_dist.evaluate.commands.comparison_row import complete_row, make_row, make_rows
from retfound_dist.evaluate.commands.evaluate import (
    headline,
    load_labelled,
    say_pretrained,
    set_threads,
)
from retfound_dist.evaluate.data.label_subset import with_label_share
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import WEIGHTS_CACHE, StartingWeights, open_starting_weights
from retfound_dist.evaluate.report import label_efficiency, text_tables
from retfound_dist.evaluate.report.evaluation_page import comparison_page
from retfound_dist.evaluate.report.paired_differences import comparison
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.results.existing_results import (
    check_out_url,
    check_rows,
    read_matching_evaluation,
)
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.io import output_files, storage
from retfound_dist.runtime.progress import ProgressDisplay

COMPARE, TABLE = "compare.json", "table.md"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


def compare_command(
    config_path: str, overrides: Sequence[str], quiet: bool = False, force: bool = False
) -> int:
    """Run `retfound compare`; raises RetfoundError for anything a person can mend."""
    config, _ = load(CompareConfig, config_path, overrides)
    set_threads(config.threads)
    _check_names(config)
    # All that can be refused is checked before images are decoded.
    check_out_url(config.out.url, force, comparison=True)
    check_rows(storage.join(config.out.url, COMPARE), config.weights, force)
    output_files.check_free(report_url(config), "compare", force, "out.report")
    memory = IdentityCache(storage.join(config.out.url, WEIGHTS_CACHE))
    starts = {name: open_starting_weights(url, config.model, memory) for name, url in config.weights.items()}
    with ProgressDisplay(quiet) as show:
        for name, start in starts.items():
            if remark := start.remark:
                show.say(f"{name}: {remark}")
        # DecodedImage once with all labels. Each share is taken from it, so that all rows see the same test
        # images.
        whole = replace(config.data, label_share=1.0)
        sizes = {start.image_size for start in starts.values()}
        sets = {size: load_labelled(whole, size, show, config.external) for size in sorted(sizes)}
        by_share = _make_rows(config, starts, sets, show, force)
        show.begin("comparing")
        rows = by_share[config.data.label_share]
        tree = comparison(rows, config.bootstrap)
        if len(by_share) > 1:
            tree["label_efficiency"] = label_efficiency.tree(by_share, config.bootstrap)
            tree["sentences"] += label_efficiency.sentences(
                [entry for entry in tree["label_efficiency"] if entry["share"] != config.data.label_share]
            )
        plots = label_efficiency.efficiency_plots(by_share)
        page = comparison_page(rows, tree["sentences"], more=plots, ties=tree["ties"])
        storage.write_text(report_url(config), page)
        scores = {name: row.metrics for name, row in rows.items()}
        storage.write_text(storage.join(config.out.url, TABLE), text_tables.markdown(scores, tree["ties"]))
        # Last: compare.json is the sign of a whole comparison.
        storage.write_json(storage.join(config.out.url, COMPARE), {**tree, "config": to_dict(config)})
        for sentence in [*text_tables.terminal(scores), *tree["sentences"]]:
            show.say(sentence)
        show.say(f"report: {report_url(config)}")
    return 0


def row_config(config: CompareConfig, name: str, share: float) -> EvaluateConfig:
    """The evaluation behind one row: OUT/NAME/, at another share of the labels OUT/labels_SHARE/NAME/."""
    folder = config.out.url
    if share != config.data.label_share:
        folder = storage.join(folder, f"labels_{share:g}")
    return EvaluateConfig(
        checkpoint=config.weights[name],
        data=replace(config.data, label_share=share),
        external=config.external,
        out=EvalOut(url=storage.join(folder, name)),
        seeds=config.seeds,
        model=config.model,
        finetune=config.finetune,
        probe=config.probe,
        threads=config.threads,
        bootstrap=config.bootstrap,
    )


def _make_rows(
    config: CompareConfig,
    starts: Mapping[str, StartingWeights],
    sets: Mapping[int, LabelledSet],
    show: ProgressDisplay,
    force: bool,
) -> dict[float, dict[str, Evaluation]]:
    """Share of labels -> row -> its evaluation: read where it is complete and the same, else made."""
    shares = list(dict.fromkeys([config.data.label_share, *config.label_shares]))
    wanted = {(share, name): row_config(config, name, share) for share in shares for name in config.weights}
    rows: dict[tuple[float, str], Evaluation] = {}
    missing: dict[tuple[float, str], EvaluateConfig] = {}
    for (share, name), row in wanted.items():
        evaluation = _complete(starts[name], _share_of(sets, starts[name], row), row)
        if evaluation:
            if evaluation.left_out:
                show.warn(f"{_title(name, share)}: {evaluation.left_out}")
            show.say(f"{_title(name, share)}: already evaluated; {headline(evaluation)}")
            say_pretrained(
                evaluation.metrics["checkpoint"]["pretrained_on"], show, f"{_title(name, share)}: "
            )
            rows[share, name] = evaluation
        else:
            check_out_url(row.out.url, force)
            # Raises where another evaluation stands there: now, and not after other rows have run for
            # hours.
            read_matching_evaluation(starts[name], _share_of(sets, starts[name], row), row, force, show.warn)
            missing[share, name] = row
    if config.jobs > 1 and len(missing) > 1:
        titled = {_title(name, share): row for (share, name), row in missing.items()}
        make_rows(titled, config.jobs, config.threads, show)
        # Rows made by other processes are read back from their files: only configs are sent between
        # processes.
        rows |= {place: _read(row) for place, row in missing.items()}
    else:
        for (share, name), row in missing.items():
            show.say(f"{_title(name, share)}: {starts[name].url}")
            rows[share, name] = make_row(starts[name], _share_of(sets, starts[name], row), row, show)
    return {share: {name: rows[share, name] for name in config.weights} for share in shares}


def _complete(start: StartingWeights, data: LabelledSet, row: EvaluateConfig) -> Evaluation | None:
    """The row where it can be taken as it stands; `read_matching_evaluation` says what to do otherwise."""
    try:
        return complete_row(start, data, row)
    except RecordError:
        return None


def _share_of(sets: Mapping[int, LabelledSet], start: StartingWeights, row: EvaluateConfig) -> LabelledSet:
    return with_label_share(sets[start.image_size], row.data.label_share, row.data.split_seed)


def _title(name: str, share: float) -> str:
    return name if share == 1 else f"{name}, {label_efficiency.percent(share)} of the labels"


def _read(row: EvaluateConfig) -> Evaluation:
    evaluation = evaluation_files.read_whole(row.out.url)
    if evaluation is None:
        raise StorageError(f"the evaluation just written to {row.out.url} cannot be read back")
    return evaluation


def report_url(config: CompareConfig) -> str:
    """Where the page goes."""
    return config.out.report or storage.join(config.out.url, evaluation_files.REPORT)


def _check_names(config: CompareConfig) -> None:
    for name in config.weights:
        if not _NAME.match(name):
            raise ConfigError(
                f"weights.{name}: a row's name becomes a folder; use letters, digits, _ . and -"
            )
