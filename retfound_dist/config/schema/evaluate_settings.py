"""Settings of `retfound evaluate`, `compare` and `watch`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from retfound_dist.config.schema.finetune_settings import Alarm, Finetune, Probe
from retfound_dist.config.schema.setting_types import (
    STRICT,
    Count,
    NonNegative,
    Parts,
    Positive,
    PositiveFloat,
    Seeds,
)
from retfound_dist.config.schema.task_settings import Task, check_task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalData:
    """The labelled set."""

    path: str
    """Folder (train|val|test/<class>, or class folders), list with the columns file and label (.csv,
    .tsv, .xlsx), or URL of labelled shards."""
    unit: Literal["image", "volume", "eye", "patient"] = "image"
    """What is scored. `volume`, `eye` and `patient`: the images of one volume, one eye or one patient give
    one prediction (`finetune.pool`). An eye is a patient with a side. The list, the shard set or the file
    names must say which volume, eye or patient an image is of."""
    labels: str = ""
    """Table with labels of volumes, eyes or patients (columns volume,label, or patient,eye,label, or
    patient,label). Each image of `path` gets the label of its own; images without one are left out and
    counted. Empty: the labels are those of the images."""
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
    label_shots: Count = 0
    """Patients of each class in train whose images are used, drawn at random: volumes, folders or images
    where no patient is known. A class with fewer uses all of its patients. Fewer shots are part of more
    shots of the same draw. 0: all patients."""
    shot_draw: Count = 0
    """Number of the random draw of `label_shots`. Another draw chooses other patients."""
    workers: Count | Literal["auto"] = "auto"
    """Loader processes. `auto`: on a GPU up to 8, as many as there are cores but one; 2 on a CPU."""
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
    subgroups: tuple[str, ...] = ()
    """Columns of the list, or fields of the samples, that divide the test part into subgroups with scores of
    their own: ["sex", "device", "age:0-50,50-70,70+"]. After a colon stand ranges of numbers: 50-70 holds 50
    and all numbers below 70. The external set needs the same columns."""
    labels_as_given: bool = False
    """Accept every label as a class, even if labels look like measurements, dates, names or several
    classes at once, or differ only by capitals."""
    allow_leak: bool = False
    """Only warn if a given split has the same patient, volume or pixels in two parts. Without it, that is
    an error."""

    @model_validator(mode="after")
    def _has_one_subset(self) -> EvalData:
        if self.label_shots and self.label_share < 1:
            raise ValueError("label_share and label_shots both choose images of train: give one of the two")
        return self


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


Rate = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clinical:
    """What a clinic asks: operating points, decision curves, predictive values. They do not change the
    fine-tuning: an existing evaluation of images without an external set is only scored again."""

    positive: tuple[str, ...] = ()
    """Classes that together are the positive answer of one two-class question, such as ["AMD", "DME"]. Empty:
    each class is a question of its own, against the rest."""
    specificities: tuple[Rate, ...] = (0.9, 0.95)
    """Specificities that a threshold has to reach on val."""
    sensitivities: tuple[Rate, ...] = (0.9, 0.95)
    """Sensitivities that a threshold has to reach on val."""
    prevalence: dict[str, Rate] = field(default_factory=dict)
    """CLASS = its prevalence where the classifier will be used, such as 0.02. PPV and NPV are then also given
    at this prevalence. Shares of all people: of all classes they sum to 1. Empty: only at that of the test
    part."""


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


def check_pool(units: Collection[str], finetune: Finetune) -> None:
    """ValueError where images would be pooled, but images are all that is scored.

    `units`: `data.unit` of each set.
    """
    pools = {finetune.pool, *(change.get("pool") for change in finetune.try_recipes)}
    if "attention" in pools and set(units) == {"image"}:
        raise ValueError(
            'finetune.pool="attention" pools the images of a volume, an eye or a patient, but single images '
            'are scored: set data.unit="eye", or leave finetune.pool out'
        )


def settings_of_classes(data: EvalData, external: External, clinical: Clinical) -> dict[str, bool]:
    """Setting -> whether it is set, of those that only one class of several has."""
    return {
        "external.path": bool(external.path),
        "data.label_shots": data.label_shots > 0,
        "data.subgroups": bool(data.subgroups),
        "data.unit": data.unit != "image",
        "data.labels": bool(data.labels),
        "clinical": clinical != Clinical(),
    }


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
    task: Task = field(default_factory=Task)
    external: External = field(default_factory=External)
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    clinical: Clinical = field(default_factory=Clinical)
    jobs: Positive = 1
    """Seeds that are fine-tuned at the same time, each in its own process. The processes use the GPUs in
    turn."""
    threads: Count = 0
    """CPU threads. 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples for each 95 % interval."""

    @model_validator(mode="after")
    def _fits_its_task(self) -> EvaluateConfig:
        check_task(self.task, self.finetune, settings_of_classes(self.data, self.external, self.clinical))
        check_pool([self.data.unit], self.finetune)
        return self


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
    task: Task = field(default_factory=Task)
    label_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Additional shares of the train part's labels at which all rows are compared, such as [0.01, 0.1,
    0.5]."""
    label_shots: tuple[Positive, ...] = ()
    """Numbers of patients of each class with which all rows are also compared, such as [1, 2, 4, 8, 16].
    Each row is evaluated once for each number and draw."""
    shot_draws: Positive = 5
    """Random draws of patients for each number in `label_shots`. Each draw is fine-tuned with one of
    `seeds`, in turn."""
    sizes: Literal["own", "same"] | Annotated[tuple[Positive, ...], Field(min_length=1)] = "own"
    """Input sizes. `own`: each row has the size that its weights were trained with, or model.image_size.
    `same`: all rows have model.image_size, or 224. A list such as [224, 518]: a comparison of its own for
    each size, in OUT/size_224 and so on."""
    external: External = field(default_factory=External)
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    clinical: Clinical = field(default_factory=Clinical)
    jobs: Positive = 1
    """Rows that are evaluated at the same time, each in its own process. They share the threads and use
    the GPUs in turn."""
    threads: Count = 0
    """CPU threads of all rows together. 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples for each 95 % interval."""

    @model_validator(mode="after")
    def _fits_its_task(self) -> CompareConfig:
        unfit = settings_of_classes(self.data, self.external, self.clinical)
        unfit |= {"label_shots": bool(self.label_shots), "label_shares": bool(self.label_shares)}
        check_task(self.task, self.finetune, unfit)
        return self

    @model_validator(mode="after")
    def _has_rows(self) -> CompareConfig:
        """ValueError for a comparison without rows, or for settings that exclude each other."""
        if not self.weights:
            raise ValueError('weights is empty: give at least one row, such as weights.scratch = "none"')
        check_pool([self.data.unit], self.finetune)
        if isinstance(self.sizes, tuple) and self.model.image_size != OWN:
            raise ValueError("sizes and model.image_size both give sizes: give one of the two")
        if self.data.label_shots and (self.label_shares or self.label_shots):
            raise ValueError(
                "data.label_shots is one number of patients for the whole comparison: "
                "leave it out where label_shots or label_shares is set"
            )
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

    @model_validator(mode="after")
    def _watches_a_probe(self) -> WatchConfig:
        check_pool([self.data.unit], self.finetune)
        if self.alarm.method not in self.probe.kinds:
            raise ValueError(
                f"alarm.method={self.alarm.method} is not in probe.kinds ({', '.join(self.probe.kinds)}): "
                "add it there, or judge by another probe"
            )
        return self
