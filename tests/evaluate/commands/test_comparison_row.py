"""One row of a comparison: taken as it stands where it is whole and the same, else made in its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_dist.config.loading import load as load_config
from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.errors import RecordError
from retfound_dist.evaluate.commands.comparison_row import complete_evaluation, evaluate_and_write
from retfound_dist.evaluate.data.labelled_set import LabelledSet, load_labelled_set
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import TINY, class_folders

Row = tuple[StartingWeights, LabelledSet, EvaluateConfig]


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
    held = complete_evaluation(start, data, config)
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
    assert complete_evaluation(start, data, change(config)) is None


def test_what_was_known_of_pretraining_is_kept_while_its_shards_are_out_of_reach(row: Row) -> None:
    """A count that cannot be made now does not replace one that could be made before."""
    start, data, config = row
    of = {name: len(part) for name, part in data.parts.items()}
    known = {"train": 0, "val": 0, "test": 2, "of": of, "how": "digests of pixels and files"}
    held = evaluation_files.read(config.out.url)
    assert held is not None
    metrics = held.metrics | {"checkpoint": {**held.metrics["checkpoint"], "pretrained_on": known}}
    evaluation_files.write(config.out.url, dataclasses.replace(held, metrics=metrics), data, "")
    unknown = dataclasses.replace(start, kind="file")
    again = complete_evaluation(unknown, data, config)
    assert again is not None
    assert again.metrics["checkpoint"]["pretrained_on"] == known
    now = complete_evaluation(start, data, config)
    assert now is not None
    assert now.metrics["checkpoint"]["pretrained_on"] != known, "weights from nothing have seen nothing"


def test_a_damaged_row_is_an_error_and_not_taken_for_another(row: Row) -> None:
    start, data, config = row
    file = Path(config.out.url) / evaluation_files.PREDICTIONS
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(RecordError, match=r"predictions\.csv is damaged"):
        complete_evaluation(start, data, config)
    file.write_bytes(good)
