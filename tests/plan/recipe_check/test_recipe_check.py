"""The recipe check: each risk is found, the paper's recipe is not touched."""

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import Facts
from retfound_dist.plan.recipe_check.recipe_check import check
from tests import ROOT
from tests.plan.recipe_check.recipe_inputs import FACTS, found


@pytest.mark.parametrize("preset", ["pretrain_vitl_oct", "pretrain_vitl_cfp"])
def test_the_papers_recipe_is_accepted(preset: str) -> None:
    assert found(preset=preset) == {}


def test_the_small_groups_recipe_is_refused_for_its_rate_and_its_length() -> None:
    levels = found(preset="pretrain_seed")
    assert levels["optim.base_lr"] == levels["train.epochs"] == "serious"
    assert levels["train.global_batch"] == "warning"


@pytest.mark.parametrize(
    ("override", "key", "level"),
    [
        ("optim.base_lr=1e-5", "optim.base_lr", "serious"),
        ("optim.base_lr=3.5e-4", "optim.base_lr", "warning"),
        ("train.epochs=60", "train.epochs", "serious"),
        ("train.epochs=200", "train.epochs", "warning"),
        ("train.steps=6000", "train.steps", "serious"),
        ("optim.warmup_epochs=0", "optim.warmup_epochs", "serious"),
        ("optim.warmup_epochs=800", "optim.warmup_epochs", "serious"),
        ("optim.warmup_epochs=300", "optim.warmup_epochs", "warning"),
        ("model.norm_pix_loss=false", "model.norm_pix_loss", "warning"),
        ("optim.weight_decay=0.5", "optim.weight_decay", "serious"),
        ("optim.weight_decay=0.0", "optim.weight_decay", "serious"),
        ("optim.weight_decay=0.04", "optim.weight_decay", "warning"),
        ("optim.betas=[0.9, 0.999]", "optim.betas", "warning"),
        ("optim.betas=[0.95, 0.9]", "optim.betas", "serious"),
        ("model.mask_ratio=0.3", "model.mask_ratio", "serious"),
        ("model.mask_ratio=0.6", "model.mask_ratio", "warning"),
        ("train.global_batch=64", "train.global_batch", "warning"),
        ("data.workers=32", "data.shards", "warning"),
        ("data.cache_gb=0.5", "data.cache_gb", "serious"),
        ("data.cache_gb=2.0", "data.cache_gb", "warning"),
    ],
)
def test_each_departure_is_found(override: str, key: str, level: str) -> None:
    assert found(override) == {key: level}


def test_of_a_small_network_the_papers_numbers_are_only_noted() -> None:
    assert set(found(preset="demo/pretrain", facts=Facts(samples=500, shards=20)).values()) == {"note"}


def test_every_finding_says_reason_source_and_way_out_in_one_line() -> None:
    config, _ = load(
        PretrainConfig,
        str(ROOT / "configs/pretrain_seed.toml"),
        ["optim.warmup_epochs=0", "model.norm_pix_loss=false", "model.mask_ratio=0.2", "model.init=x.pth"],
    )
    for finding in check(config, FACTS):
        line = finding.line()
        assert "\n" not in line
        assert all((finding.reason in line, finding.source in line, finding.remedy in line))
        assert finding.key in line
