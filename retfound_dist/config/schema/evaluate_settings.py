"""Settings of `retfound evaluate`, `compare` and `watch`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from retfound_dist.config.schema.setting_types import (
    STRICT,
    Count,
    Fraction,
    NonNegative,
    Parts,
    Positive,
    PositiveFloat,
    Seeds,
    Shares,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalData:
    """The labelled set."""

    path: str
    """Folder (train|val|test/<class>, or class folders), list with the columns file and label (.csv,
    .tsv, .xlsx), or URL of labelled shards."""
    # RETFound splits OCTID 6:2:2.
    fractions: Parts = (0.6, 0.2, 0.2)
    """Shares of train, val and test, for a set without a split of its own. The set is divided by patient
    if patients are known, else by volume if volumes are known, else by image."""
    split_seed: Count = 0
    """Random seed that decides which patient goes into which part."""
    split_file: str = ""
    """CSV file with the columns key and part, such as the split.csv of an evaluation. If it exists, it
    gives the split. Otherwise the split is written to it."""
    label_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the train part's labels to use. The selection is stratified, and a smaller share is part
    of a larger one."""
    workers: Count = 2
    """Loader processes."""
    bad_sample_budget: Count = 10
    """How many unreadable images are left out and reported. With one more, the evaluation stops with an
    error."""
    follow_links: Literal["inside", "anywhere"] = "inside"
    """Which symbolic links are followed. `inside`: only links to files and folders inside `path` or
    `external.path`. `anywhere`: all links. Then the folder can lead to any file that you can read, so use
    it only for folders that you trust."""
    unknown_patient: Literal["volume", "image"] = "volume"
    """What to do with images whose patient is not known. `volume`: keep the slices of one volume in one
    part, and also the images of a folder below a class folder. Volumes come from the list, the shard set
    or the file names. `image`: assign every image alone."""
    labels_as_given: bool = False
    """Accept every label as a class, even if labels look like measurements, dates, names or several
    classes at once, or differ only by capitals."""
    allow_leak: bool = False
    """Only warn if a given split has the same patient, volume or pixels in two parts. Without it, that is
    an error."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class External:
    """A second labelled test set, from another device or clinic."""

    path: str = ""
    """Folder or URL of the external set. All its images are tested. Empty: there is none."""
    class_map: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Class of the model = label, or [labels], of the external set. Empty: both use the same names."""

    @model_validator(mode="after")
    def _has_path(self) -> External:
        if self.class_map and not self.path:
            raise ValueError("external.class_map is given without external.path: set external.path too")
        return self


