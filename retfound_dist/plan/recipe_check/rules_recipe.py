"""Rules on the optimization: learning rate, batch, warm-up, target, weight decay, warm start. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import Facts, Finding, Level, epochs

BASE_LR, WEIGHT_DECAY, BETAS, WARMUP_EPOCHS, BATCH = 1.5e-4, 0.05, (0.9, 0.95), 15, 1792
"""MAE, table 8; warm-up and batch are RETFound's."""
MAE_WEIGHTS = {
    "vit_base_patch16": "mae_pretrain_vit_base.pth",
    "vit_large_patch16": "mae_pretrain_vit_large.pth",
    "vit_huge_patch14": "mae_pretrain_vit_huge.pth",
}
"""Files that MAE's authors publish, by encoder."""
SHORT_EPOCHS = 400
"""Half of MAE's and RETFound's usual schedule."""


def check_learning_rate(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a base rate far from 1.5e-4, and what it would be as an absolute rate."""
    base, batch = config.optim.base_lr, config.train.global_batch
    peak, recipe_peak = base * batch / 256, BASE_LR * batch / 256
    times = base / BASE_LR
    if 0.5 <= times <= 2:
        return
    level: Level = "serious" if times >= 3 or times <= 0.1 else "warning"
    factor = f"{times:.1f}" if times > 1 else f"{times:.2g}"
    problem = (
        f"the learning rate is {factor} times the recipe's: with batch {batch:,}, "
        f"its peak is {peak:.2g} (from base {base:g}), and the recipe's peak is {recipe_peak:.2g}"
    )
    if times > 1:
        problem += f". If {base:g} was meant as the peak, it is {base / recipe_peak:,.0f} times too high"
    reason = "A rate that is too high overwrites good starting weights, and training does not recover"
    if times < 1:
        reason = "With a rate that is too low, the recipe's epochs are not enough"
    yield Finding(
        level,
        "optim.base_lr",
        problem,
        reason,
        "MAE, table 8: base 1.5e-4, lr = base x batch / 256",
        f"optim.base_lr={BASE_LR:g}",
    )


def check_batch_size(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a batch far below any with published results."""
    batch = config.train.global_batch
    if batch < 256:
        yield Finding(
            "warning",
            "train.global_batch",
            f"{batch} images a step, {BATCH / batch:.0f} times fewer than the paper's {BATCH:,}",
            "There are no published results with so small a batch; accumulation allows any batch on any GPU",
            "RETFound, methods: 1,792; MAE, table 8: 4,096",
            f"train.global_batch={BATCH}",
        )


def check_warm_up(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a run without warm-up, or with warm-up in more than a third of it."""
    warmup_epochs, run_epochs = config.optim.warmup_epochs, epochs(config, facts)
    recipe_epochs = WARMUP_EPOCHS if run_epochs > 4 * WARMUP_EPOCHS else max(0.01, round(run_epochs / 20, 2))
    remedy = f"optim.warmup_epochs={recipe_epochs:g}"
    source = "RETFound, methods: 15 epochs; MAE, table 8: 40"
    key = "optim.warmup_epochs"
    if warmup_epochs == 0:
        reason = "AdamW's moments are inaccurate in its first steps, so full-rate steps damage the weights"
        yield Finding("serious", key, "no warm-up", reason, source, remedy)
    elif warmup_epochs >= run_epochs:
        problem = f"{warmup_epochs:g} epochs of warm-up in a run of {run_epochs:.4g}: the rate never decays"
        yield Finding("serious", key, problem, "The last gains come from the decay", source, remedy)
    elif warmup_epochs > run_epochs / 3:
        problem = f"{warmup_epochs:g} of {run_epochs:.4g} epochs are warm-up"
        yield Finding("warning", key, problem, "Few epochs are left at the full rate", source, remedy)


def check_target(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report raw pixels as the target of reconstruction."""
    if not config.model.norm_pix_loss:
        yield Finding(
            "warning",
            "model.norm_pix_loss",
            "the target is raw pixels",
            "Patches that are normalised by their own mean and variance give better features (85.4 instead "
            "of 84.9 after fine-tuning), and in OCT raw pixels reward a good dark background",
            "MAE, table 1d",
            "model.norm_pix_loss=true",
        )


def check_decay_and_betas(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report weight decay or betas that differ from the paper's."""
    decay, betas = config.optim.weight_decay, tuple(config.optim.betas)
    if decay != WEIGHT_DECAY:
        far = decay == 0 or not 0.2 <= decay / WEIGHT_DECAY <= 5
        yield Finding(
            "serious" if far else "warning",
            "optim.weight_decay",
            f"{decay:g} is not the paper's {WEIGHT_DECAY:g}",
            "Weight decay depends on rate and length, so another value makes another recipe",
            "MAE, table 8",
            f"optim.weight_decay={WEIGHT_DECAY:g}",
        )
    if betas != BETAS:
        yield Finding(
            "serious" if betas[0] >= betas[1] or betas[1] < 0.9 else "warning",
            "optim.betas",
            f"{list(betas)} are not the paper's {list(BETAS)}",
            "With 0.999, AdamW's default, the second moment adapts slowly, and large-batch losses jump",
            "MAE, table 8, after Chen et al. 2020 (iGPT)",
            f"optim.betas={list(BETAS)}",
        )


def check_warm_start(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report random starting weights, or published ones at the learning rate for random ones."""
    published = MAE_WEIGHTS.get(config.model.name)
    if config.model.init == "none" and published:
        yield Finding(
            "note",
            "model.init",
            "the run begins from random weights",
            "RETFound began from MAE's ImageNet weights, which already know edges and textures",
            "RETFound, methods",
            f"model.init={published} (from MAE's authors, not for commercial use)",
        )
    if config.model.init == "none" or config.optim.base_lr < BASE_LR:
        return
    run_epochs = epochs(config, facts)
    short = run_epochs < SHORT_EPOCHS
    yield Finding(
        "serious" if short and config.optim.base_lr > 2 * BASE_LR else "warning" if short else "note",
        "model.init",
        f"a warm start at the full rate of a run from nothing ({config.optim.base_lr:g}), "
        f"{run_epochs:.4g} epochs",
        "Most of what the starting weights learned is overwritten"
        + (", and so few epochs cannot make up for it" if short else "; 800 epochs make up for it"),
        "RETFound, methods: from ImageNet MAE weights at full rate, but 800 epochs",
        f"optim.base_lr={BASE_LR / 5:g}, or train.epochs=800" if short else "no change, if this is intended",
    )
