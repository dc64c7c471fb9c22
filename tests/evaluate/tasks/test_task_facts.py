"""A task as it is stored with a classifier."""

from __future__ import annotations

import json

import pytest

from retfound_dist.evaluate.tasks.task_facts import (
    DECISIVE,
    KINDS,
    SCORES,
    VAL_SCORE,
    TaskFacts,
    facts_from_json,
)


@pytest.mark.parametrize(
    ("facts", "outputs", "predicted"),
    [
        (TaskFacts("multilabel", ("a", "b")), 2, ("a", "b")),
        (TaskFacts("regression", ("age",), mean=60.5, std=9.25), 1, ("age",)),
        (TaskFacts("ordinal", ("stage",), grades=("low", "mid", "high")), 2, ("low", "mid", "high")),
    ],
)
def test_a_task_is_read_back_as_it_was_written(
    facts: TaskFacts, outputs: int, predicted: tuple[str, ...]
) -> None:
    assert facts_from_json(json.loads(json.dumps(facts.to_json()))) == facts
    assert facts.outputs == outputs
    assert facts.predicted_names == predicted


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="survival"):
        facts_from_json({**TaskFacts("regression", ("age",)).to_json(), "kind": "survival"})


def test_rows_are_compared_and_epochs_chosen_by_scores_that_the_kind_has() -> None:
    for kind in KINDS:
        assert set(DECISIVE[kind]) <= set(SCORES[kind])
        assert VAL_SCORE[kind] in SCORES[kind]
