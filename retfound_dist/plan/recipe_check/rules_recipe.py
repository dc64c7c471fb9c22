"""Rules on how a run learns: rate, batch, warm-up, target, decay, warm start. Pure."""

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


def learning_rate(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """A base rate far from 1.5e-4, told as a base rate and as the absolute one it may have been meant as."""
    base, batch = config.optim.base_lr, config.train.global_batch
    peak, wanted = base * batch / 256, BASE_LR * batch / 256
    times = base / BASE_LR
    if 0.5 <= times <= 2:
        return
    level: Level = "serious" if times >= 3 or times <= 0.1 else "warning"
    factor = f"{times:.1f} times" if times > 1 else f"{times:.2g} of"
    text = (
        f"the learning rate is {factor} the recipe's: base {base:g} peaks at {peak:.2g}, not {wanted:.2g}, "
    )
    text += f"with batch {batch:,}"
    if times > 1:
        text += f"; as an absolute rate {base:g} would be {base / wanted:,.0f} times too high"
    why = "Too high a rate overwrites good starting weights and does not recover"
    if times < 1:
        why = "Too low a rate does not get there in the epochs that the recipe gives"
    yield Finding(
        level,
        "optim.base_lr",
        text,
        why,
        "MAE, table 8: base 1.5e-4, lr = base x batch / 256",
        f"optim.base_lr={BASE_LR:g}",
    )


def batch_size(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """A batch far below any that the recipe was shown at."""
    batch = config.train.global_batch
    if batch < 256:
        yield Finding(
            "warning",
            "train.global_batch",
            f"{batch} images a step, {BATCH / batch:.0f} times fewer than the paper's {BATCH:,}",
            "Nobody has shown this recipe at so small a batch; accumulation gives any batch on any GPU",
            "RETFound, methods: 1,792; MAE, table 8: 4,096",
            f"train.global_batch={BATCH}",
        )


def warm_up(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """No warm-up, or one that is most of the run."""
    warm, run_epochs = config.optim.warmup_epochs, epochs(config, facts)
    usual = WARMUP_EPOCHS if run_epochs > 4 * WARMUP_EPOCHS else max(0.01, round(run_epochs / 20, 2))
    good = f"optim.warmup_epochs={usual:g}"
    source = "RETFound, methods: 15 epochs; MAE, table 8: 40"
    if warm == 0:
        why = "AdamW's first steps at full rate, on moments of a few gradients, throw the weights far off"
        yield Finding("serious", "optim.warmup_epochs", "no warm-up", why, source, good)
    elif warm >= run_epochs:
        text = f"{warm:g} epochs of warm-up in a run of {run_epochs:.4g}: the peak rate is never left"
        yield Finding(
            "serious", "optim.warmup_epochs", text, "The decay is what the last gains come from", source, good
        )
    elif warm > run_epochs / 3:
        text = f"{warm:g} of {run_epochs:.4g} epochs are warm-up"
        yield Finding("warning", "optim.warmup_epochs", text, "Little is left to train at rate", source, good)


def target(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Raw pixels as target."""
    if not config.model.norm_pix_loss:
        yield Finding(
            "warning",
            "model.norm_pix_loss",
            "the target is raw pixels",
            "Patches normalised by their own mean and variance give better features (fine-tuned 85.4, "
            "not 84.9), and in OCT raw pixels reward painting the dark background",
            "MAE, table 1d",
            "model.norm_pix_loss=true",
        )


def decay_and_betas(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Weight decay or betas unlike the paper's."""
    decay, betas = config.optim.weight_decay, tuple(config.optim.betas)
    if decay != WEIGHT_DECAY:
        far = decay == 0 or not 0.2 <= decay / WEIGHT_DECAY <= 5
        yield Finding(
            "serious" if far else "warning",
            "optim.weight_decay",
            f"{decay:g} is not the paper's {WEIGHT_DECAY:g}",
            "Decay is tied to rate and length: another one is another recipe",
            "MAE, table 8",
            f"optim.weight_decay={WEIGHT_DECAY:g}",
        )
    if betas != BETAS:
        yield Finding(
            "serious" if betas[0] >= betas[1] or betas[1] < 0.9 else "warning",
            "optim.betas",
            f"{list(betas)} are not the paper's {list(BETAS)}",
            "A second moment of 0.999, AdamW's usual one, is slow to follow and makes large-batch runs leap",
            "MAE, table 8, after Chen et al. 2020 (iGPT)",
            f"optim.betas={list(BETAS)}",
        )


def warm_start(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Good starting weights, trained on at the rate of a run from nothing; or no starting weights."""
    published = MAE_WEIGHTS.get(config.model.name)
    if config.model.init == "none" and published:
        yield Finding(
            "note",
            "model.init",
            "the run begins from random weights",
            "The paper's began from MAE's ImageNet weights, which know edges and textures already",
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
        "What the starting weights know is largely overwritten"
        + (", and so few epochs do not make up for it" if short else "; 800 epochs make up for it"),
        "RETFound, methods: from ImageNet MAE weights at full rate, but 800 epochs",
        f"optim.base_lr={BASE_LR / 5:g}, or train.epochs=800" if short else "nothing, if this is wanted",
    )
