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

DeviceSetting = Literal["auto", "cuda", "cpu"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Run:
    """The run's folder."""

    url: str
    """Path or URL of the folder for the config, metrics and checkpoints of this run."""
    resume: Literal["auto", "none"] | Positive = "auto"
    """`auto`: continue from the newest checkpoint. `none`: start from the beginning. A step: continue
    from the checkpoint of that step."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """What is read, and how."""

    shards: str
    """Path or URL of the shard set."""
    split: Literal["auto", "all", "train", "val", "test"] = "all"
    """Part of the shard set to train on. `auto`: everything except val and test."""
    first_shards: Count = 0
    """Use only this many shards from the beginning of the set. A run continues with it after the set has
    grown. 0: all."""
    workers: Count | Literal["auto"] = "auto"
    """Loader processes for each rank. `auto`: as many as the model needs on a fast GPU, if the rank has the
    cores; one on a CPU. 0: load in the training process."""
    cache_dir: str = ""
    """Local folder that keeps fetched shards. Empty: a temporary folder. Local shards are read in place."""
    cache_gb: NonNegative = 0.0
    """Size limit of `cache_dir` in GB (10^9 bytes). The shards that were unused longest are removed
    first. 0: as large as the disk allows."""
    window_shards: Positive = 16
    """Number of shards that are shuffled together. A node keeps the shards that its ranks read, usually from
    at most three windows (docs/stream.md)."""
    patience_s: PositiveFloat = 300.0
    """The run stops with an error if the store gives no answer for so many seconds."""
    bad_sample_budget: Count = 100
    """How many unreadable samples are replaced by others and reported. With one more, the run stops with
    an error."""
    # Larger than the 0.08 of supervised training: MAE needs little augmentation (He et al., table 1e).
    crop_scale: Shares = (0.2, 1.0)
    """Smallest and largest area of the random crop, as a share of the image (RETFound)."""
    crop_ratio: Range = (0.75, 1.3333333333333333)
    """Smallest and largest width over height of the random crop (torchvision's default, used by MAE)."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    held_out: Literal["auto", "none", "val", "test"] = "auto"
    """Part that is not trained on. Its loss is computed at each checkpoint. `auto`: val, if `split`
    leaves it out. `none`: no part."""
    held_out_images: Positive = 512
    """Number of images of the held-out part. The images and their masks stay the same. All, if the part
    has fewer."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """The masked autoencoder."""

    name: str = "vit_large_patch16"
    """Encoder: one of the names in `retfound_dist.estimate.model_shapes.ENCODERS`."""
    init: str = "none"
    """Starting weights: a path or URL of weights of MAE, RETFound, timm or this software, the name of a
    timm model, or `none`."""
    image_size: Positive | tuple[Positive, Positive] = 224
    """Side of a square input in pixels, or [height, width]. A multiple of the patch size."""
    # 0.75 for OCT and 0.85 for colour photographs. Published accounts of RETFound give them the other way
    # round; there is a preset for each.
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of patches that are removed."""
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
    """AdamW with linear warm-up and half-cosine decay (MAE, table 8)."""

    # A base rate, not the peak: at a batch of 16 the peak is 9.4e-6. A group that reported 1e-3 at this batch
    # got a checkpoint that was worse than the one it had started from.
    base_lr: PositiveFloat = 1.5e-4
    """Learning rate for a batch of 256. The peak is base_lr x global_batch / 256."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end."""
    warmup_epochs: NonNegative = 15.0
    """Epochs of linear warm-up from 0 (RETFound)."""
    weight_decay: NonNegative = 0.05
    """Decoupled weight decay. Biases and norms have none."""
    betas: Betas = (0.9, 0.95)
    """AdamW's beta1 and beta2."""
    # torch's default; neither article names another.
    eps: PositiveFloat = 1e-8
    """AdamW's epsilon."""
    clip_grad: NonNegative = 0.0
    """Largest norm of the gradient. A larger gradient is scaled down to it. 0: no clipping, as in the
    paper."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Train:
    """The training loop."""

    global_batch: Positive = 1792
    """Images in a step, over all ranks (RETFound: 8 GPUs x 224)."""
    micro_batch: Positive | Literal["auto"] = 64
    """Images in one forward pass of one rank. The number of accumulation steps follows from it. `auto`:
    as many as fit into memory."""
    steps: Count = 0
    """Length of the run in steps. Set either this or `epochs`."""
    epochs: NonNegative = 0.0
    """Length of the run in passes over the data. Set either this or `steps`."""
    seed: Count = 0
    """Random seed of the weights, the order, the crops, the flips and the masks."""
    # Stage 0 runs as 1: it computes the same, keeps fp32 accumulation in bf16, and its state can be converted
    # to another number of ranks.
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage. 1 shards the optimizer state, 2 also the gradients, 3 also the weights. 0
    runs as 1."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`bf16` keeps master weights in fp32 and accumulates gradients in fp32."""
    device: DeviceSetting = "auto"
    """Where each rank computes. `auto`: on a GPU, or on the CPU of a machine without one. If GPUs are there
    and torch cannot use them, the run does not start."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the step. Each start takes about a minute longer, and steps are faster. `auto`: on GPUs
    with ZeRO below 3."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass. It needs less memory and about a third more computation."""
    offload_optimizer: bool = False
    """Keep AdamW's state and the fp32 weights in the host's memory, for GPUs that are too small. It is
    slower."""
    log_every: Positive = 10
    """Steps between two lines of metrics.jsonl."""
    stop_at_step: Count = 0
    """Commit a checkpoint at this step and exit with code 0. The schedule is still that of the full
    length. 0: do not stop early."""
    max_minutes: NonNegative = 0.0
    """Commit a checkpoint so many minutes after the start and exit with code 0, as after a signal. 0: no
    limit."""
    # torchrun kills its ranks 30 s after it is told to stop, unless TORCH_ELASTIC_SHUTDOWN_TIMEOUT says
    # otherwise.
    grace_s: NonNegative = 300.0
    """Seconds that a save may take after the run was asked to stop. torchrun waits this long if it is
    started by `launch/`."""
    hang_minutes: NonNegative = 30.0
    """Longest time of one step. After it, all ranks print their stacks and exit with an error. 0: no
    limit."""
    bad_step_budget: Count = 10
    """How many steps with a loss or gradient that is not finite are skipped. With one more, the run stops
    with an error."""
    profile_steps: Steps = (0, 0)
    """First and last step to trace with torch's profiler. Traces are written to the run's `profiles/`.
    [0, 0]: none."""
    tensorboard: bool = False
    """Write the logged numbers also for TensorBoard, to the run's `tensorboard/`."""
    threads: Count = 0
    """CPU threads of each rank. 0: the host's cores are divided among its ranks."""

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
    """When checkpoints are committed."""

    every_steps: Positive = 500
    """Steps between checkpoints. The last step always gets one."""
    keep_last: Positive = 3
    """How many of the newest checkpoints keep their training state. Older ones keep only their weights."""
    keep_every_steps: Count = 0
    """Checkpoints at multiples of this step also keep their training state. 0: none."""
    patience_s: NonNegative = 600.0
    """Seconds for which a failed save is tried again before the run stops."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainConfig:
    """`retfound pretrain`: shards to checkpoints."""

    run: Run
    data: Data
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
