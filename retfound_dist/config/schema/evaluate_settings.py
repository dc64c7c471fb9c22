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
    """Folder (train|val|test/<class>, or class folders), list of file,label (.csv, .tsv, .xlsx), or URL of
    labelled shards."""
    # RETFound splits OCTID 6:2:2.
    fractions: Parts = (0.6, 0.2, 0.2)
    """Shares of train, val and test where the set brings no split; by patient where patients are known, by
    volume where volumes are, else by image."""
    split_seed: Count = 0
    """Which patient falls where is a function of this seed."""
    split_file: str = ""
    """CSV key,part (such as an evaluation's split.csv): the split where it exists; written where not."""
    label_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the train part's labels that is used: stratified, a smaller share inside a larger one."""
    workers: Count = 2
    """Loader processes."""
    bad_sample_budget: Count = 10
    """Unreadable images left out (and named) before the evaluation stops with an error."""
    follow_links: Literal["inside", "anywhere"] = "inside"
    """Symbolic links that are followed: those to files and folders inside `path` (external.path too), or
    all. `anywhere` lets the folder name any file that you can read: set it for folders you trust."""
    unknown_patient: Literal["volume", "image"] = "volume"
    """Images whose patient is not known: `volume` keeps slices of one volume (as a list, a shard set or the
    files' names tell) and a folder below a class folder in one part; `image` parts every image alone."""
    labels_as_given: bool = False
    """Take every different label for a class, even where labels look like measurements, dates, names or
    several classes at once, or differ only by capitals."""
    allow_leak: bool = False
    """Go on, with a warning, where a given split holds a patient, a volume or the same pixels in two
    parts."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class External:
    """Another labelled set to test on as well, of another device or clinic."""

    path: str = ""
    """Folder or URL of the set, every image of which is tested; empty: none."""
    class_map: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Class of the model = label or [labels] of the external set; empty: labels of the same name."""

    @model_validator(mode="after")
    def _has_path(self) -> External:
        if self.class_map and not self.path:
            raise ValueError("external.class_map is given without external.path: name the external set")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalModel:
    """The classifier where the checkpoint does not say (`checkpoint = "none"`)."""

    name: str = "vit_large_patch16"
    """Encoder, as for pretraining; a checkpoint's own wins."""
    image_size: Positive = 224
    """Input side in pixels; a run's checkpoint brings its own."""


def _check_change(change: dict[str, Any]) -> dict[str, Any]:
    if "try_recipes" in change:
        raise ValueError("finetune.try_recipes lies within itself: write one list of tables")
    Finetune().with_change(change)
    return change


