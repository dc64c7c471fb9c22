"""`report.html`: one self-contained page for one evaluation, or for several side by side.

The page is a template with a context. The context depends only on files of the evaluation, so the page of an
old evaluation can be drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from retfound_dist.evaluate.clinical.clinical_tables import (
    brier_tables,
    compared_table,
    point_tables,
    subgroup_tables,
)
from retfound_dist.evaluate.clinical.clinical_wording import (
    GAPS,
    NOT_A_DEVICE,
    clinical_sentences,
    explanations,
    subgroup_sentences,
)
from retfound_dist.evaluate.data.starting_weights import NONE
from retfound_dist.evaluate.report.backbone_table import backbone_tables
from retfound_dist.evaluate.report.gallery import choose_rows, mistake_groups, reconstruction_blocks
from retfound_dist.evaluate.report.prediction_plots import (
    CALIBRATION,
    FEATURES,
    calibration_plots,
    class_plots,
    decision_plots,
    feature_plots,
    mean_plots,
    reliability_plots,
    subgroup_plots,
)
from retfound_dist.evaluate.report.score_tables import (
    Ties,
    class_details,
    external_details,
    external_tables,
    probe_tables,
    score_table,
)
from retfound_dist.evaluate.report.training_plots import (
    Plot,
    compared_curves,
    finetune_plots,
    pretraining_plots,
    whisker_plots,
)
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import probe_wording, wording
from retfound_dist.evaluate.scores.unit_wording import describe_test_part, unit_name, unit_noun
from retfound_dist.io import output_files


def evaluation_page(evaluation: Evaluation, alarms: Sequence[str] = ()) -> str:
    """The page of one evaluation. `alarms` are shown in red at the top."""
    metrics = evaluation.metrics
    # Tables and plots take the rows of a comparison. This page has one row, which needs no name.
    row, metrics_of_row = {"": evaluation}, {"": metrics}
    return render(
        title=f"Evaluation on {metrics['data']['path']}",
        subtitle=f"Starting weights: {wording.describe_start(metrics['checkpoint'])}",
        alarms=alarms,
        summary=[
            *wording.summary(metrics),
            *probe_wording.attentive_gain(metrics.get("probe")),
            "This page cannot show whether pretraining helped: run retfound compare for that.",
        ],
        warnings=wording.warnings(metrics),
        tables=[
            score_table("macro", metrics_of_row),
            score_table("legacy", metrics_of_row),
            *probe_tables(metrics_of_row),
            *external_tables(metrics_of_row),
            *backbone_tables(metrics_of_row),
        ],
        lead=[],
        plots=[
            *pretraining_plots(metrics_of_row),
            *finetune_plots(evaluation),
            *class_plots(evaluation),
            *mean_plots(row),
            *(
                replace(plot, title=title, note=f"{plot.note}. {note}")
                for title, note, plots in _plot_sections(row)
                for plot in plots
            ),
        ],
        sections=[],
        panels=_clinical_panels(evaluation),
        reconstructions=reconstruction_blocks(row),
        mistakes=mistake_groups(row),
        rows=[class_details("", evaluation), *external_details("", evaluation)],
        own_plots={},
        left_out=0,
        facts=_setup_facts(row),
    )


def comparison_page(
    rows: Mapping[str, Evaluation],
    sentences: Sequence[str],
    alarms: Sequence[str] = (),
    lead_plots: Sequence[Plot] = (),
    ties: Ties | None = None,
    more_tables: Sequence[dict[str, Any]] = (),
) -> str:
    """The page of several evaluations that differ in their starting weights.

    `rows`: name of the row -> its evaluation. `sentences`: what the comparison showed. `alarms` are shown in
    red. `lead_plots` follow the usual plots at the top, `more_tables` the usual tables. `ties`: the rows that
    get a mark, because they may equal the best one.
    """
    context = comparison_context(rows, ties)
    context["tables"] = [*context["tables"], *more_tables]
    context["lead"] = [*context["lead"], *lead_plots]
    name, evaluation = next(iter(rows.items()))
    first = evaluation.metrics
    test = describe_test_part(first) + (f" of {first['patients']} patients" if first["patients"] else "")
    # Rows have a "tuning" where each chose its recipe by the scores on val (`finetune.try_recipes`).
    has_tuning = any("tuning" in row.metrics for row in rows.values())
    same_settings = "the same recipes to choose from" if has_tuning else "the same fine-tuning"
    return render(
        "compare",
        title=f"Starting weights compared on {first['data']['path']}",
        subtitle=f"{len(rows)} starting weights, {same_settings} for each, {test}",
        alarms=alarms,
        summary=[*sentences, wording.describe_intervals(first, name)],
        **context,
    )


def comparison_context(rows: Mapping[str, Evaluation], ties: Ties | None = None) -> dict[str, Any]:
    """The context of several evaluations. Only some rows have their own curves and pictures."""
    metrics = {name: row.metrics for name, row in rows.items()}
    shown_rows = choose_rows(rows)
    return {
        "warnings": _shared_warnings(metrics),
        "tables": [
            score_table("macro", metrics, ties),
            score_table("legacy", metrics, ties),
            *probe_tables(metrics),
            *external_tables(metrics),
            *compared_table(metrics),
            *backbone_tables(metrics),
        ],
        "lead": whisker_plots(metrics),
        "plots": [
            *pretraining_plots({name: row.metrics for name, row in shown_rows.items()}),
            *compared_curves(shown_rows),
            *mean_plots(shown_rows),
        ],
        "sections": _plot_sections(shown_rows),
        "panels": [],
        "reconstructions": reconstruction_blocks(shown_rows),
        "mistakes": mistake_groups(shown_rows),
        "rows": [
            d for name, row in rows.items() for d in (class_details(name, row), *external_details(name, row))
        ],
        "own_plots": {name: class_plots(row) for name, row in shown_rows.items()},
        "left_out": len(rows) - len(shown_rows),
        "facts": _setup_facts(rows),
    }


def empty_context() -> dict[str, Any]:
    """What the page's template needs, all of it empty. A page replaces the entries that it has."""
    lists = (
        "warnings",
        "tables",
        "lead",
        "plots",
        "sections",
        "panels",
        "reconstructions",
        "mistakes",
        "rows",
    )
    return {**{name: [] for name in lists}, "facts": [], "own_plots": {}, "left_out": 0}


