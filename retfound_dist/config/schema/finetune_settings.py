"""Settings of fine-tuning and of probes, which `evaluate`, `compare` and `watch` share."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from retfound_dist.config.schema.setting_types import (
    STRICT,
    Count,
    Fraction,
    NonNegative,
    Positive,
    PositiveFloat,
    Shares,
)


def _check_change(change: dict[str, Any]) -> dict[str, Any]:
    if "try_recipes" in change:
        raise ValueError("finetune.try_recipes has a table with try_recipes: write one list of tables")
    Finetune().with_change(change)
    return change


Change = Annotated[dict[str, Any], AfterValidator(_check_change)]
"""Some settings of `Finetune`, by name."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Finetune:
    """RETFound's fine-tuning recipe."""

    method: Literal["full", "lora", "head"] = "full"
    """Which parameters train. `full`: all. `head`: the new head, and the norm in front of it (`fc_norm`)
    where the family has one. `lora`: the same, and low-rank adapters (LoRA, Hu et al. 2021) beside layers
    of the encoder; needs peft."""
    epochs: Positive = 50
    """Passes over the train part."""
    batch: Positive = 16
    """Images in a step."""
    base_lr: PositiveFloat = 5e-3
    """Learning rate for a batch of 256. The peak is base_lr x batch / 256."""
    try_recipes: tuple[Change, ...] = ()
    """Other recipes to try: tables with the settings that differ from these. Each is trained with the
    first seed. The one with the best AUROC on val is used for all seeds. Empty: only these settings."""
    # Not 0 as in pretraining: RETFound's fine-tuning ends at 1e-6.
    min_lr: NonNegative = 1e-6
    """Learning rate at the end."""
    warmup_epochs: NonNegative = 10.0
    """Epochs of linear warm-up from 0."""
    weight_decay: NonNegative = 0.05
    """AdamW's weight decay. Biases, norms and tokens have none."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.65
    """Each layer below the head learns with this factor times the learning rate of the layer above."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest rate of stochastic depth. The rate rises linearly from the first block to the last."""
    lora_rank: Positive = 8
    """Rank of an adapter. A layer with n inputs and m outputs gets rank x (n + m) parameters."""
    lora_alpha: PositiveFloat = 16.0
    """An adapter's output is multiplied by lora_alpha / lora_rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of an adapter's input."""
    lora_targets: tuple[str, ...] = ()
    """Layers that get an adapter, by the end of their names: ["attn.qkv", "mlp.fc1"]. Linear layers and
    convolutions without groups can have one. Empty: the linear layers of the attention (qkv, proj), and
    in a family without attention all layers that can have one."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the target that is spread over all classes. It also applies to mixed images."""
    mixup: NonNegative = 0.0
    """Blend two images. Their shares are drawn from Beta(a, a), and this is a (MAE: 0.8; RETFound: off).
    0: never."""
    cutmix: NonNegative = 0.0
    """Replace a rectangle by another image. Its share is drawn from Beta(a, a), and this is a. With mixup
    too, each batch uses one of the two. 0: never."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the loss of an image has the weight images / (classes x images of its class), so that
    rare classes count as much as frequent ones."""
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """timm's RandAugment string. Empty: no RandAugment."""
    random_erasing: Fraction = 0.25
    """Probability of random erasing."""
    crop_scale: Shares = (0.08, 1.0)
    """Smallest and largest area of the random crop in training, as a share of the image (timm's default,
    used by RETFound)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`bf16`: multiply in bfloat16 and keep the weights in fp32. A CPU without bf16 instructions uses
    fp32. `auto`: bf16 on a GPU, fp32 on a CPU."""

    pool: Literal["mean", "attention"] = "mean"
    """How the images of a volume, an eye or a patient give one prediction, where `data.unit` is one of
    these. `mean`: the mean of their logits. `attention`: a small head, trained on the features of the
    fine-tuned network, weighs the images (Ilse et al. 2018)."""
    keep: bool | Literal["all"] = True
    """Keep the fine-tuned weights of each seed in classifier/ beside metrics.json, for `predict` and
    `export`. A comparison keeps those of the row that is best on val. With `jobs` above 1 the weights of all
    rows are on the disk until its end. "all": those of every row, and of every cell of a suite. false: none.
    `watch` keeps none."""

    def with_change(self, change: dict[str, Any]) -> Finetune:
        """This recipe with some settings changed. Raises pydantic's ValidationError for invalid values."""
        # Through JSON, as in `config.loading`: a change comes from a file, where tuples are lists.
        tree = {**dataclasses.asdict(self), "try_recipes": [], **change}
        return TypeAdapter(Finetune).validate_json(json.dumps(tree))


ProbeKind = Literal["linear", "knn", "attentive"]


def _check_kinds(kinds: tuple[ProbeKind, ...]) -> tuple[ProbeKind, ...]:
    if not kinds or len(set(kinds)) < len(kinds):
        raise PydanticCustomError("kinds", "should name at least one probe, and each once")
    return kinds


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Probe:
    """Probes of frozen features."""

    enabled: bool = True
    """Probe in addition to fine-tuning. `watch` always probes."""
    kinds: Annotated[tuple[ProbeKind, ...], AfterValidator(_check_kinds)] = ("linear", "knn", "attentive")
    """`linear`: a linear classifier on the mean of the patch tokens. `knn`: votes of the nearest images, by
    the same mean. `attentive`: learned queries choose which patch tokens count."""
    attentive_images: Positive = 2000
    """The attentive probe is fitted on at most about so many images, chosen by class and patient. Their patch
    tokens are kept in memory: 2,000 images need 0.8 GB for a ViT-L with patches of 16 at 224 pixels."""
    strengths: tuple[PositiveFloat, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Values to choose from for C, the inverse of the penalty of scikit-learn's logistic regression."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Folds of the cross-validation that chooses C, and the attentive probe's number of steps."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation of `watch`. It predicts every image of train and val."""
    seed: Count = 0
    """Random seed that decides which patient goes into which fold, and how the attentive probe begins."""
    neighbours: Positive = 20
    """Number of nearest images that vote."""
    temperature: PositiveFloat = 0.07
    """A neighbour's vote has the weight exp(cosine similarity / temperature)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Alarm:
    """When `watch` reports that a run gets worse: the score is lower by at least `least`, and the paired
    95 % interval excludes 0."""

    method: ProbeKind = "linear"
    """The probe whose score is compared. It must be one of `probe.kinds`."""
    metric: Literal["aupr", "auroc", "balanced_accuracy"] = "aupr"
    """The macro-averaged score that is compared."""
    least: NonNegative = 0.01
    """Smallest difference that counts."""
    patience: Positive = 1
    """How many checkpoints in a row must be worse."""
    stop: bool = False
    """Exit at the first alarm instead of continuing. The exit code is 1 in both cases."""