OWN: Literal["own"] = "own"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalModel:
    """The classifier, where the checkpoint does not define it (`checkpoint = "none"`)."""

    name: str = "vit_large_patch16"
    """Encoder that is drawn at random for `none`: as for pretraining, or `timm:NAME`. Weights bring their own
    encoder."""
    image_size: Positive | Literal["own"] = OWN
    """Side of the input in pixels, for any weights: positions are resampled. `own`: the size that the weights
    were trained with, and 224 for `none`."""


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

    def with_change(self, change: dict[str, Any]) -> Finetune:
        """This recipe with some settings changed. Raises pydantic's ValidationError for invalid values."""
        # Through JSON, as in `config.loading`: a change comes from a file, where tuples are lists.
        tree = {**dataclasses.asdict(self), "try_recipes": [], **change}
        return TypeAdapter(Finetune).validate_json(json.dumps(tree))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Probe:
    """Linear probe and nearest neighbours on frozen features."""

    enabled: bool = True
    """Probe in addition to fine-tuning. `watch` always probes."""
    strengths: tuple[PositiveFloat, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Values to choose from for C, the inverse of the penalty of scikit-learn's logistic regression."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Folds of the cross-validation that chooses C."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation of `watch`. It predicts every image of train and val."""
    seed: Count = 0
    """Random seed that decides which patient goes into which fold."""
    neighbours: Positive = 20
    """Number of nearest images that vote."""
    temperature: PositiveFloat = 0.07
    """A neighbour's vote has the weight exp(cosine similarity / temperature)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Alarm:
    """When `watch` reports that a run gets worse: the score is lower by at least `least`, and the paired
    95 % interval excludes 0."""

    method: Literal["linear", "knn"] = "linear"
    """The probe whose score is compared."""
    metric: Literal["aupr", "auroc", "balanced_accuracy"] = "aupr"
    """The macro-averaged score that is compared."""
    least: NonNegative = 0.01
    """Smallest difference that counts."""
    patience: Positive = 1
    """How many checkpoints in a row must be worse."""
    stop: bool = False
    """Exit at the first alarm instead of continuing. The exit code is 1 in both cases."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalOut:
    """Where the results are written."""

    url: str
    """Folder or URL for metrics.json, predictions.csv and report.html."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`retfound evaluate`: fine-tunes and scores one checkpoint."""

    checkpoint: str
    """URL of a committed checkpoint, a weights file, the name of a timm model, or `none`."""
    data: EvalData
    out: EvalOut
    seeds: Seeds = (0,)
    """Random seeds. The model is fine-tuned once for each."""
    external: External = field(default_factory=External)
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    jobs: Positive = 1
    """Seeds that are fine-tuned at the same time, each in its own process. The processes use the GPUs in
    turn."""
    threads: Count = 0
    """CPU threads. 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples for each 95 % interval."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompareOut:
    """Where the comparison is written."""

    url: str
    """Folder or URL for compare.json and the evaluation of each row."""
    report: str = ""
    """Path or URL of the page. Empty: report.html in `url`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompareConfig:
    """`retfound compare`: several starting weights in one table."""

    weights: dict[str, str]
    """Name of each row = its starting weights: a file, the URL of a checkpoint, the name of a timm model,
    or `none`."""
    data: EvalData
    out: CompareOut
    seeds: Seeds = (0,)
    """Random seeds. Each row is fine-tuned once for each."""
    label_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Additional shares of the train part's labels at which all rows are compared, such as [0.01, 0.1,
    0.5]."""
    sizes: Literal["own", "same"] | Annotated[tuple[Positive, ...], Field(min_length=1)] = "own"
    """Input sizes. `own`: each row has the size that its weights were trained with, or model.image_size.
    `same`: all rows have model.image_size, or 224. A list such as [224, 518]: a comparison of its own for
    each size, in OUT/size_224 and so on."""
    external: External = field(default_factory=External)
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    jobs: Positive = 1
    """Rows that are evaluated at the same time, each in its own process. They share the threads and use
    the GPUs in turn."""
    threads: Count = 0
    """CPU threads of all rows together. 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples for each 95 % interval."""

    @model_validator(mode="after")
    def _has_rows(self) -> CompareConfig:
        if not self.weights:
            raise ValueError('weights is empty: give at least one row, such as weights.scratch = "none"')
        if isinstance(self.sizes, tuple) and self.model.image_size != OWN:
            raise ValueError("sizes and model.image_size both give sizes: give one of the two")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WatchedRun:
    """The run to watch."""

    url: str
    """Path or URL of the run's folder."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WatchConfig:
    """`retfound watch`: evaluates each new checkpoint of a run."""

    run: WatchedRun
    data: EvalData
    seeds: Seeds = (0,)
    """Random seeds. Each checkpoint is fine-tuned once for each."""
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    threads: Count = 0
    """CPU threads. 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples for each 95 % interval."""
    finetune_every: Count = 1
    """Every n-th checkpoint, and the last one, is also fine-tuned and tested. All others are only probed.
    0: none is fine-tuned."""
    alarm: Alarm = field(default_factory=Alarm)
    poll_seconds: PositiveFloat = 60.0
    """Pause between two looks at the run."""
    stop_after_minutes: NonNegative = 0.0
    """Exit if there was no new checkpoint for so many minutes. 0: continue until the run has reached its
    last step."""
