"""Reads the answers of tasks other than one class of several: labels of yes or no, a number, or a grade.

    targets = read_targets(listing.items, Task(kind="regression", targets=("thickness_um",)), "set/list.csv")
    targets.of_images(keys)      # (N, T), NaN: not known

`multilabel`: T labels with 0 or 1. `regression`: T = 1, the number. `ordinal`: T = 1, the index of the grade.
A value that is not known is an empty cell, or `unknown`, `NA`, `-` and the like. Then that label of the image
does not count. An image without its number or grade, or without any of its labels, is left out and named.
Shapes: N images, T targets.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retfound_dist.config.schema import NO_LABEL, Task
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_layouts import LabelledImage
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.listing.image_lists import is_known

STRATA = 5
"""Groups of equal size by which a split of numbers is stratified."""
_MAX_NAMED = 5
_YES_OR_NO = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class SetTargets:
    """The answers of a labelled set."""

    kind: str
    """`multilabel`, `regression` or `ordinal`."""
    names: tuple[str, ...]
    """The columns of the answers."""
    grades: tuple[str, ...]
    """Of `ordinal`, from the lowest to the highest; else empty."""
    values: Mapping[str, tuple[float, ...]]
    """Key -> its answers (T,). Images that are left out are not in it."""
    strata: Mapping[str, str]
    """Key -> the group of images that the split divides by its shares."""
    unknown: Mapping[str, int]
    """Target -> number of images without an answer."""
    notes: tuple[str, ...] = ()

    def with_strata(self, items: Sequence[LabelledImage]) -> tuple[LabelledImage, ...]:
        """The images that have an answer. Their label is their stratum."""
        return tuple(replace(item, label=self.strata[item.key]) for item in items if item.key in self.values)

    def of_images(self, keys: Sequence[str]) -> Floats:
        """(N, T): the answers of these images."""
        rows = [self.values[key] for key in keys]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.names))


def read_targets(items: Sequence[LabelledImage], task: Task, where: str) -> SetTargets:
    """Read the answers of all images from the columns that `task.targets` names.

    `items`: the images with the cells of their rows. `task`: not `multiclass`, whose classes are labels and
    not targets. `where`: the set's name in messages. Raises DataError where a cell is not an answer, or where
    no image has one.
    """
    grades = _grades_of(items, task, where) if task.kind == "ordinal" else ()
    parse_cell = {
        "multilabel": _parse_yes_or_no,
        "regression": _parse_number,
        "ordinal": _grade_parser(grades, bool(task.grades)),
    }[task.kind]
    answers = {
        item.key: tuple(_read_answer(item, column, parse_cell, where) for column in task.targets)
        for item in items
    }
    unknown_counts = {
        target: sum(math.isnan(row[index]) for row in answers.values())
        for index, target in enumerate(task.targets)
    }
    # An image of several labels counts if one of them is known.
    with_answer = {key: row for key, row in answers.items() if not all(map(math.isnan, row))}
    left_out = [key for key in answers if key not in with_answer]
    if not with_answer:
        raise DataError(
            f"{where}: no image has a value of {', '.join(task.targets)}: give other task.targets, or fill "
            "the column"
        )
    return SetTargets(
        kind=task.kind,
        names=task.targets,
        grades=grades,
        values=with_answer,
        strata=_strata(with_answer, task, grades),
        unknown=unknown_counts,
        notes=_unknown_notes(unknown_counts, len(answers), left_out),
    )


def _unknown_notes(
    unknown_counts: Mapping[str, int], images: int, left_out: Sequence[str]
) -> tuple[str, ...]:
    """How many images have no value of each target, and which images have no value of any.

    `unknown_counts`: target -> images without a value of it. `images`: number of all images. `left_out`: the
    keys of those without any value.
    """
    # With one target, the images without its value are those that are left out.
    notes = [
        f"{count:,} of {images:,} images have no value of {target!r} and do not count for this label"
        for target, count in unknown_counts.items()
        if count and len(unknown_counts) > 1
    ]
    if left_out:
        targets = " or ".join(map(repr, unknown_counts))
        examples = ", ".join(left_out[:_MAX_NAMED])
        more = f" and {len(left_out) - _MAX_NAMED:,} more" if len(left_out) > _MAX_NAMED else ""
        count_text = f"{len(left_out):,} of {images:,} images"
        notes.append(f"{count_text} have no value of {targets} and are left out ({examples}{more})")
    return tuple(notes)


def _read_answer(item: LabelledImage, column: str, parse_cell: Callable[[str], float], where: str) -> float:
    """The answer in a column of an image's row; NaN: not known. DataError where the cell is not an answer.

    `parse_cell` raises ValueError with a clause that ends the sentence "the cell is 'x', ...".
    """
    text = item.columns.get(column)
    if text is None:
        return math.nan
    try:
        return parse_cell(text)
    except ValueError as error:
        raise DataError(
            f"{where}: {column!r} of {item.key} is {text!r}, {error}: correct it, or leave it empty if it is "
            "not known"
        ) from None


def _parse_yes_or_no(text: str) -> float:
    """1 for yes, 0 for no."""
    if text.casefold() not in _YES_OR_NO:
        raise ValueError("which is not 0 or 1")
    return _YES_OR_NO[text.casefold()]


def _parse_number(text: str) -> float:
    """A finite number, in the unit of its column."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = " (a decimal point is needed)" if re.fullmatch(r"[+-]?\d*,\d+", text) else ""
        raise ValueError(f"which is not a number{hint}")
    return value


