"""Sums over stretches are the sums of the weights one by one, and exact in whatever type they are added."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.scores.ranking_sums import Chunk, Segments, group_by_number, rank


def slow_counts(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives (R, K) at every distinct score, falling."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    sorted_weights = weights[:, order].astype(float)
    true = np.cumsum(sorted_weights * truth[order], axis=1)[:, last_of_tie]
    false = np.cumsum(sorted_weights * ~truth[order], axis=1)[:, last_of_tie]
    return true, false


@pytest.mark.parametrize("digits", [1, 2, 8])
@pytest.mark.parametrize("whole", [True, False])
def test_bends_are_points_of_the_whole_curve_and_it_is_straight_between_them(
    digits: int, whole: bool
) -> None:
    draw = np.random.default_rng(digits)
    truth, score = draw.random(200) < 0.1, np.round(draw.random(200), digits)
    weights = draw.poisson(1, (6, 200)).astype(np.uint8) if whole else draw.random((6, 200))
    true, false = (np.insert(found.T, 0, 0, axis=1) for found in rank(truth, score).counts(Chunk(weights)))
    assert len(true.T) == 2 + 2 * len(np.unique(score[truth]))
    for r, (all_true, all_false) in enumerate(zip(*slow_counts(truth, score, weights), strict=True)):
        for y, x in zip(all_true, all_false, strict=True):
            ends = np.interp(x, false[r], true[r]) if np.abs(x - false[r]).min() > 1e-9 else y
            assert y == pytest.approx(ends, abs=1e-9)
        whole_curve = {
            (round(y, 6), round(x, 6)) for y, x in zip([0, *all_true], [0, *all_false], strict=True)
        }
        assert {(round(y, 6), round(x, 6)) for y, x in zip(true[r], false[r], strict=True)} <= whole_curve


def test_a_ranking_of_few_bends_keeps_the_first_the_last_and_exact_counts() -> None:
    draw = np.random.default_rng(0)
    truth, score = draw.random(500) < 0.5, draw.random(500)
    weights = np.ones((1, 500), np.uint8)
    ranking = rank(truth, score)
    few, all_of_them = (each.counts(Chunk(weights)) for each in (ranking.at_most(10), ranking))
    assert len(few[0]) == 21
    points = set(zip(all_of_them[0][:, 0], all_of_them[1][:, 0], strict=True))
    some = list(zip(few[0][:, 0], few[1][:, 0], strict=True))
    assert set(some) <= points
    assert some[-1] == (truth.sum(), (~truth).sum())
    assert some[1] == (1, (score[~truth] > score[truth].max()).sum())
    assert few[0][-2, 0] == truth.sum()
    assert ranking.at_most(truth.sum()) is ranking


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (0, np.uint16),
        (2**16 - 1, np.uint16),
        (2**16, np.float32),
        (2**24, np.float32),
        (2**24 + 1, np.float64),
    ],
)
def test_a_type_is_used_up_to_the_last_sum_that_it_holds(images: int, kind: type) -> None:
    assert Chunk(np.ones((2, 5), np.uint8)).transposed_for_sums(images).dtype == kind


@pytest.mark.parametrize(("images", "kind"), [(200, np.uint16), (60_000, np.float32), (2**24, np.float64)])
def test_whole_numbers_are_added_in_a_type_that_holds_their_sum(images: int, kind: type) -> None:
    chunk = Chunk(np.full((2, 5), 255, np.uint8))
    assert chunk.transposed_for_sums(images).dtype == kind
    assert chunk.transposed_for_sums(images) is chunk.transposed_for_sums(images)
    assert Chunk(np.full((2, 5), 0.5)).transposed_for_sums(images).dtype == np.float64


def test_the_largest_sums_of_each_type_are_exact() -> None:
    for images, most in ((257, 255), (65_793, 255), (65_794, 255), (70_000, 255)):
        weights = np.full((1, images), most, np.uint8)
        whole = Segments(np.arange(images), np.array([0, images]))
        assert whole.sums(Chunk(weights)).tolist() == [[images * most]]


def test_sums_of_stretches_can_be_added_up_further_without_rounding() -> None:
    """Each fits a small type, all of them do not."""
    for images, count in ((200, 3), (60_000, 3)):
        weights = np.full((1, images * count), 255, np.uint8)
        found = Segments(np.arange(images * count), np.arange(count + 1) * images).sums(Chunk(weights))
        assert found.dtype == np.float64
        assert np.cumsum(found, axis=0)[-1, 0] == images * count * 255


def test_of_no_images_and_of_no_weightings_there_are_no_sums() -> None:
    distinct, found = group_by_number(np.array([], np.int64))
    assert distinct.tolist() == []
    assert found.sums(Chunk(np.ones((2, 0), np.uint8))).shape == (0, 2)
    assert group_by_number(np.array([7, 2, 7]))[1].sums(Chunk(np.ones((0, 3), np.uint8))).shape == (2, 0)


def test_images_are_summed_by_their_number_and_empty_stretches_are_zero() -> None:
    distinct, found = group_by_number(np.array([7, 2, 7, 5]))
    sums = found.sums(Chunk(np.array([[1, 2, 3, 4], [0, 1, 0, 1]], np.uint8)))
    assert distinct.tolist() == [2, 5, 7]
    assert sums.tolist() == [[2, 1], [4, 1], [4, 0]]
    none = rank(np.zeros(3, bool), np.arange(3.0)).counts(Chunk(np.ones((1, 3))))
    assert [part.tolist() for part in none] == [[[0]], [[3]]]


@pytest.mark.parametrize("kind", [np.uint8, float])
def test_a_ranking_by_unit_counts_each_image_with_the_weight_of_its_unit(kind: type) -> None:
    draw = np.random.default_rng(2)
    truth, score, units = draw.random(200) < 0.3, draw.random(200).round(2), draw.integers(0, 40, 200)
    weights_RU = draw.poisson(1, (9, 40)).astype(kind)
    ranking = rank(truth, score)
    by_image, by_unit = (
        ranking.counts(Chunk(weights_RU[:, units])),
        ranking.by_unit(units).counts(Chunk(weights_RU)),
    )
    for one, other in zip(by_image, by_unit, strict=True):
        np.testing.assert_array_equal(one, other)
