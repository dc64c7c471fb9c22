"""All settings with their types, defaults and meanings, one module for each command.

The classes are frozen dataclasses. Unknown keys and wrong types are errors. Defaults are the papers' recipes
(MAE: He et al. 2022, appendix A.1; RETFound: Zhou et al., Nature 2023, methods).

May import no other part of the package.
"""

from retfound_dist.config.schema.evaluate_settings import (
    OWN,
    Clinical,
    CompareConfig,
    CompareOut,
    EvalData,
    EvalModel,
    EvalOut,
    EvaluateConfig,
    External,
    WatchConfig,
)
from retfound_dist.config.schema.finetune_settings import Alarm, Finetune, Probe
from retfound_dist.config.schema.pack_settings import (
    PackConfig,
    PackImage,
    PackOut,
    Phantom,
    Source,
    Split,
)
from retfound_dist.config.schema.pretrain_settings import (
    Checkpoint,
    Data,
    DeviceSetting,
    Model,
    Optim,
    PretrainConfig,
    Run,
    Train,
)
from retfound_dist.config.schema.suite_settings import SuiteConfig, SuiteOut, SuiteSet
from retfound_dist.config.schema.task_settings import LABEL_SEPARATOR, MULTICLASS, NO_LABEL, Task, TaskKind

__all__ = [
    "LABEL_SEPARATOR",
    "MULTICLASS",
    "NO_LABEL",
    "OWN",
    "Alarm",
    "Checkpoint",
    "Clinical",
    "CompareConfig",
    "CompareOut",
    "Data",
    "DeviceSetting",
    "EvalData",
    "EvalModel",
    "EvalOut",
    "EvaluateConfig",
    "External",
    "Finetune",
    "Model",
    "Optim",
    "PackConfig",
    "PackImage",
    "PackOut",
    "Phantom",
    "PretrainConfig",
    "Probe",
    "Run",
    "Source",
    "Split",
    "SuiteConfig",
    "SuiteOut",
    "SuiteSet",
    "Task",
    "TaskKind",
    "Train",
    "WatchConfig",
]
