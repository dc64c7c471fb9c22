"""The temperature is the one with the lowest log loss, and says why where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retfound_dist.evaluate.scores.temperature import fit_temperature, scale_by_temperature


def drawn(temperature: float, images: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits), and the probabilities softmax(logits * temperature)."""
    draw = np.random.default_rng(0)
    logits = torch.from_numpy(draw.normal(size=(images, 4)) * 2)
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    return labels.numpy(), (logits * temperature).softmax(1).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_the_one_that_the_labels_were_drawn_with(temperature: float) -> None:
    labels, probabilities = drawn(temperature)
    fitted = fit_temperature(labels, probabilities)
    assert fitted["value"] == pytest.approx(temperature, rel=0.06)
    assert fitted["images"] == 4000
    assert fitted["reason"] is None


def test_scaling_equals_a_softmax_of_divided_logits() -> None:
    _, probabilities = drawn(1.0, 50)
    expected = (torch.from_numpy(probabilities).log() / 2.5).softmax(1).numpy()
    np.testing.assert_allclose(scale_by_temperature(probabilities, 2.5), expected, atol=1e-12)
    assert scale_by_temperature(probabilities, 1.0) is probabilities


def test_a_probability_of_exactly_zero_stays_finite() -> None:
    scaled = scale_by_temperature(np.array([[1.0, 0.0, 0.0]]), 2.0)
    assert np.isfinite(scaled).all()
    assert scaled.sum() == pytest.approx(1)


def test_without_val_images_or_mistakes_the_temperature_is_1_with_a_reason() -> None:
    labels, probabilities = drawn(1.0, 9)
    assert fit_temperature(None, None)["reason"] == "there is no val part"
    assert fit_temperature(labels, probabilities, "eye")["reason"] == "val has only 9 eyes"
    certain = np.eye(4)[np.arange(40) % 4] * 0.9 + 0.025
    fitted = fit_temperature(np.arange(40) % 4, certain)
    assert fitted == {"value": 1.0, "images": 40, "reason": "all val images are predicted correctly"}