Change = Annotated[dict[str, Any], AfterValidator(_check_change)]
"""Some settings of `Finetune`, each by its name."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Finetune:
    """RETFound's fine-tuning recipe."""

    epochs: Positive = 50
    """Passes over the train part."""
    batch: Positive = 16
    """Images a step."""
    base_lr: PositiveFloat = 5e-3
    """Learning rate for a batch of 256; the peak is base_lr x batch / 256."""
    try_recipes: tuple[Change, ...] = ()
    """Tables of settings that differ from these: each is tried with the first seed, the one with the best
    val AUROC serves all seeds. Empty: these settings and no others."""
    # Not 0 as in pretraining: RETFound's fine-tuning ends at 1e-6.
    min_lr: NonNegative = 1e-6
    """Learning rate at the end."""
    warmup_epochs: NonNegative = 10.0
    """Epochs of linear warm-up from 0."""
    weight_decay: NonNegative = 0.05
    """AdamW's decay; none on biases, norms and tokens."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.65
    """Each layer below the head learns by this factor less."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Stochastic depth, rising linearly to this."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the target spread over all classes, of mixed images too."""
    mixup: NonNegative = 0.0
    """Two images are blended by a share from Beta(a, a) with this a (MAE: 0.8; RETFound: off); 0: never."""
    cutmix: NonNegative = 0.0
    """A rectangle comes from another image, its share from Beta(a, a) with this a; 0: never.
    Where mixup is on too, each batch draws one of the two."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: an image counts images / (classes x images of its class), so that rare classes count."""
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """timm's RandAugment string; empty: none."""
    random_erasing: Fraction = 0.25
    """Probability of random erasing."""
    crop_scale: Shares = (0.08, 1.0)
    """Area of the random crop in training (timm's default, used by RETFound)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`bf16`: products in bfloat16, weights in fp32, also on a CPU with instructions for it (fp32 on others);
    `auto`: bf16 on a GPU, fp32 on any CPU."""

    def with_change(self, change: dict[str, Any]) -> Finetune:
        """This recipe with some settings changed; raises pydantic's ValidationError where that is unsound."""
        # By way of JSON, as `config.loading` does: a change comes from a file, where tuples are lists.
        tree = {**dataclasses.asdict(self), "try_recipes": [], **change}
        return TypeAdapter(Finetune).validate_json(json.dumps(tree))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Probe:
    """Linear probe and nearest neighbours on frozen features."""

    enabled: bool = True
    """Probe as well as fine-tune; `watch` probes always."""
    strengths: tuple[PositiveFloat, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Inverse penalties of the logistic regression (scikit-learn's C) to choose from."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Folds among the fitted images by which the penalty is chosen."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of train and val together in which `watch` predicts every image."""
    seed: Count = 0
    """Which patient falls into which fold is a function of this seed."""
    neighbours: Positive = 20
    """Images that vote."""
    temperature: PositiveFloat = 0.07
    """A neighbour's vote weighs exp(cosine similarity / temperature)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Alarm:
    """When `watch` says that a run goes wrong: by more than the paired 95 % interval, and by `least`."""

    method: Literal["linear", "knn"] = "linear"
    """The probe that is judged."""
    metric: Literal["aupr", "auroc", "balanced_accuracy"] = "aupr"
    """The macro score that is judged."""
    least: NonNegative = 0.01
    """A smaller difference does not count, however narrow its interval."""
    patience: Positive = 1
    """Checkpoints in a row that must be worse before it counts."""
    stop: bool = False
    """Leave at the first alarm instead of watching on; the exit code is 1 either way."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalOut:
    """Where the results go."""

    url: str
    """Folder or URL for metrics.json, predictions.csv and report.html."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`retfound evaluate`: one checkpoint fine-tuned and scored."""

    checkpoint: str
    """A committed checkpoint's URL, a weights file, a timm model's name, or `none`."""
    data: EvalData
    out: EvalOut
    seeds: Seeds = (0,)
    """One fine-tuning for each."""
    external: External = field(default_factory=External)
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    jobs: Positive = 1
    """Seeds fine-tuned at the same time, each in a process of its own, on GPUs in turn."""
    threads: Count = 0
    """CPU threads; 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples behind each 95 % interval."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompareOut:
    """Where the comparison goes."""

    url: str
    """Folder or URL for compare.json and one evaluation for each row."""
    report: str = ""
    """Path or URL of the page; empty: report.html under `url`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompareConfig:
    """`retfound compare`: several starting weights, one table."""

    weights: dict[str, str]
    """Name of each row and its starting weights: `none`, a file, a checkpoint's URL, a timm model's name."""
    data: EvalData
    out: CompareOut
    seeds: Seeds = (0,)
    """One fine-tuning for each row and seed."""
    label_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Shares of the train part's labels at which all rows are compared too, such as [0.01, 0.1, 0.5]."""
    external: External = field(default_factory=External)
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    jobs: Positive = 1
    """Rows evaluated at the same time, each in a process of its own; they share the threads, GPUs in turn."""
    threads: Count = 0
    """CPU threads of all rows together; 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples behind each 95 % interval."""

    @model_validator(mode="after")
    def _has_rows(self) -> CompareConfig:
        if not self.weights:
            raise ValueError('weights is empty: name at least one row, such as weights.scratch = "none"')
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WatchedRun:
    """The run that is followed."""

    url: str
    """Path or URL of the run's folder."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WatchConfig:
    """`retfound watch`: every new checkpoint of a run evaluated as it lands."""

    run: WatchedRun
    data: EvalData
    seeds: Seeds = (0,)
    """One fine-tuning for each checkpoint and seed."""
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    threads: Count = 0
    """CPU threads; 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples behind each 95 % interval."""
    finetune_every: Count = 1
    """Every n-th checkpoint, and the last, is fine-tuned and tested too; 0: none is, all are probed."""
    alarm: Alarm = field(default_factory=Alarm)
    poll_seconds: PositiveFloat = 60.0
    """Pause between two looks at the run."""
    stop_after_minutes: NonNegative = 0.0
    """Leave after so long without a new checkpoint; 0: go on until the run has reached its last step."""
