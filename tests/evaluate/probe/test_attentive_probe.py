"""The attentive probe on tokens that are made so that the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import EvalModel, Probe
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.probe import attentive_probe, probing
from retfound_dist.evaluate.probe.attentive_probe import (
    fit_attentive_probe,
    images_to_fit,
    open_tokens,
)
from retfound_dist.evaluate.probe.patch_tokens import ReadTokens
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.probe.test_probing import part

IMAGES, PATCHES, WIDTH, CLASSES = 120, 16, 8, 3


def tokens_with_the_class_in_one_patch(images: int = IMAGES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (N, L, D) and labels. A random patch is marked in channel 0, and tells the class in channels 1 to 3.

    The other patches say classes at random, so that the mean of the patches tells little.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % CLASSES
    told = rng.integers(0, CLASSES, (images, PATCHES))
    place = rng.integers(0, PATCHES, images)
    told[np.arange(images), place] = labels
    tokens = 0.3 * rng.normal(size=(images, PATCHES, WIDTH))
    tokens[..., 1 : 1 + CLASSES] += np.eye(CLASSES)[told]
    tokens[np.arange(images), place, 0] += 4
    return tokens.astype(np.float32), labels


def reader(tokens: np.ndarray) -> ReadTokens:
    return lambda images: torch.from_numpy(tokens[images]).half()


def fit(tokens: np.ndarray, labels: np.ndarray, images: np.ndarray, probe: Probe | None = None):
    return fit_attentive_probe(
        reader(tokens), images, labels[images], np.arange(len(images)), CLASSES, probe or Probe()
    )


def test_it_finds_the_patch_that_tells_the_class_and_the_mean_of_the_patches_hides_it() -> None:
    tokens, labels = tokens_with_the_class_in_one_patch()
    fitted, tested = np.arange(90), np.arange(90, IMAGES)
    predicted = probing.fit_and_predict(
        tokens[fitted].mean(1), part(labels[fitted]), tokens[tested].mean(1), CLASSES, Probe(), reader(tokens)
    )
    right = {method: (p_NC.argmax(1) == labels[tested]).mean() for method, p_NC in predicted.items()}
    assert right["attentive"] > 0.9
    assert right["linear"] < 0.75
    np.testing.assert_allclose(predicted["attentive"].sum(1), 1, atol=1e-9)


def test_the_same_seed_gives_the_same_probabilities_whatever_was_drawn_before() -> None:
    tokens, labels = tokens_with_the_class_in_one_patch(60)
    first, other = (fit(tokens, labels, np.arange(45), Probe(seed=seed)) for seed in (0, 1))
    torch.manual_seed(7)
    torch.rand(3)
    again = fit(tokens, labels, np.arange(45))
    tested = np.arange(45, 60)
    assert (first.predict_proba(tested) == again.predict_proba(tested)).all()
    assert (first.predict_proba(tested) != other.predict_proba(tested)).any()


def test_the_scale_and_the_offset_of_a_channel_do_not_matter() -> None:
    """Encoders have channels that are a hundred times larger than the others."""
    tokens, labels = tokens_with_the_class_in_one_patch(60)
    scale = np.array([1, 16, 1, 0.25, 64, 1, 1, 1], np.float32)
    offset = np.array([0, 32, 0, 0, -64, 0, 0, 0], np.float32)
    plain = fit(tokens, labels, np.arange(45)).predict_proba(np.arange(45, 60))
    scaled = fit(tokens * scale + offset, labels, np.arange(45)).predict_proba(np.arange(45, 60))
    np.testing.assert_allclose(plain, scaled, atol=0.05)


def test_a_channel_that_never_varies_is_no_fault() -> None:
    tokens, labels = tokens_with_the_class_in_one_patch(60)
    tokens[..., 5] = 3
    assert np.isfinite(fit(tokens, labels, np.arange(45)).predict_proba(np.arange(60))).all()


def test_before_the_first_step_it_predicts_the_shares_of_the_classes() -> None:
    shares = torch.tensor([0.7, 0.2, 0.1])
    scale = attentive_probe.TokenScale(torch.zeros(WIDTH), torch.ones(WIDTH))
    head = attentive_probe.AttentiveHead(scale, shares, 0).eval()
    predicted = head(torch.randn(5, PATCHES, WIDTH)).softmax(-1)
    torch.testing.assert_close(predicted, shares.expand(5, 3))


def test_queries_of_nought_give_the_plain_mean_of_the_patches() -> None:
    tokens = torch.randn(5, PATCHES, WIDTH)
    scale = attentive_probe.TokenScale(torch.full((WIDTH,), 0.5), torch.full((WIDTH,), 2.0))
    head = attentive_probe.AttentiveHead(scale, torch.tensor([0.5, 0.5]), 0)
    with torch.no_grad():
        head.queries_QD.zero_()
        pooled = head.pool(tokens).reshape(5, attentive_probe.QUERIES, WIDTH)
    torch.testing.assert_close(pooled, ((tokens.mean(1) - 0.5) / 2)[:, None].expand_as(pooled))


def test_noise_is_fitted_with_few_steps_and_what_can_be_learned_with_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Patients of other folds decide: what one fit alone would learn by heart is not worth a step."""
    tokens, labels = tokens_with_the_class_in_one_patch()
    noise = np.random.default_rng(1).normal(size=tokens.shape).astype(np.float32)
    images, chosen = np.arange(IMAGES), []
    original = attentive_probe._choose_steps

    def note(*args: object) -> int:
        chosen.append(original(*args))  # type: ignore[arg-type]
        return chosen[-1]

    monkeypatch.setattr(attentive_probe, "_choose_steps", note)
    fit(noise, labels, images)
    fit(tokens, labels, images)
    assert chosen[0] == min(attentive_probe.STEPS)
    assert chosen[1] > 4 * chosen[0]


