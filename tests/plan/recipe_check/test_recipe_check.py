"""The recipe check: each risk is found, the paper's recipe is not touched."""

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import Facts
from retfound_dist.plan.recipe_check.recipe_check import check
from tests import ROOT

OCT = {"grey": 10, "colour": 0, "mean": 48.0, "std": 40.0, "histogram": [0] + [1] * 254 + [0]}
FACTS = Facts(samples=182_980, shards=143, largest_shard_bytes=64_000_000, ranks=8, micro_batch=56)


def found(*overrides: str, facts: Facts = FACTS, preset: str = "pretrain_vitl_oct") -> dict[str, str]:
    """Level by key; that presets begin from random weights is left out."""
    config, _ = load(PretrainConfig, str(ROOT / f"configs/{preset}.toml"), overrides)
    return {f.key: f.level for f in check(config, facts) if "random weights" not in f.what}


@pytest.mark.parametrize("preset", ["pretrain_vitl_oct", "pretrain_vitl_cfp"])
def test_the_papers_recipe_is_accepted(preset: str) -> None:
    assert found(preset=preset) == {}


def test_a_start_from_random_weights_is_noted_with_the_weights_that_the_paper_began_from() -> None:
    for preset, noted in (("pretrain_vitl_oct", True), ("demo/pretrain", False)):
        config, _ = load(PretrainConfig, str(ROOT / f"configs/{preset}.toml"))
        lines = [f.line() for f in check(config, FACTS) if f.key == "model.init"]
        assert [line.startswith("note: ") for line in lines] == [True] * noted
        assert all("model.init=mae_pretrain_vit_large.pth" in line for line in lines)


def test_the_papers_warm_start_is_no_more_than_noted() -> None:
    assert found("model.init=mae.pth") == {"model.init": "note"}


def test_the_small_groups_recipe_is_refused_for_its_rate_and_its_length() -> None:
    levels = found(preset="pretrain_seed")
    assert levels["optim.base_lr"] == levels["train.epochs"] == "serious"
    assert levels["train.global_batch"] == "warning"


@pytest.mark.parametrize(("rate", "times"), [("1e-3", "6.7 times"), ("5e-3", "33.3 times")])
def test_both_of_the_groups_rates_are_told_as_base_and_as_absolute_rates(rate: str, times: str) -> None:
    config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_seed.toml"), [f"optim.base_lr={rate}"])
    line = next(f for f in check(config, FACTS) if f.key == "optim.base_lr").line()
    assert times in line
    assert ("107 times" if rate == "1e-3" else "533 times") in line
    assert "9.4e-06" in line


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


def test_a_short_warm_start_at_full_rate_is_a_risk() -> None:
    assert found("model.init=mae.pth", "train.epochs=150")["model.init"] == "warning"
    assert found("model.init=mae.pth", "train.epochs=50", "optim.base_lr=1e-3")["model.init"] == "serious"
    assert "model.init" not in found("model.init=mae.pth", "train.epochs=150", "optim.base_lr=3e-5")


def test_the_mask_ratio_is_held_against_the_images_that_are_there() -> None:
    grey = Facts(samples=182_980, shards=143, image=OCT)
    colour = Facts(samples=182_980, shards=143, image=OCT | {"grey": 0, "colour": 10})
    assert "model.mask_ratio" not in found(facts=grey)
    assert found(facts=colour)["model.mask_ratio"] == "warning"
    assert found(facts=grey, preset="pretrain_vitl_cfp")["model.mask_ratio"] == "warning"


def test_pixels_unlike_imagenets_are_noted_and_images_that_are_nearly_black_are_a_risk() -> None:
    facts = Facts(samples=182_980, shards=143, image=OCT)
    assert found(facts=facts) == {"data.shards": "note"}
    black = OCT | {"mean": 3.0, "std": 4.0, "histogram": [900] + [1] * 100 + [0] * 155}
    assert found(facts=Facts(samples=182_980, shards=143, image=black)) == {"data.shards": "warning"}
    usual = OCT | {"mean": 110.0, "std": 60.0}
    assert found(facts=Facts(samples=182_980, shards=143, image=usual)) == {}


def test_ranks_that_waste_work_on_padding_are_named_with_a_better_number() -> None:
    config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_vitl_oct.toml"), ["model.init=mae.pth"])
    facts = Facts(samples=182_980, shards=4000, ranks=600, micro_batch=3, padding=8 / 1800)
    assert [f.level for f in check(config, facts)] == ["note"]
    facts = Facts(samples=182_980, shards=4000, ranks=500, micro_batch=4, padding=208 / 2000)
    finding = check(config, facts)[0]
    assert (finding.key, finding.level) == ("train.global_batch", "warning")
    assert "448 ranks" in finding.instead


def test_few_shards_are_a_warning_where_they_are_fetched_and_a_note_on_a_disk() -> None:
    for remote, level in ((True, "warning"), (False, "note")):
        facts = Facts(samples=182_980, shards=20, ranks=8, micro_batch=56, remote=remote)
        assert found(facts=facts) == {"data.shards": level}
        assert found("data.workers=2", facts=facts) == {}


def test_of_a_small_network_the_papers_numbers_are_only_noted() -> None:
    assert set(found(preset="demo/pretrain", facts=Facts(samples=500, shards=20)).values()) == {"note"}


def test_a_run_without_held_out_patients_is_noted_unless_it_was_asked_for() -> None:
    facts = Facts(samples=182_980, shards=143, held_out=False)
    assert found(facts=facts) == {"data.held_out": "note"}
    assert found("data.held_out=none", facts=facts) == {}


def test_every_finding_says_reason_source_and_way_out_in_one_line() -> None:
    config, _ = load(
        PretrainConfig,
        str(ROOT / "configs/pretrain_seed.toml"),
        ["optim.warmup_epochs=0", "model.norm_pix_loss=false", "model.mask_ratio=0.2", "model.init=x.pth"],
    )
    for finding in check(config, FACTS):
        line = finding.line()
        assert "\n" not in line
        assert all((finding.why in line, finding.source in line, finding.instead in line))
        assert finding.key in line
