"""Settings of `retfound pretrain`; defaults are the recipes of MAE and RETFound."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from retfound_dist.config.schema.setting_types import (
    STRICT,
    Betas,
    Count,
    Fraction,
    NonNegative,
    Positive,
    PositiveFloat,
    Range,
    Shares,
    Steps,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Run:
    """The run's folder."""

    url: str
    """Path or URL where config, metrics and checkpoints of this run are kept."""
    resume: Literal["auto", "none"] | Positive = "auto"
    """`auto`: go on from the newest checkpoint. `none`: begin again; a step: go on from its checkpoint."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """What is read, and how."""

    shards: str
    """Path or URL of the shard set."""
    split: Literal["auto", "all", "train", "val", "test"] = "all"
    """Which part of the shard set is trained on; `auto`: all but val and test, where there are such parts."""
    first_shards: Count = 0
    """Only so many first shards of the set: a run that began before the set grew goes on; 0: all."""
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
    # Larger than the 0.08 of supervised training: MAE needs little augmentation (He et al., table 1e).
    crop_scale: Shares = (0.2, 1.0)
    """Area of the random crop as a share of the image (RETFound)."""
    crop_ratio: Range = (0.75, 1.3333333333333333)
    """Width over height of the random crop (torchvision's default, used by MAE)."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    held_out: Literal["auto", "none", "val", "test"] = "auto"
    """Part never trained on whose loss is taken at each checkpoint; `auto`: val where that is left out."""
    held_out_images: Positive = 512
    """Images of that part, fixed with their masks; all, where there are fewer."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """The masked autoencoder."""

    name: str = "vit_large_patch16"
    """Encoder: one of the names in `retfound_dist.estimate.model_shapes.ENCODERS`."""
    init: str = "none"
    """Starting weights: a path or URL of MAE, RETFound, timm or our own, a timm model's name, or `none`."""
    image_size: Positive | tuple[Positive, Positive] = 224
    """Side of a square input in pixels, or height and width; multiples of the patch."""
    # 0.75 for OCT and 0.85 for colour photographs. Published accounts of RETFound give them the other way
    # round; there is a preset for each.
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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optim:
    """AdamW with warm-up and half-cosine (MAE, table 8)."""

    # A base rate, not the peak: at a batch of 16 the peak is 9.4e-6. A group that reported 1e-3 at this batch
    # got a checkpoint that was worse than the one it had started from.
    base_lr: PositiveFloat = 1.5e-4
    """Learning rate for a batch of 256; the peak is base_lr x global_batch / 256."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end."""
    warmup_epochs: NonNegative = 15.0
    """Epochs of linear warm-up from 0 (RETFound)."""
    weight_decay: NonNegative = 0.05
    """Decoupled decay; none on biases and norms."""
    betas: Betas = (0.9, 0.95)
    """AdamW's moments."""
    # torch's default; neither article names another.
    eps: PositiveFloat = 1e-8
    """AdamW's epsilon."""
    clip_grad: NonNegative = 0.0
    """Clip the gradient's norm to this; 0: no clipping, as in the paper."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Train:
    """The loop."""

    global_batch: Positive = 1792
    """Images a step over all ranks (RETFound: 8 GPUs x 224)."""
    micro_batch: Positive | Literal["auto"] = 64
    """Images a forward pass on one rank; accumulation is derived. `auto`: the most that memory holds."""
    steps: Count = 0
    """Length in steps; give this or `epochs`."""
    epochs: NonNegative = 0.0
    """Length in passes over the data; give this or `steps`."""
    seed: Count = 0
    """Weights, order, crops, flips and masks follow from it."""
    # Stage 0 runs as 1: it computes the same, keeps fp32 accumulation in bf16, and its state can be converted
    # to another number of ranks.
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: 1 shards the optimizer, 2 also gradients, 3 also weights; 0 runs as 1."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 keeps fp32 master weights and accumulates gradients in fp32."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the step: a minute at each start, faster steps. `auto`: on GPUs, below ZeRO 3."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more work."""
    offload_optimizer: bool = False
    """AdamW's state and fp32 weights stay in the host's memory: for GPUs that cannot hold them; slower."""
    log_every: Positive = 10
    """Steps between lines of metrics.jsonl."""
    stop_at_step: Count = 0
    """Commit a checkpoint and leave with 0 at this step though the schedule runs on; 0: never."""
    max_minutes: NonNegative = 0.0
    """Commit a checkpoint and leave with 0 so long after the start, as a signal would; 0: never."""
    # torchrun kills its ranks 30 s after it is told to stop, unless TORCH_ELASTIC_SHUTDOWN_TIMEOUT says
    # otherwise.
    grace_s: NonNegative = 300.0
    """Seconds a save may take after the run is asked to stop; `launch/` has torchrun wait so long."""
    hang_minutes: NonNegative = 30.0
    """Longest time for one step: after it all ranks print their stacks and leave with an error; 0: any."""
    bad_step_budget: Count = 10
    """Steps skipped because loss or gradient were not finite before the run stops with an error."""
    profile_steps: Steps = (0, 0)
    """First and last step to trace with torch's profiler, into the run's `profiles/`; 0, 0: none."""
    tensorboard: bool = False
    """Write the logged numbers for TensorBoard too, into the run's `tensorboard/`."""
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
    patience_s: NonNegative = 600.0
    """How long a store that refuses or fails is asked again, in seconds, before the run stops."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainConfig:
    """`retfound pretrain`: shards to checkpoints."""

    run: Run
    data: Data
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