def test_a_class_that_is_missing_in_a_fold_has_no_probability_there() -> None:
    tokens, labels = tokens_with_the_class_in_one_patch(31)
    labels = np.append(labels[:30], 3)
    groups = np.arange(31)
    predicted = probing.cross_validate(tokens.mean(1), labels, groups, 4, Probe(folds=3), reader(tokens))
    assert np.isfinite(predicted["attentive"]).all()
    assert predicted["attentive"][30, 3] == 0
    np.testing.assert_allclose(predicted["attentive"].sum(1), 1, atol=1e-9)


def test_where_one_class_alone_was_fitted_on_it_is_certain() -> None:
    tokens, _ = tokens_with_the_class_in_one_patch(6)
    predicted = probing.fit_and_predict(
        tokens[:2].mean(1), part(np.array([1, 1])), tokens[2:].mean(1), 3, Probe(), reader(tokens)
    )
    assert predicted["attentive"].tolist() == [[0, 1, 0]] * 4


def test_one_patient_is_fitted_without_folds() -> None:
    tokens, labels = tokens_with_the_class_in_one_patch(12)
    images = np.arange(12)
    fitted = fit_attentive_probe(reader(tokens), images, labels, np.zeros(12, int), CLASSES, Probe())
    assert np.isfinite(fitted.predict_proba(images)).all()


def test_the_limit_keeps_every_class_and_whole_patients_and_no_other_image_is_fitted_on() -> None:
    tokens, labels = tokens_with_the_class_in_one_patch(120)
    groups = np.repeat(np.arange(40), 3)[np.argsort(np.arange(120) % 40, kind="stable")]
    probe = Probe(attentive_images=30)
    chosen = images_to_fit(labels, groups, probe)
    assert len(chosen) <= 30 + CLASSES
    assert set(labels[chosen]) == set(range(CLASSES))
    assert images_to_fit(labels, groups, Probe()).tolist() == list(range(120))
    unread = np.setdiff1d(np.arange(120), chosen)
    spoilt = tokens.copy()
    spoilt[unread] = np.nan
    tested = np.concatenate([spoilt, tokens])
    predicted = probing.fit_and_predict(
        tokens.mean(1), part(labels, [f"p{g:02d}" for g in groups]), tokens.mean(1), 3, probe, reader(tested)
    )
    assert np.isfinite(predicted["attentive"]).all()


def test_the_limit_is_said_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    start = open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))
    images = [np.full((28, 28), shade, np.uint8) for shade in range(12)]
    labels, groups = np.arange(12) % 2, np.arange(12)
    with ProgressDisplay() as show:
        assert open_tokens(start, images, labels, groups, Probe(kinds=("linear", "knn")), show) is None
        assert open_tokens(start, images, labels, groups, Probe(), show) is not None
        assert "attentive" not in "".join(capfd.readouterr())
        open_tokens(start, images, labels, groups, Probe(attentive_images=6), show)
    said = "".join(capfd.readouterr())
    assert "is fitted on 6 of 12 images, chosen by class and patient (probe.attentive_images)" in said
