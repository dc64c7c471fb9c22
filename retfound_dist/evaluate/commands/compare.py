"""`retfound compare`: several starting weights with the same fine-tuning, one table, clear differences.

Each row is an evaluation in OUT/<name>/ (OUT/labels_0.1/<name>/ with a tenth of the labels, and
OUT/shots_4/draw_0/<name>/ with 4 patients of each class). A row that is complete for the same settings, data
and weights is not run again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from retfound_dist.config.loading import load, to_dict
from retfound_dist.config.schema import MULTICLASS, OWN, CompareConfig, EvalModel, Finetune, SuiteConfig
from retfound_dist.errors import (
    CheckpointError,
    ConfigError,
    RetfoundError,
    StorageError,
    WeightsError,
)
from retfound_dist.evaluate.classifier.best_row import classifier_lines
from retfound_dist.evaluate.clinical.questions import check_clinical
from retfound_dist.evaluate.commands.comparison_cells import (
    evaluate_cells,
    group_by_share,
    group_by_shots,
    input_of,
    list_cells,
)
from retfound_dist.evaluate.commands.evaluate import set_threads, versions
from retfound_dist.evaluate.commands.set_messages import load_labelled
from retfound_dist.evaluate.data.label_subset import whole_train, with_label_subset
from retfound_dist.evaluate.data.starting_weights import WEIGHTS_CACHE, StartingWeights, open_starting_weights
from retfound_dist.evaluate.few_shots.shot_report import shots_plots, shots_sentences, shots_tables
from retfound_dist.evaluate.few_shots.shot_scores import ShotPlan, plan_shots, shots_entries
from retfound_dist.evaluate.finetune.trained_parameters import check_methods
from retfound_dist.evaluate.report import label_efficiency, text_tables
from retfound_dist.evaluate.report.backbone_table import token_warning
from retfound_dist.evaluate.report.evaluation_page import comparison_page
from retfound_dist.evaluate.report.paired_differences import comparison
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.results.existing_results import check_out_url, check_rows
from retfound_dist.evaluate.task_results.task_commands import compare_task
from retfound_dist.formats import url_kinds
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.io import output_files, storage
from retfound_dist.runtime.progress import ProgressDisplay

COMPARE, TABLE = "compare.json", "table.md"
OfSizes = TypeVar("OfSizes", CompareConfig, SuiteConfig)
COMMON_SIZE = 224
"""Input side for `sizes = "same"` where no size is given (RETFound)."""
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


def compare_command(
    config_path: str, overrides: Sequence[str], quiet: bool = False, force: bool = False
) -> int:
    """Run `retfound compare`; RetfoundError for anything that a user can fix."""
    config, _ = load(CompareConfig, config_path, overrides)
    set_threads(config.threads)
    check_names("weights", config.weights)
    for one in configs_by_size(config):
        _compare(one, quiet, force)
    return 0


def configs_by_size(config: OfSizes) -> list[OfSizes]:
    """One comparison or suite, or one for each of several input sizes, in OUT/size_SIZE/."""
    if config.sizes == "own":
        return [config]
    if config.sizes == "same":
        size = COMMON_SIZE if config.model.image_size == OWN else config.model.image_size
        return [replace(config, model=replace(config.model, image_size=size))]
    return [
        replace(
            config,
            sizes="same",
            model=replace(config.model, image_size=size),
            out=replace(config.out, url=storage.join(config.out.url, f"size_{size}"), report=""),
        )
        for size in config.sizes
    ]


def _compare(config: CompareConfig, quiet: bool, force: bool) -> None:
    """All rows at one setting of the input size."""
    # Checked before images are decoded, so that errors come early.
    check_out_url(config.out.url, force, url_kinds.COMPARISON)
    check_rows(storage.join(config.out.url, COMPARE), config.weights, force)
    output_files.check_may_write(report_url(config), "compare", force, "out.report")
    weights_cache = IdentityCache(storage.join(config.out.url, WEIGHTS_CACHE))
    starts = open_rows(config.weights, config.model, config.finetune, weights_cache)
    with ProgressDisplay(quiet) as show:
        warning = show_rows(starts, show)
        # Decoded once with all labels: each subset is a part of it, so all rows have the same test images.
        all_labels = whole_train(config.data)
        backbones = {input_of(start): start.backbone for start in starts.values()}
        sets = {
            key: load_labelled(all_labels, backbones[key], show, config.external, config.task)
            for key in sorted(backbones)
        }
        if config.task.kind != MULTICLASS:
            of_rows = {
                name: with_label_subset(sets[input_of(start)], config.data) for name, start in starts.items()
            }
            compare_task(config, starts, of_rows, show, versions(), force, report_url(config), warning)
            return
        check_clinical(config.clinical, next(iter(sets.values())).classes)
        plan = plan_shots(next(iter(sets.values())), config.label_shots)
        for note in plan.notes:
            show.say(f"note: {note}")
        cells = list_cells(config, plan.shots)
        evaluations = evaluate_cells(config, cells, starts, sets, show, force)
        by_share = group_by_share(config, evaluations)
        show.begin("comparing")
        shots = shots_entries(group_by_shots(config, evaluations), plan, config.bootstrap, show.advance)
        tree = write_comparison(config, by_share, warning, shots, plan if config.label_shots else None)
        scores = {name: row.metrics for name, row in by_share[config.data.label_share].items()}
        for sentence in [*text_tables.terminal_table(scores), *tree["sentences"]]:
            show.say(sentence)
        for line in classifier_lines(config, by_share[config.data.label_share]):
            show.say(line)
        show.say(f"report: {report_url(config)}")


def show_rows(starts: Mapping[str, StartingWeights], show: ProgressDisplay) -> str:
    """Show how foreign files were read. Returns a warning where rows differ in tokens, which is shown too."""
    for name, start in starts.items():
        if remark := start.remark:
            show.say(f"{name}: {remark}")
    warning = token_warning({name: start.backbone.facts.to_json() for name, start in starts.items()})
    if warning:
        show.say(f"warning: {warning}")
    return warning


def write_comparison(
    config: CompareConfig,
    by_share: Mapping[float, Mapping[str, Evaluation]],
    warning: str,
    shots: Sequence[Mapping[str, Any]] = (),
    plan: ShotPlan | None = None,
) -> dict[str, Any]:
    """Write the page, table.md and compare.json of complete rows. Returns the content of compare.json.

    `shots`: `shots_entries` of the comparison with few patients a class, where there is one, and its `plan`.
    """
    rows = by_share[config.data.label_share]
    tree = comparison(rows, config.bootstrap)
    if warning:
        tree["sentences"] += [f"{warning[0].upper()}{warning[1:]}."]
    if len(by_share) > 1:
        tree["label_efficiency"] = label_efficiency.efficiency_entries(by_share, config.bootstrap)
        tree["sentences"] += label_efficiency.efficiency_sentences(
            [entry for entry in tree["label_efficiency"] if entry["share"] != config.data.label_share]
        )
    if plan:
        tree["label_shots"] = list(shots)
        tree["sentences"] += shots_sentences(shots, plan)
    plots = [*label_efficiency.efficiency_plots(by_share), *shots_plots(shots)]
    tables = shots_tables(shots)
    page = comparison_page(rows, tree["sentences"], lead_plots=plots, ties=tree["ties"], more_tables=tables)
    storage.write_text(report_url(config), page)
    scores = {name: row.metrics for name, row in rows.items()}
    storage.write_text(
        storage.join(config.out.url, TABLE), text_tables.markdown_tables(scores, tree["ties"], tables)
    )
    tree["config"] = to_dict(config)
    # Last, because compare.json means that the comparison is complete.
    storage.write_json(storage.join(config.out.url, COMPARE), tree)
    return tree


def open_rows(
    weights: Mapping[str, str], model: EvalModel, recipe: Finetune, weights_cache: IdentityCache
) -> dict[str, StartingWeights]:
    """The starting weights of every row; WeightsError that lists all rows that cannot be used."""
    starts: dict[str, StartingWeights] = {}
    faults: dict[str, RetfoundError] = {}
    for name, url in weights.items():
        try:
            starts[name] = open_starting_weights(url, model, weights_cache)
            check_methods(starts[name].backbone, recipe)
        except (WeightsError, CheckpointError, ConfigError, StorageError) as error:
            faults[name] = error
    # All at once: a comparison of ten downloads should not be started ten times to learn of ten faults.
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        rows = "\n".join(f"  weights.{name}: {error}" for name, error in faults.items())
        raise WeightsError(f"{len(faults)} of {len(weights)} rows cannot be used:\n{rows}")
    return starts


def report_url(config: CompareConfig) -> str:
    """The URL of the page."""
    return config.out.report or storage.join(config.out.url, evaluation_files.REPORT)


def check_names(section: str, names: Iterable[str]) -> None:
    """ConfigError where a name of a row or a set cannot be the name of a folder."""
    for name in names:
        if not _NAME.match(name):
            raise ConfigError(
                f"{section}.{name}: the name is used as a folder name; use letters, digits, _ . and -"
            )