def _grade_parser(grades: Sequence[str], are_named: bool) -> Callable[[str], float]:
    """A function from the text of a cell to the index of its grade.

    `grades`: from the lowest to the highest. `are_named`: the settings name them. Else they are whole
    numbers, and a cell `+2` or `02` is the grade `2`.
    """
    index_of_grade = {grade: float(index) for index, grade in enumerate(grades)}

    def parse_grade(text: str) -> float:
        grade = text if are_named else str(int(text)) if _WHOLE_NUMBER.fullmatch(text) else ""
        if grade not in index_of_grade:
            wanted = f"one of task.grades ({', '.join(grades)})" if are_named else "a whole number"
            raise ValueError(f"which is not {wanted}")
        return index_of_grade[grade]

    return parse_grade


def _grades_of(items: Sequence[LabelledImage], task: Task, where: str) -> tuple[str, ...]:
    """The grades that the settings name, or the whole numbers that occur, in order."""
    if task.grades:
        grades = tuple(str(grade) for grade in task.grades)
        if unusable := next((grade for grade in grades if not is_known(grade)), None):
            raise DataError(
                f"task.grades names {unusable!r}, but a cell with this word means that the value is not "
                "known: give this grade another name in the list and in task.grades, such as 'absent'"
            )
        return grades
    texts = {text for item in items if (text := item.columns.get(task.targets[0])) is not None}
    numbers = sorted({int(text) for text in texts if _WHOLE_NUMBER.fullmatch(text)})
    # Without one whole number the column has names: the settings must give their order.
    if texts and not numbers:
        raise DataError(
            f"{where}: the grades in {task.targets[0]!r} are not whole numbers "
            f"({', '.join(map(repr, sorted(texts)[:3]))}): give their order, such as "
            f"task.grades={sorted(texts)[:3]}"
        )
    return tuple(map(str, numbers))


def _strata(values: Mapping[str, tuple[float, ...]], task: Task, grades: Sequence[str]) -> dict[str, str]:
    """The stratum of each image: the group within which the split draws its parts.

    `values`: key -> its answers (T,). The stratum of a grade is the grade, that of a number its fifth of the
    sorted numbers. That of labels is the rarest label that the image has, so that rare labels come into every
    part.
    """
    if task.kind == "ordinal":
        return {key: grades[int(row[0])] for key, row in values.items()}
    table_NT = np.array(list(values.values()))
    if task.kind == "regression":
        edges = np.quantile(table_NT[:, 0], np.linspace(0, 1, STRATA + 1)[1:-1])
        fifths = np.searchsorted(edges, table_NT[:, 0], side="right")
        return {key: f"fifth {fifth + 1}" for key, fifth in zip(values, fifths, strict=True)}
    targets_rarest_first = np.argsort((table_NT == 1).sum(0), kind="stable")
    return {
        key: next((task.targets[index] for index in targets_rarest_first if row[index] == 1), NO_LABEL)
        for key, row in values.items()
    }


def check_parts(targets: SetTargets, items: Sequence[LabelledImage], where: str) -> None:
    """Check that train can be learned and test can be scored. `where`: the set's name in messages.

    Raises DataError where one of them has no image, or where all its known values of a target are equal.
    """
    for part in ("train", "test"):
        rows_NT = targets.of_images([item.key for item in items if item.split == part])
        if not len(rows_NT):
            raise DataError(f"{where}: no image in the {part} part: add images, or change data.fractions")
        remedy = "add images (or patients) with another, or change data.split_seed"
        for index, name in enumerate(targets.names):
            values_N = rows_NT[:, index]
            if len(np.unique(values_N[np.isfinite(values_N)])) < 2:
                raise DataError(
                    f"{where}: all known values of {name!r} in the {part} part are equal: {remedy}"
                    + (", or leave it out of task.targets" if len(targets.names) > 1 else "")
                )


def target_digest(fingerprint: str, items: Sequence[LabelledImage], targets: SetTargets | None) -> str:
    """The fingerprint of a set together with its answers, so that other answers make it another set.

    `fingerprint`: that of the images. It is returned as it is where `targets` is None.
    """
    if targets is None:
        return fingerprint
    names = repr((targets.kind, targets.names, targets.grades))
    rows = "\n".join(f"{item.key}\t{targets.values[item.key]!r}" for item in items)
    return hashlib.sha256(f"{fingerprint}\n{names}\n{rows}".encode()).hexdigest()
