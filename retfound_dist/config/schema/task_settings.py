"""Settings of the task that a labelled set asks: one class of several, or another kind of answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from retfound_dist.config.schema.finetune_settings import Finetune
from retfound_dist.config.schema.setting_types import STRICT

TaskKind = Literal["multiclass", "multilabel", "regression", "ordinal"]
MULTICLASS: TaskKind = "multiclass"
NO_LABEL = "none"
"""In `predicted` of `multilabel`: the image has none of the labels."""
LABEL_SEPARATOR = ";"
"""Between several labels in `predicted` of `multilabel`."""
_UNFIT_FINETUNE: dict[str, Any] = {"mixup": 0.0, "cutmix": 0.0, "class_weights": "none", "try_recipes": ()}
"""Settings of fine-tuning that only classes have, and the values that switch them off."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Task:
    """What is predicted."""

    kind: TaskKind = MULTICLASS
    """`multiclass`: one class of several, from class folders or the column label. `multilabel`: several
    labels, each yes or no. `regression`: a number. `ordinal`: a grade, where a near miss is better than a
    far one."""
    targets: tuple[str, ...] = ()
    """Columns of the list, or fields of the samples, with the answers. `multilabel`: one column for each
    label, with 0 or 1. `regression` and `ordinal`: one column. `multiclass`: none."""
    grades: tuple[str | int, ...] = ()
    """`ordinal`: the grades from the lowest to the highest, such as ["absent", "mild", "severe"]. Empty: the
    grades are the whole numbers of the column."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Task:
        """ValueError where `targets` or `grades` are missing for the kind of task, or are not for it."""
        if self.kind == MULTICLASS and (self.targets or self.grades):
            raise ValueError(
                "task.targets and task.grades are for other kinds than multiclass: set task.kind to "
                "multilabel, regression or ordinal, or leave them out"
            )
        if self.kind != MULTICLASS and not self.targets:
            raise ValueError(
                f'task.kind={self.kind} needs the column with the answers: set task.targets=["COLUMN"]'
            )
        if self.kind in ("regression", "ordinal") and len(self.targets) > 1:
            raise ValueError(
                f"task.kind={self.kind} has one target, but task.targets names {len(self.targets)}: "
                "give one column, and evaluate each of them on its own"
            )
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("task.targets names a column twice: name each once")
        if self.kind == "multilabel":
            _check_label_names(self.targets)
        if self.grades and self.kind != "ordinal":
            raise ValueError(f"task.grades is for task.kind=ordinal, not {self.kind}: leave it out")
        if self.grades and len({str(grade) for grade in self.grades}) < max(2, len(self.grades)):
            raise ValueError("task.grades needs at least two grades, each of them once")
        return self


def _check_label_names(names: Sequence[str]) -> None:
    """ValueError where the column `predicted` would be ambiguous."""
    for name in names:
        if name == NO_LABEL:
            reason = f"{NO_LABEL!r} means that an image has no label"
        elif LABEL_SEPARATOR in name:
            reason = f"{LABEL_SEPARATOR!r} separates labels"
        else:
            continue
        raise ValueError(
            f"task.targets names {name!r}, but in predictions {reason}: give this column another name"
        )


def check_task(task: Task, finetune: Finetune, unfit: dict[str, bool]) -> None:
    """ValueError where other settings do not fit the task.

    `unfit`: setting -> whether it is set. These settings need classes.
    """
    if task.kind == MULTICLASS:
        return
    unfit = unfit | {
        f"finetune.{name}": getattr(finetune, name) != off for name, off in _UNFIT_FINETUNE.items()
    }
    names = [name for name, is_set in unfit.items() if is_set]
    if names:
        raise ValueError(f"{', '.join(names)} needs classes, but task.kind={task.kind}: leave it out")
