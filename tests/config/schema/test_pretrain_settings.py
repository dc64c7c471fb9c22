"""Settings of `retfound pretrain` against the articles they come from."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from retfound_dist.config.schema import Data, Model, Optim, PretrainConfig, Run, Train, pretrain_settings
from tests.config.schema.docstrings import without_docstring


def test_every_setting_has_a_docstring() -> None:
    assert without_docstring(pretrain_settings) == []


def test_the_optimizer_is_that_of_mae_table_8_with_retfounds_warm_up() -> None:
    optim = Optim()
    assert (optim.base_lr, optim.betas, optim.weight_decay) == (1.5e-4, (0.9, 0.95), 0.05)
    assert (optim.warmup_epochs, optim.min_lr, optim.clip_grad) == (15, 0, 0)


def test_the_batch_is_retfounds_of_8_gpus() -> None:
    assert Train(steps=1).global_batch == 8 * 224


def test_the_model_is_maes_large_one_with_its_decoder() -> None:
    model = Model()
    assert (model.name, model.size, model.mask_ratio) == ("vit_large_patch16", (224, 224), 0.75)
    assert model.norm_pix_loss
    assert (model.decoder_width, model.decoder_depth, model.decoder_heads) == (512, 8, 16)


def test_the_crop_is_retfounds() -> None:
    data = Data(shards="s")
    assert (data.crop_scale, data.flip) == ((0.2, 1), 0.5)
    assert data.crop_ratio == pytest.approx((3 / 4, 4 / 3))


def test_height_and_width_may_differ() -> None:
    assert Model(image_size=(496, 512)).size == (496, 512)


@pytest.mark.parametrize("length", [{}, {"steps": 1, "epochs": 1.0}])
def test_a_run_has_one_length(length: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="give exactly one of them"):
        Train(**length)  # type: ignore[arg-type]


@pytest.mark.parametrize("resume", ["newest", 0, -5, True, 1.5])
def test_resume_takes_auto_none_or_a_step_alone(resume: object) -> None:
    assert [Run(url="r", resume=good).resume for good in ("auto", "none", 500)] == ["auto", "none", 500]
    with pytest.raises(ValidationError):
        Run(url="r", resume=resume)  # type: ignore[arg-type]


def test_sections_without_a_default_are_required() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(PretrainConfig).validate_json("{}")
    assert {fault["loc"] for fault in caught.value.errors()} == {("run",), ("data",), ("train",)}
