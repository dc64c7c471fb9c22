"""Every setting there is: name, type, default, unit, meaning and source, once.

Frozen dataclasses; unknown keys and wrong types are errors. Defaults are the paper's recipes
(MAE: He et al. 2022, appendix A.1; RETFound: Zhou et al., Nature 2023, methods).
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Pair = tuple[float, float]
Parts = tuple[float, float, float]
Seeds = Annotated[tuple[int, ...], Field(min_length=1)]


# ---------------------------------------------------------------- pack


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Source:
    """Where the images come from."""

    kind: Literal["folder", "phantom"] = "folder"
    """`folder`: class folders of images, OCTID's train|val|test folders included; `phantom`: generated."""
    path: str = ""
    """Folder to read; unused by `phantom`."""
    name: str = ""
    """Name of this source in the manifest; the folder's own name when empty."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Phantom:
    """The generated corpus, read when `source.kind` is `phantom`."""

    patients: Positive = 120
    """Patients, one class each, balanced over the five classes."""
    slices: Positive = 8
    """B-scans a volume."""
    volumes: Annotated[int, Field(ge=1, le=2)] = 1
    """Volumes (eyes) a patient."""
    height: Annotated[int, Field(ge=64)] = 192
    """Pixels."""
    width: Annotated[int, Field(ge=64)] = 256
    """Pixels."""
    seed: Count = 0
    """What is drawn is a function of this seed."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackImage:
    """How images are stored."""

    format: Literal["jpg", "png"] = "jpg"
    """A grey JPEG that needs no change is stored as it is; anything else is encoded in this format."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality."""
    max_height: Count = 0
    """Taller images are scaled down to this many pixels; 0 keeps every size. Never scaled up."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Split:
    """Parts by patient (by image where no patient is known)."""

    fractions: Parts = (0.0, 0.0, 0.0)
    """Shares of train, val and test, such as [0.6, 0.2, 0.2]; all zero: no split but the source's own."""
    seed: Count = 0
    """Which patient falls where is a function of this seed."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        if any(f < 0 for f in self.fractions) or (
            sum(self.fractions) not in (0.0,) and abs(sum(self.fractions) - 1) > 1e-6
        ):
            raise ValueError(
                f"split.fractions {list(self.fractions)} must be three shares that sum to 1, or all 0"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackOut:
    """Where the shards go."""

    url: str
    """Path or URL of the shard set."""
    name: str = "oct"
    """Shards are called NAME-000000.tar and so on."""
    shard_mb: PositiveFloat = 64.0
    """Aimed size of a shard in MB (10^6 bytes)."""
    seed: Count = 0
    """Samples are shuffled over shards by this seed, so that neighbours in a volume spread out."""
    bad_sample_budget: Count = 100
    """Unreadable images left out (and named) before packing stops with an error."""
    workers: Count = 0
    """Processes that decode and encode; 0: one for each core."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackConfig:
    """`retfound pack`: images to shards."""

    out: PackOut
    source: Source = field(default_factory=Source)
    phantom: Phantom = field(default_factory=Phantom)
    image: PackImage = field(default_factory=PackImage)
    split: Split = field(default_factory=Split)


