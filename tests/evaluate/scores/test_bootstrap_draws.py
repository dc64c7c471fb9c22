"""What `scores/bootstrap.py` draws: patients or images, and fine-tunings."""

from __future__ import annotations

import numpy as np

from retfound_dist.evaluate.scores import bootstrap
from tests.evaluate.scores.drawn_predictions import predictions


def test_seeds_that_differ_widen_the_interval_and_equal_ones_do_not() -> None:
    labels, p = predictions()
    weights = bootstrap.resample(np.arange(len(labels)), 400, 0)
    alone = bootstrap.scores(labels, p, weights)
    for kind, group in bootstrap.scores_over_seeds(labels, np.stack([p, p, p]), weights).items():
        for name, values in group.items():
            np.testing.assert_allclose(values, alone[kind][name], err_msg=name)
    bad = np.random.default_rng(2).dirichlet(np.ones(4), len(labels))
    mixed = bootstrap.scores_over_seeds(labels, np.stack([p, p, bad]), weights)["macro"]["auroc"]
    assert mixed.std() > 2 * alone["macro"]["auroc"].std()


def test_a_resample_scores_the_mean_of_the_seeds_that_it_drew() -> None:
    labels, p = predictions()
    seeds = np.stack([p, np.roll(p, 1, axis=0)])
    every = np.ones((200, len(labels)))
    found = set(bootstrap.scores_over_seeds(labels, seeds, every)["macro"]["aupr"].round(9))
    both = bootstrap.scores(labels, seeds.mean(0), every[:1])["macro"]["aupr"]
    each = [bootstrap.scores(labels, one, every[:1])["macro"]["aupr"] for one in seeds]
    assert found == {round(float(x[0]), 9) for x in (both, *each)}


def test_all_images_of_a_patient_come_along_together() -> None:
    unit, numbers = bootstrap.resampling_units(["a", "b", "a", "c", "b"], list("12345"))
    weights = bootstrap.resample(numbers, 50, seed=0)
    assert unit == "patient"
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    patients = weights[:, [0, 1, 3]]
    assert (patients.sum(1) == 3).all()


def test_images_are_the_units_where_a_patient_is_unknown() -> None:
    unit, numbers = bootstrap.resampling_units(["a", None, "a"], ["x", "y", "z"])
    assert unit == "image"
    assert len(set(numbers)) == 3


def test_resamples_follow_from_the_seed() -> None:
    units = np.arange(20)
    assert (bootstrap.resample(units, 10, 3) == bootstrap.resample(units, 10, 3)).all()
    assert (bootstrap.resample(units, 10, 3) != bootstrap.resample(units, 10, 4)).any()


def test_patients_with_many_alike_images_widen_the_interval() -> None:
    labels, p = predictions(40)
    labels, p = np.repeat(labels, 5), np.repeat(p, 5, axis=0)

    def width(units: np.ndarray) -> float:
        drawn = bootstrap.scores(labels, p, bootstrap.resample(units, 400, 0))
        low, high = bootstrap.intervals(drawn)["macro"]["accuracy"] or [0, 0]
        return high - low

    assert width(np.arange(200) // 5) > 1.5 * width(np.arange(200))


def test_every_patient_is_drawn_as_often_as_any_other_the_first_and_the_last_too() -> None:
    """Of 4,000 resamples of 5 patients, each is drawn 4,000 times, within five standard errors."""
    weights = bootstrap.resample(np.array([0, 1, 2, 3, 4, 4]), 4000, seed=0)
    assert (weights[:, :5].sum(1) == 5).all()
    assert (np.abs(weights[:, :5].mean(0) - 1) < 5 * np.sqrt(0.8 / 4000)).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    never = (weights == 0).mean(0)
    assert (np.abs(never - 0.8**5) < 5 * np.sqrt(0.33 * 0.67 / 4000)).all()


def test_every_fine_tuning_is_drawn_as_often_as_any_other() -> None:
    """Three fine-tunings of which one is right in half, one in a quarter, one in no image; scored alone or mixed."""
    labels = np.array([0, 1, 2, 3])
    sure = np.eye(4)[[[0, 1, 3, 2], [0, 2, 3, 1], [1, 2, 3, 0]]]
    seen: list[tuple[float, ...]] = []

    def first_drawn(seeds: np.ndarray) -> np.ndarray:
        seen.append(tuple((seeds.argmax(2) == labels).mean(1)))
        return seeds[0]

    drawn = bootstrap.scores_over_seeds(labels, sure, np.ones((3000, 4)), first_drawn)["macro"]["accuracy"]
    assert sorted(set(sum(seen, ()))) == [0.0, 0.25, 0.5]
    assert len(seen) == len(set(seen)) == 10  # three of three, with repetition, in any order
    shares = [(drawn == accuracy).mean() for accuracy in (0.5, 0.25, 0.0)]  # the lowest number of those drawn
    for share, expected in zip(
        shares, (1 - (2 / 3) ** 3, (2 / 3) ** 3 - (1 / 3) ** 3, (1 / 3) ** 3), strict=True
    ):
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 3000)


