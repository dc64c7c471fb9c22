"""The recipe check: applies all rules to a pretraining config before the run costs money. Pure.

    for finding in check(config, facts):
        print(finding.line())

Sources: MAE is He et al., *Masked Autoencoders Are Scalable Vision Learners*, CVPR 2022; RETFound is Zhou et
al., *A foundation model for generalizable disease detection from retinal images*, Nature 2023.
"""

from __future__ import annotations

from dataclasses import replace

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.estimate.model_shapes import encoder_shape
from retfound_dist.plan.recipe_check import rules_amount, rules_data, rules_recipe
from retfound_dist.plan.recipe_check.findings import LEVELS, Facts, Finding, Rule

SMALLEST_WIDTH = 768
"""ViT-B's: MAE and RETFound do not describe narrower encoders."""
_SMALL_NOTE = "small networks tolerate more than the recipe allows, so this is only a note"
# Findings of one level are printed in this order: sorting by level does not change it.
RULES: tuple[Rule, ...] = (
    rules_recipe.check_learning_rate,
    rules_recipe.check_batch_size,
    rules_amount.check_length,
    rules_amount.check_data_amount,
    rules_recipe.check_warm_up,
    rules_recipe.check_target,
    rules_recipe.check_decay_and_betas,
    rules_recipe.check_warm_start,
    rules_data.check_mask_ratio,
    rules_data.check_image_statistics,
    rules_data.check_held_out,
    rules_data.check_padding,
    rules_data.check_shard_count,
    rules_data.check_cache_limit,
    rules_data.check_repeated_reads,
)


def check(config: PretrainConfig, facts: Facts) -> list[Finding]:
    """Every risk that the rules find, the most serious first."""
    findings = [finding for rule in RULES for finding in rule(config, facts)]
    if encoder_shape(config.model.name).width < SMALLEST_WIDTH:
        findings = [_lower_to_note(finding) for finding in findings]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _lower_to_note(finding: Finding) -> Finding:
    # Only rules from the papers: padding, shards and cache matter for a network of any size.
    if not finding.source.startswith(("MAE", "RETFound")):
        return finding
    return replace(finding, level="note", reason=f"{finding.reason}; {_SMALL_NOTE}")