# ---------------------------------------------------------------- pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Run:
    """The run's folder."""

    url: str
    """Path or URL where config, metrics and checkpoints of this run are kept."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """What is read, and how."""

    shards: str
    """Path or URL of the shard set."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Which part of the shard set is trained on."""
    workers: Count = 4
    """Loader processes for each rank; 0 loads in the training process."""
    cache_dir: str = ""
    """Local folder where fetched shards are kept; empty: a temporary one. Local shards are read in place."""
    cache_gb: NonNegative = 0.0
    """Largest size of `cache_dir` in GB (10^9 bytes), longest unused out first; 0: as large as the disk."""
    window_shards: Positive = 16
    """Shards shuffled together; a node holds those that its ranks read, of at most three windows."""
    patience_s: PositiveFloat = 300.0
    """Seconds without any answer from the store before the run stops with an error."""
    bad_sample_budget: Count = 100
    """Unreadable samples replaced by another (and named) before the run stops with an error."""
    crop_scale: Pair = (0.2, 1.0)
    """Area of the random crop as a share of the image (RETFound)."""
    crop_ratio: Pair = (0.75, 1.3333333333333333)
    """Width over height of the random crop (torchvision's default, used by MAE)."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """The masked autoencoder."""

    name: str = "vit_large_patch16"
    """Encoder: one of the names in `retfound_dist.model.mae.ENCODERS`."""
    init: str = "none"
    """Starting weights: a path or URL of MAE, RETFound, timm or our own weights, or `none`."""
    image_size: Positive = 224
    """Side of the square input in pixels; a multiple of the patch."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of patches removed."""
    norm_pix_loss: bool = True
    """Normalise each target patch by its own mean and variance (MAE, table 1d)."""
    decoder_width: Positive = 512
    """Channels of the decoder."""
    decoder_depth: Positive = 8
    """Blocks of the decoder."""
    decoder_heads: Positive = 16
    """Attention heads of the decoder."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optim:
    """AdamW with warm-up and half-cosine (MAE, table 8)."""

    base_lr: PositiveFloat = 1.5e-4
    """Learning rate for a batch of 256; the peak is base_lr x global_batch / 256."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end."""
    warmup_epochs: NonNegative = 15.0
    """Epochs of linear warm-up from 0 (RETFound)."""
    weight_decay: NonNegative = 0.05
    """Decoupled decay; none on biases and norms."""
    betas: Pair = (0.9, 0.95)
    """AdamW's moments."""
    eps: PositiveFloat = 1e-8
    """AdamW's epsilon."""
    clip_grad: NonNegative = 0.0
    """Clip the gradient's norm to this; 0: no clipping, as in the paper."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Train:
    """The loop."""

    global_batch: Positive = 1792
    """Images a step over all ranks (RETFound: 8 GPUs x 224)."""
    micro_batch: Positive = 64
    """Images a forward pass on one rank; accumulation is derived."""
    steps: Count = 0
    """Length in steps; give this or `epochs`."""
    epochs: NonNegative = 0.0
    """Length in passes over the data; give this or `steps`."""
    seed: Count = 0
    """Weights, order, crops, flips and masks follow from it."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: 1 shards the optimizer, 2 also gradients, 3 also weights; 0 runs as 1."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 keeps fp32 master weights and accumulates gradients in fp32."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more work."""
    log_every: Positive = 10
    """Steps between lines of metrics.jsonl."""
    stop_at_step: Count = 0
    """Commit a checkpoint and leave with 0 at this step though the schedule runs on; 0: never."""
    threads: Count = 0
    """CPU threads for each rank; 0: the host's cores shared between its ranks."""

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if bool(self.steps) == bool(self.epochs):
            raise ValueError(
                f"train.steps={self.steps} and train.epochs={self.epochs:g}: "
                "give exactly one of them, the other 0"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Checkpoint:
    """When state is committed."""

    every_steps: Positive = 500
    """Steps between checkpoints; the last step always has one."""
    keep_last: Positive = 3
    """Newest checkpoints whose training state is kept."""
    keep_every_steps: Count = 0
    """Checkpoints at multiples of this are kept for good; 0: none."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainConfig:
    """`retfound pretrain`: shards to checkpoints."""

    run: Run
    data: Data
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train
    checkpoint: Checkpoint = field(default_factory=Checkpoint)


# ---------------------------------------------------------------- evaluate


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalData:
    """The labelled set."""

    path: str
    """Folder (train|val|test/<class>, or plain class folders) or URL of labelled shards."""
    fractions: Parts = (0.6, 0.2, 0.2)
    """Shares of train, val and test where the set brings no split; by patient where patients are known."""
    split_seed: Count = 0
    """Which patient falls where is a function of this seed."""
    workers: Count = 2
    """Loader processes."""
    bad_sample_budget: Count = 10
    """Unreadable images left out (and named) before the evaluation stops with an error."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalModel:
    """The classifier where the checkpoint does not say (`checkpoint = "none"`)."""

    name: str = "vit_large_patch16"
    """Encoder, as for pretraining; a checkpoint's own wins."""
    image_size: Positive = 224
    """Input side in pixels; a run's checkpoint brings its own."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Finetune:
    """RETFound's fine-tuning recipe."""

    epochs: Positive = 50
    """Passes over the train part."""
    batch: Positive = 16
    """Images a step."""
    base_lr: PositiveFloat = 5e-3
    """Learning rate for a batch of 256; the peak is base_lr x batch / 256."""
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
    """Share of the target spread over all classes."""
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """timm's RandAugment string; empty: none."""
    random_erasing: Fraction = 0.25
    """Probability of random erasing."""
    crop_scale: Pair = (0.08, 1.0)
    """Area of the random crop in training (timm's default, used by RETFound)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalOut:
    """Where the results go."""

    url: str
    """Folder or URL for metrics.json, predictions.csv and report.html."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`retfound evaluate`: one checkpoint fine-tuned and scored."""

    checkpoint: str
    """A committed checkpoint's URL, a weights file, or `none`."""
    data: EvalData
    out: EvalOut
    seeds: Seeds = (0,)
    """One fine-tuning for each."""
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
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
    """Name of each row and its starting weights: `none`, a file, or a checkpoint's URL."""
    data: EvalData
    out: CompareOut
    seeds: Seeds = (0,)
    """One fine-tuning for each row and seed."""
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    jobs: Positive = 1
    """Rows evaluated at the same time, each in a process of its own; they share the threads and the GPU."""
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
class WatchConfig:
    """`retfound watch`: every new checkpoint of a run evaluated as it lands."""

    run: Run
    data: EvalData
    seeds: Seeds = (0,)
    """One fine-tuning for each checkpoint and seed."""
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    threads: Count = 0
    """CPU threads; 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples behind each 95 % interval."""
    poll_seconds: PositiveFloat = 60.0
    """Pause between two looks at the run."""
    stop_after_minutes: NonNegative = 0.0
    """Leave after so long without a new checkpoint; 0: go on until the run has reached its last step."""
