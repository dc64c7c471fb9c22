"""Which curves a page shows, and the losses they are drawn from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from retfound_dist.evaluate.report.training_plots import (
    finetune_plots,
    pretraining_plots,
    read_losses,
    whisker_plots,
)
from tests.evaluate.inputs import checkpoint
from tests.evaluate.made import predictions


def test_losses_are_read_past_broken_lines_and_the_last_line_of_a_step_counts(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 3.0}', '{"step": 2, "loss": 2.0}', '{"step": 2, "loss": 1.5}', '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_losses(str(tmp_path)) == ([1, 2], [3.0, 1.5])
    assert read_losses(str(tmp_path / "none")) == ([], [])


def test_validation_curves_are_shown_where_there_was_a_validation_part() -> None:
    row = predictions(0)
    loss, auroc = finetune_plots(row)
    assert [name for _, name in loss.legend] == ["train", "validation"]
    assert ">kept<" in auroc.svg
    without = [{**line, "val_loss": None, "val_auroc": None} for line in row.history]
    (only,) = finetune_plots(dataclasses.replace(row, history=without))
    assert [name for _, name in only.legend] == ["train"]


def test_each_run_has_one_loss_curve_with_a_mark_for_each_of_its_checkpoints(tmp_path: Path) -> None:
    trees = {}
    for run, step in (("a", 5), ("a", 10), ("b", 5)):
        url = checkpoint(tmp_path / run, step)
        trees[f"{run}{step}"] = {"checkpoint": {"url": url, "step": step}}
    trees["none"] = {"checkpoint": {"url": "none", "step": None}}
    first, second = pretraining_plots(trees)
    assert (">a5<" in first.svg, ">a10<" in first.svg, ">b5<" in first.svg) == (True, True, False)
    assert ">b5<" in second.svg
    (tmp_path / "b" / "metrics.jsonl").unlink()
    assert len(pretraining_plots(trees)) == 1


def test_guessing_is_drawn_where_its_level_is_known() -> None:
    plots = {plot.title: plot.note for plot in whisker_plots({"a": predictions(0).metrics})}
    assert [title for title in plots if plots[title]] == [
        "AUROC with 95 % interval",
        "Balanced accuracy with 95 % interval",
    ]
