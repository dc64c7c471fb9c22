"""All settings: name, type, default, unit, meaning and source, in one module for each command.

Frozen dataclasses; unknown keys and wrong types are errors. Defaults are the paper's recipes
(MAE: He et al. 2022, appendix A.1; RETFound: Zhou et al., Nature 2023, methods).

May import nothing of the house.
"""

from retfound_dist.config.schema.evaluate_settings import (
    Alarm,
    CompareConfig,
    CompareOut,
    EvalData,
    EvalModel,
    EvalOut,
    EvaluateConfig,
    External,
    Finetune,
    Probe,
    WatchConfig,
)
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
    Model,
    Optim,
    PretrainConfig,
    Run,
    Train,
)

__all__ = [
    "Alarm",
    "Checkpoint",
    "CompareConfig",
    "CompareOut",
    "Data",
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
    "Train",
    "WatchConfig",
]
