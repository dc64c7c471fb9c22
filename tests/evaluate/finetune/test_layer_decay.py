from __future__ import annotations

import pytest

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.finetune.layer_decay import choose_epoch, learning_rate, parameter_groups
from retfound_dist.model.mae import encoder_shape
from retfound_dist.model.vit import build_classifier


def test_layers_learn_by_their_distance_from_the_head() -> None:
    model = build_classifier(encoder_shape("vit_demo_patch14"), 28, 3)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, Finetune(layer_decay=0.5))
    scale = {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
    assert scale["head.weight"] == scale["fc_norm.bias"] == 1.0
    assert scale["blocks.5.attn.qkv.weight"] == 0.5
    assert scale["blocks.0.mlp.fc1.bias"] == 0.5**6
    assert scale["patch_embed.proj.weight"] == scale["cls_token"] == scale["pos_embed"] == 0.5**7
    assert len(scale) == len(list(model.parameters()))


def test_biases_norms_tokens_and_positions_do_not_decay() -> None:
    model = build_classifier(encoder_shape("vit_demo_patch14"), 28, 3)
    names = {id(p): name for name, p in model.named_parameters()}
    decay = {
        names[id(p)]: g["weight_decay"] for g in parameter_groups(model, Finetune()) for p in g["params"]
    }
    for name in ("cls_token", "pos_embed", "fc_norm.weight", "blocks.1.norm1.weight", "head.bias"):
        assert decay[name] == 0.0
    for name in ("head.weight", "blocks.1.attn.proj.weight", "patch_embed.proj.weight"):
        assert decay[name] == 0.05


def test_the_rate_warms_up_to_base_x_batch_over_256_and_falls_to_the_minimum() -> None:
    recipe = Finetune()
    assert learning_rate(0, recipe) == 0.0
    assert learning_rate(5, recipe) == pytest.approx(5e-3 * 16 / 256 / 2)
    assert learning_rate(10, recipe) == pytest.approx(5e-3 * 16 / 256)
    assert learning_rate(30, recipe) == pytest.approx((5e-3 / 16 + 1e-6) / 2)
    assert learning_rate(50, recipe) == pytest.approx(1e-6)


def history(*rows: tuple[float | None, float | None]) -> list[dict[str, float | None]]:
    return [{"val_auroc": auroc, "val_loss": loss} for auroc, loss in rows]


def test_the_epoch_with_the_best_val_auroc_is_kept() -> None:
    assert choose_epoch(history((0.6, 1.0), (0.9, 1.2), (0.8, 0.5))) == 1


def test_of_equal_aurocs_the_lower_loss_then_the_earlier_wins() -> None:
    assert choose_epoch(history((0.9, 1.0), (0.9, 0.5), (0.9, 0.5))) == 1


def test_without_aurocs_the_loss_decides_and_without_val_the_last_epoch() -> None:
    assert choose_epoch(history((None, 1.0), (None, 0.5), (None, 0.7))) == 1
    assert choose_epoch(history((None, None), (None, None))) == 1