def render(made_by: str = "evaluate", **context: Any) -> str:
    """The page of a context. `made_by`: the command that is named in the page as its maker."""
    # StrictUndefined raises where a name is missing in the context. Jinja's default would leave a gap.
    loader = PackageLoader("retfound_dist.evaluate.report", ".")
    template = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return template.get_template("report.html.j2").render(mark=output_files.mark(made_by), **context)


def _clinical_panels(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What a clinic asks of test and of the external set; empty for evaluations of older versions."""
    panels, unit = [], unit_name(evaluation.metrics)
    parts: dict[str, Mapping[str, Any]] = {"": evaluation.metrics}
    if external := evaluation.metrics.get("external"):
        parts[f", on the external set {external['data']['path']}"] = external
    for where, tree in parts.items():
        if clinical := tree.get("clinical"):
            panels.append(
                {
                    "title": f"For clinical use{where}",
                    "lines": [*clinical_sentences(clinical), *explanations(unit), NOT_A_DEVICE],
                    "tables": [*point_tables(clinical, f"{unit}s"), *brier_tables(clinical["calibration"])],
                    # The page has no probabilities of the external set.
                    "plots": [*([] if where else reliability_plots(evaluation)), *decision_plots(clinical)],
                }
            )
        if subgroups := tree.get("subgroups"):
            panels.append(
                {
                    "title": f"Subgroups{where}",
                    "lines": [*subgroup_sentences(subgroups), GAPS],
                    "tables": subgroup_tables(subgroups, f"{unit}s"),
                    "plots": subgroup_plots(subgroups),
                }
            )
    return panels


def _plot_sections(rows: Mapping[str, Evaluation]) -> list[tuple[str, str, list[Plot]]]:
    """Sections with a plot for each row: (title, note, plots)."""
    sections = [
        ("Calibration", CALIBRATION, calibration_plots(rows)),
        ("Frozen features", FEATURES, feature_plots(rows)),
    ]
    return [(title, note, plots) for title, note, plots in sections if plots]


def _shared_warnings(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings for all rows once, then those for some rows (pretraining, undefined scores) with the names."""
    rows = {
        name: (wording.pretrained_warning(m["checkpoint"].get("pretrained_on")), wording.undefined_warning(m))
        for name, m in metrics.items()
    }
    common = [line for n, m in metrics.items() for line in wording.warnings(m) if line not in rows[n]]
    names_by_line: dict[str, list[str]] = {}
    for name, lines in rows.items():
        for line in filter(None, lines):
            names_by_line.setdefault(line, []).append(f"\u201c{name}\u201d")
    of_rows = [f"{', '.join(names)}: {line}" for line, names in names_by_line.items()]
    return [*dict.fromkeys(common), *of_rows]


def _recipe_facts(rows: Mapping[str, Evaluation]) -> list[tuple[str, str]]:
    """The recipe of each row that was chosen on the val part."""
    chosen = {name: row.metrics["tuning"] for name, row in rows.items() if "tuning" in row.metrics}
    return [
        (
            f"Recipe chosen by val{name and f', “{name}”'}",
            wording.describe_tuning(tuning["recipe"], tuning["tried"]),
        )
        for name, tuning in chosen.items()
    ]


def _pretraining_facts(rows: Mapping[str, Evaluation]) -> list[tuple[str, str]]:
    """The number of images of the set that the weights of each row were pretrained on."""
    return [
        (f"Seen in pretraining{name and f', “{name}”'}", wording.pretrained_note(overlap))
        for name, row in rows.items()
        if row.metrics["checkpoint"]["kind"] != NONE
        and (overlap := row.metrics["checkpoint"].get("pretrained_on"))
    ]


def _setup_facts(rows: Mapping[str, Evaluation]) -> list[tuple[str, str]]:
    """Pairs of name and text: what all rows of the page have in common."""
    # All rows have the same set, split and fine-tuning, so the first row is enough.
    metrics = next(iter(rows.values())).metrics
    split = metrics["split"]
    # Without `try_recipes`: the chosen recipe has its own line.
    recipe = {key: value for key, value in metrics["config"]["finetune"].items() if key != "try_recipes"}
    if recipe.get("method") != "lora" and not _recipe_facts(rows):
        recipe = {key: value for key, value in recipe.items() if not key.startswith("lora_")}
    parts = ", ".join(
        f"{name} {split[name]} {unit_noun(metrics)}"
        + (f", {split['images'][name]} images" if "images" in split else "")
        + (f" of {split['patients'][name]} patients" if split["patients"][name] else "")
        for name in ("train", "val", "test")
    )
    split_by = wording.describe_split(split["by"], split.get("known_by", {}))
    return [
        ("Labelled set", metrics["data"]["path"]),
        ("Parts", f"{parts}; split {split_by}"),
        *([("Columns", metrics["data"]["columns"])] if metrics["data"].get("columns") else []),
        ("Fine-tuning", ", ".join(f"{key} {value or 'none'}" for key, value in recipe.items())),
        *_recipe_facts(rows),
        *_pretraining_facts(rows),
        ("Seeds", ", ".join(map(str, metrics["seeds"]))),
        ("Versions", ", ".join(f"{key} {value}" for key, value in metrics["versions"].items())),
    ]