def test_seeds_are_drawn_the_same_for_every_row_of_a_comparison() -> None:
    labels, p = predictions(40)
    bad = np.random.default_rng(2).dirichlet(np.ones(4), len(labels))
    every = np.ones((50, 40))
    first, second = (
        bootstrap.scores_over_seeds(labels, np.stack(s), every)["macro"]["auroc"]
        for s in ([p, bad], [bad, p])
    )
    assert (first == bootstrap.scores_over_seeds(labels, np.stack([p, bad]), every)["macro"]["auroc"]).all()
    # where one row drew the first seed twice, so did the other
    low, high = sorted({*first.round(9)})[0], sorted({*first.round(9)})[-1]
    assert ((first.round(9) == high) == (second.round(9) == low)).all()


def test_slices_of_one_volume_are_drawn_together_where_no_patient_is_known() -> None:
    keys, unknown = ["a", "b", "c", "d"], [None] * 4
    volumes = [("volume", "v"), ("volume", "v"), ("volume", "w"), ("folder", "w")]
    kind, numbers = bootstrap.resampling_units(unknown, keys, volumes)
    assert (kind, len(set(numbers.tolist())), numbers[0] == numbers[1]) == ("folder", 3, True)
    kind, numbers = bootstrap.resampling_units(unknown, keys, [*volumes[:3], ("image", "d")])
    assert (kind, len(set(numbers.tolist())), numbers[0] == numbers[1]) == ("image", 3, True)
    alone = [("image", key) for key in keys]
    assert (
        bootstrap.resampling_units(unknown, keys, alone)[1].tolist()
        == bootstrap.resampling_units(unknown, keys)[1].tolist()
    )
    assert bootstrap.resampling_units(["p", "p", "q", "q"], keys, volumes)[0] == "patient"
    assert bootstrap.resampling_units(unknown, keys)[1].tolist() == [0, 1, 2, 3]


def test_units_are_numbered_by_their_names() -> None:
    unit, numbers = bootstrap.resampling_units(["b", "a", "b", "c"], ["1", "2", "3", "4"])
    assert (unit, numbers.tolist()) == ("patient", [1, 0, 1, 2])
    unit, numbers = bootstrap.resampling_units(["b", None, "b", "c"], ["4", "2", "3", "1"])
    assert (unit, numbers.tolist()) == ("image", [3, 1, 2, 0])
    assert numbers.dtype == np.int64


def test_a_resample_counts_the_draws_of_its_units() -> None:
    """The draws are numpy's from (seed, number of units): comparisons made before stay what they were."""
    drawn = np.random.default_rng([7, 3]).integers(0, 3, size=(6, 3))
    expected = [[(row == unit).sum() for unit in (0, 1, 2, 1)] for row in drawn]
    assert bootstrap.resample(np.array([0, 1, 2, 1]), 6, seed=7).tolist() == expected
    assert bootstrap.resample_units(3, 6, seed=7)[:, [0, 1, 2, 1]].tolist() == expected


def test_resamples_take_a_byte_an_image_and_hold_what_needs_more() -> None:
    assert bootstrap.resample(np.arange(500), 20, 0).dtype == np.uint8
    many = bootstrap.resample(np.zeros(3, dtype=np.int64), 4, 0)
    assert (many == 1).all()
