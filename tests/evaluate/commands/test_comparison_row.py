"""One row of a comparison: taken as it stands where it is whole and the same, else made in its folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_dist.config.loading import load as load_config
from retfound_dist.config.schema import Clinical, EvaluateConfig
from retfound_dist.errors import RecordError
from retfound_dist.evaluate.commands.comparison_row import (
    complete_evaluation,
    evaluate_and_write,
    reusable_evaluation,
)
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import TINY, class_folders

Row = tuple[StartingWeights, LabelledSet, EvaluateConfig]
SHOW = ProgressDisplay(quiet=True)


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Row:
    """A row that was made."""
    root = tmp_path_factory.mktemp("row")
    (root / "e.toml").write_text(
        f'checkpoint = "none"\n[data]\npath = "{class_folders(root / "set")}"\n[out]\nurl = "{root / "out"}"\n'
    )
    config, _ = load_config(EvaluateConfig, str(root / "e.toml"), [*TINY, "finetune.epochs=1"])
    start = open_starting_weights("none", config.model)
    data = load_labelled_set(config.data, start.image_size)
    with ProgressDisplay(quiet=True) as show:
        evaluate_and_write(start, data, config, show)
    return start, data, config


def test_a_row_is_whole_in_its_folder_and_taken_as_it_stands(row: Row) -> None:
    start, data, config = row
    out = Path(config.out.url)
    assert {evaluation_files.METRICS, evaluation_files.REPORT} <= {path.name for path in out.iterdir()}
    held = complete_evaluation(start, data, config, SHOW)
    assert held is not None
    assert held.metrics["checkpoint"]["kind"] == "none"


@pytest.mark.parametrize(
    "change",
    [
        lambda config: dataclasses.replace(config, seeds=(3,)),
        lambda config: dataclasses.replace(config, out=dataclasses.replace(config.out, url="nowhere")),
    ],
)
def test_another_row_and_none_are_not_taken(
    row: Row, change: Callable[[EvaluateConfig], EvaluateConfig]
) -> None:
    start, data, config = row
    assert complete_evaluation(start, data, change(config), SHOW) is None


def test_what_was_known_of_pretraining_is_kept_while_its_shards_are_out_of_reach(row: Row) -> None:
    """A count that cannot be made now does not replace one that could be made before."""
    start, data, config = row
    of = {name: len(part) for name, part in data.parts.items()}
    known = {"train": 0, "val": 0, "test": 2, "of": of, "how": "digests of pixels and files"}
    held = evaluation_files.read(config.out.url)
    assert held is not None
    metrics = held.metrics | {"checkpoint": {**held.metrics["checkpoint"], "pretrained_on": known}}
    (Path(config.out.url) / evaluation_files.METRICS).write_text(json.dumps(metrics))
    unknown = dataclasses.replace(start, kind="file")
    again = complete_evaluation(unknown, data, config, SHOW)
    assert again is not None
    assert again.metrics["checkpoint"]["pretrained_on"] == known
    now = complete_evaluation(start, data, config, SHOW)
    assert now is not None
    assert now.metrics["checkpoint"]["pretrained_on"] != known, "weights from nothing have seen nothing"


def test_a_damaged_row_is_an_error_and_not_taken_for_another(row: Row) -> None:
    start, data, config = row
    file = Path(config.out.url) / evaluation_files.PREDICTIONS
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(RecordError, match=r"predictions\.csv is damaged"):
        complete_evaluation(start, data, config, SHOW)
    file.write_bytes(good)


def asked_for(config: EvaluateConfig, specificity: float) -> EvaluateConfig:
    return dataclasses.replace(config, clinical=Clinical(specificities=(specificity,)))


def test_a_row_that_is_scored_again_says_so_once(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    start, data, config = row
    with ProgressDisplay() as show:
        for _ in range(2):
            assert reusable_evaluation(start, data, asked_for(config, 0.8), show) is not None
    assert capsys.readouterr().out.count(f"{config.out.url}: scored again for the clinical settings") == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: text.replace(b"CSR", b"XXX", 3), "is damaged"),
        (lambda text: text[: text.index(b"\n") + 1], "is damaged .*it has other images than the val part"),
        (None, "does not exist"),
    ],
)
def test_damaged_predictions_of_val_are_an_error_where_a_row_has_to_be_scored_again(
    row: Row, damage: Callable[[bytes], bytes] | None, said: str
) -> None:
    """Neither a traceback nor hours of fine-tuning that nobody has asked for."""
    start, data, config = row
    file = Path(config.out.url) / evaluation_files.VAL
    good = file.read_bytes()
    if damage:
        file.write_bytes(damage(good))
    else:
        file.unlink()
    try:
        for read in (complete_evaluation, reusable_evaluation):
            with pytest.raises(RecordError, match=rf"val_predictions\.csv {said}.*--force") as error:
                read(start, data, asked_for(config, 0.7), SHOW)
            assert "\n" not in str(error.value)
    finally:
        file.write_bytes(good)
