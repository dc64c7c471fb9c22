"""Which two-class questions are asked, and which settings are refused."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.config.schema import Clinical
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.clinical.questions import check_clinical, list_questions

CLASSES = ("AMD", "DME", "NORMAL")


def test_each_class_is_a_question_of_its_own_even_if_there_are_two() -> None:
    assert [q.name for q in list_questions(Clinical(), CLASSES)] == ["AMD", "DME", "NORMAL"]
    assert [q.name for q in list_questions(Clinical(), ("DISEASE", "NORMAL"))] == ["DISEASE", "NORMAL"]


def test_positive_classes_are_one_question_with_their_probabilities_together() -> None:
    (question,) = list_questions(Clinical(positive=("DME", "AMD")), CLASSES)
    assert question.name == "AMD or DME"
    assert question.truth(np.array([0, 1, 2])).tolist() == [True, True, False]
    assert question.score(np.array([[0.1, 0.2, 0.7]])).tolist() == [0.3]
    assert question.prevalence({"AMD": 0.25, "DME": 0.5}) == 0.75
    assert question.prevalence({"AMD": 0.02}) is None


def test_an_external_set_without_the_positive_classes_has_no_question() -> None:
    asked = Clinical(positive=("DME",))
    assert list_questions(asked, ("AMD", "NORMAL")) == ()
    assert [q.name for q in list_questions(asked, ("DME", "NORMAL"))] == ["DME"]
    assert list_questions(Clinical(positive=("AMD", "DME")), ("AMD", "DME")) == ()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Clinical(positive=("DMEE",)), "positive names DMEE, .* its classes are AMD, DME, NORMAL"),
        (Clinical(prevalence={"X": 0.1}), "prevalence names X, but the labelled set has no such class"),
        (Clinical(positive=CLASSES), "names all classes .*: leave out those that are healthy"),
        (Clinical(prevalence={"AMD": 0.6, "DME": 0.5}), r"1\.1 together: .* less than 1 without NORMAL"),
        (Clinical(prevalence={"AMD": 0.6, "DME": 0.4}), "of 1 together: .* less than 1 without NORMAL"),
        (Clinical(prevalence={"AMD": 0.6, "DME": 0.1, "NORMAL": 0.4}), r"1\.1 together: .* sum to 1"),
        (
            Clinical(positive=("AMD",), prevalence={"AMD": 0.6, "DME": 0.4, "NORMAL": 0.4}),
            r"1\.4 together: .* sum to 1",
        ),
    ],
)
def test_settings_that_do_not_fit_the_set_get_one_line(settings: Clinical, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_clinical(settings, CLASSES)
    assert "\n" not in str(caught.value)
    check_clinical(Clinical(positive=("AMD",), prevalence={"AMD": 0.02}), CLASSES)


@pytest.mark.parametrize("positive", [(), ("AMD", "DME")])
def test_a_table_of_all_classes_may_sum_to_one(positive: tuple[str, ...]) -> None:
    # In floats these sum to a little more than 1.
    table = {"AMD": 0.1, "DME": 0.2, "NORMAL": 0.7}
    settings = Clinical(positive=positive, prevalence={**table, "NORMAL": 0.7 + 1e-12})
    check_clinical(settings, CLASSES)
    first = list_questions(settings, CLASSES)[0]
    assert first.prevalence(settings.prevalence) == pytest.approx(0.3 if positive else 0.1)
