"""What the recipe check's tests share: the paper's preset on an archive that suits it, and levels by key."""

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import Facts
from retfound_dist.plan.recipe_check.recipe_check import check
from tests import ROOT

OCT = {"grey": 10, "colour": 0, "mean": 48.0, "std": 40.0, "histogram": [0] + [1] * 254 + [0]}


FACTS = Facts(samples=182_980, shards=143, largest_shard_bytes=64_000_000, ranks=8, micro_batch=56)


def found(*overrides: str, facts: Facts = FACTS, preset: str = "pretrain_vitl_oct") -> dict[str, str]:
    """Level by key; that presets begin from random weights is left out. The hosts have a cache."""
    overrides = ("data.cache_dir=/scratch/cache", *overrides)
    config, _ = load(PretrainConfig, str(ROOT / f"configs/{preset}.toml"), overrides)
    return {f.key: f.level for f in check(config, facts) if "random weights" not in f.problem}
