from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from retfound_dist.config.loading import load as load_config
from retfound_dist.config.schema import EvalData, EvaluateConfig
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult, predict
from retfound_dist.evaluate.finetune.seeds import finetune_other_seeds, finetune_seed, seed_statistics
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import TINY, class_folders

QUIET = ProgressDisplay(quiet=True)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    root = class_folders(tmp_path_factory.mktemp("seeds") / "set")
    return load_labelled_set(EvalData(path=str(root)), 28)


@pytest.fixture(scope="module")
def config(labelled: LabelledSet) -> EvaluateConfig:
    settings = [*TINY, "checkpoint=none", f"data.path={labelled.path}", "out.url=none", "seeds=[4, 5, 6]"]
    settings += ["finetune.epochs=1", "threads=1"]
    return load_config(EvaluateConfig, "configs/evaluate_octid.toml", settings)[0]


@pytest.fixture(scope="module")
def start(config: EvaluateConfig) -> StartingWeights:
    return open_starting_weights("none", config.model)


def outcome(seed: int, probabilities: np.ndarray) -> FinetuneResult:
    return FinetuneResult(seed, [], 1, probabilities)


def test_the_model_of_a_seed_is_the_one_that_made_its_predictions(
    start: StartingWeights, labelled: LabelledSet, config: EvaluateConfig
) -> None:
    result, model = finetune_seed(start, labelled, config, config.finetune, 4, QUIET)
    assert result.seed == 4
    assert np.array_equal(
        predict(model, start.backbone, labelled.parts["test"], config.finetune), result.probabilities
    )


def test_later_seeds_are_all_but_the_first_and_the_same_one_by_one_and_side_by_side(
    start: StartingWeights, labelled: LabelledSet, config: EvaluateConfig
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = finetune_other_seeds(start, labelled, config, config.finetune, QUIET)
    finally:
        torch.set_num_threads(threads)
    beside = finetune_other_seeds(start, labelled, replace(config, jobs=2, threads=2), config.finetune, QUIET)
    assert [row.seed for row in alone] == [row.seed for row in beside] == [5, 6]
    assert not np.array_equal(alone[0].probabilities, alone[1].probabilities)
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)


def test_seeds_are_told_with_their_mean_and_spread(labelled: LabelledSet) -> None:
    """Of six test images, two a class: all right, one wrong, three wrong."""
    labels = labelled.parts["test"].labels
    assert len(labels) == 6
    guesses = [labels, labels.copy(), labels.copy()]
    guesses[1][:1] = (labels[:1] + 1) % 3
    guesses[2][:3] = (labels[:3] + 1) % 3
    outcomes = [outcome(10 + n, 0.1 + 0.7 * np.eye(3)[guess]) for n, guess in enumerate(guesses)]
    tree = seed_statistics(outcomes, labelled)
    assert [row["seed"] for row in tree["per_seed"]] == [10, 11, 12]
    accuracies = [1, 5 / 6, 1 / 2]
    assert [row["macro"]["accuracy"] for row in tree["per_seed"]] == pytest.approx(accuracies)
    spread = tree["over_seeds"]["macro"]["accuracy"]
    assert spread["mean"] == pytest.approx(statistics.mean(accuracies))
    assert spread["std"] == pytest.approx(statistics.stdev(accuracies))


def test_one_seed_has_no_spread_and_a_score_that_one_seed_lacks_has_no_mean(labelled: LabelledSet) -> None:
    labels = labelled.parts["test"].labels
    right = outcome(0, 0.1 + 0.7 * np.eye(3)[labels])
    constant = outcome(1, np.tile([0.8, 0.1, 0.1], (6, 1)))
    alone = seed_statistics([right], labelled)["over_seeds"]
    assert alone["macro"]["accuracy"] == {"mean": 1.0, "std": None}
    both = seed_statistics([right, constant], labelled)
    assert both["per_seed"][1]["macro"]["precision"] is None
    assert both["over_seeds"]["macro"]["precision"] == {"mean": None, "std": None}
    assert both["over_seeds"]["macro"]["accuracy"]["mean"] == pytest.approx((1 + 1 / 3) / 2)
