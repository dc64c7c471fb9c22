"""Rules on what is read and how it is spread: mask ratio, pixels, padding, shards, held-out patients."""

import dataclasses

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import Facts
from retfound_dist.plan.recipe_check.recipe_check import check
from retfound_dist.plan.recipe_check.rules_data import (
    check_cache_limit,
    check_padding,
    check_repeated_reads,
    windows_on_a_node,
)
from tests import ROOT
from tests.plan.recipe_check.recipe_inputs import FACTS, OCT, found


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
    overrides = ["model.init=mae.pth", "data.cache_dir=/scratch"]
    config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_vitl_oct.toml"), overrides)
    facts = Facts(samples=182_980, shards=6000, ranks=600, micro_batch=3, padding=8 / 1800)
    assert [f.level for f in check(config, facts)] == ["note"]
    facts = Facts(samples=182_980, shards=4000, ranks=500, micro_batch=4, padding=208 / 2000)
    finding = check(config, facts)[0]
    assert (finding.key, finding.level) == ("train.global_batch", "warning")
    assert "448 ranks" in finding.remedy


def test_few_shards_are_a_warning_where_they_are_fetched_and_a_note_on_a_disk() -> None:
    for remote, level in ((True, "warning"), (False, "note")):
        facts = Facts(samples=182_980, shards=20, ranks=8, micro_batch=56, remote=remote)
        assert found(facts=facts) == {"data.shards": level}
        assert found("data.workers=2", facts=facts) == {}


def test_a_run_without_held_out_patients_is_noted_unless_it_was_asked_for() -> None:
    facts = Facts(samples=182_980, shards=143, held_out=False)
    assert found(facts=facts) == {"data.held_out": "note"}
    assert found("data.held_out=none", facts=facts) == {}


def test_a_cache_is_measured_in_windows_and_only_where_shards_are_fetched() -> None:
    """Windows of 10 shards of 1 GB: 5 GB hold half a window, 20 GB two of the three that a node may hold."""
    facts = Facts(samples=1_000_000, shards=50, largest_shard_bytes=10**9, ranks=1)

    def level(gigabytes: int, facts: Facts = facts) -> list[str]:
        overrides = [f"data.cache_gb={gigabytes}", "data.window_shards=10"]
        config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_vitl_oct.toml"), overrides)
        return [finding.level for finding in check_cache_limit(config, facts)]

    assert [level(gigabytes) for gigabytes in (5, 20, 30)] == [["serious"], ["warning"], []]
    assert level(5, dataclasses.replace(facts, remote=False)) == []
    # Three windows are more than this set.
    assert [level(gigabytes, dataclasses.replace(facts, shards=20)) for gigabytes in (19, 20)] == [
        ["warning"],
        [],
    ]
    assert level(0) == []
    # A window of 20,000 samples has 11 steps, one of 4,000 has 2: then nine steps reach back five windows.
    short = dataclasses.replace(facts, samples=20_000)
    assert [level(gigabytes, short) for gigabytes in (30, 49, 50)] == [["warning"], ["warning"], []]
    assert windows_on_a_node(1792, 20_000) == 3
    assert windows_on_a_node(1792, 4_000) == 7


def test_a_set_that_every_epoch_fetches_again_is_a_warning() -> None:
    facts = Facts(samples=1000, shards=50, largest_shard_bytes=10**9)
    assert found("data.cache_dir=", facts=FACTS) == {"data.cache_dir": "warning"}

    def findings(*overrides: str, facts: Facts = facts) -> list[str]:
        config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_vitl_oct.toml"), overrides)
        return [finding.line() for finding in check_repeated_reads(config, facts)]

    (line,) = findings()
    assert "none, and 800 epochs of a set of up to 50 GB on a store" in line
    assert "data.cache_dir=FOLDER on a local disk of each node with 50 GB of room" in line
    assert findings("data.cache_dir=/scratch") == []
    assert findings("train.epochs=2") == []
    assert findings(facts=dataclasses.replace(facts, remote=False)) == []


def test_padding_is_grave_from_a_quarter_of_the_work_on() -> None:
    config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_vitl_oct.toml"))
    for share, expected in ((0.02, []), (0.1, ["warning"]), (0.3, ["serious"])):
        facts = Facts(samples=1, shards=1, ranks=5, micro_batch=1, padding=share)
        assert [finding.level for finding in check_padding(config, facts)] == expected
