import math

import pytest
import torch

from retfound_dist.config.schema import Model, Optim
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.train.parameter_groups import lr_at, parameter_groups, peak_lr


def test_the_papers_peak_rate_and_the_small_groups() -> None:
    assert peak_lr(1.5e-4, 1792) == pytest.approx(1.05e-3)
    assert peak_lr(1.5e-4, 16) == pytest.approx(9.375e-6)


def test_rate_warms_up_linearly_and_falls_by_half_a_cosine() -> None:
    at = [lr_at(s, total=100, warmup=20, peak=1.0, lowest=0.1) for s in (0, 10, 20, 60, 100, 200)]
    assert at == pytest.approx([0.0, 0.5, 1.0, 0.55, 0.1, 0.1])
    assert lr_at(40, 100, 20, 1.0, 0.0) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert lr_at(0, 100, 0, 1.0, 0.0) == 1.0


def test_biases_and_norms_do_not_decay_and_positions_are_not_trained() -> None:
    model = MaskedAutoencoder(
        Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_heads=2)
    )
    decayed, plain = parameter_groups(model, Optim(weight_decay=0.05))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert all("bias" in names[id(p)] or "norm" in names[id(p)] for p in plain["params"])
    assert not any("bias" in names[id(p)] or "norm" in names[id(p)] for p in decayed["params"])
    grouped = {names[id(p)] for group in (decayed, plain) for p in group["params"]}
    assert set(names.values()) - grouped == {"pos_embed", "decoder_pos_embed"}
    assert all(isinstance(p, torch.nn.Parameter) for p in decayed["params"])
