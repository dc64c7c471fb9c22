"""Answers of tasks: read from lists and shards, counted where unknown, refused where they are no answers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData, Task
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.label_subset import with_label_share
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from tests.evaluate.inputs import class_folders, shard_set, target_list, write_listing

AGE = Task(kind="regression", targets=("age",))
STAGE = Task(kind="ordinal", targets=("stage",))
FLAGS = Task(kind="multilabel", targets=("cyst", "fluid"))


def load(path: Path, task: Task) -> LabelledSet:
    return load_labelled_set(EvalData(path=str(path)), 28, task=task)


def refusal(path: Path, task: Task) -> str:
    with pytest.raises(DataError) as error:
        load(path, task)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_list_without_a_label_gives_numbers_and_leaves_out_images_without_one(tmp_path: Path) -> None:
    ages = [str(40 + i) for i in range(30)]
    ages[3], ages[11] = "", "unknown"
    data = load(target_list(tmp_path, [{"age": age} for age in ages], patients=15), AGE)
    assert data.targets is not None
    assert sum(len(part) for part in data.parts.values()) == 28
    for part in data.parts.values():
        assert part.targets_NT is not None
        assert part.targets_NT[:, 0].tolist() == [40.0 + int(key[:3]) for key in part.keys]
    assert data.targets.unknown == {"age": 2}
    named = "(003.png, 011.png)"
    assert f"2 of 30 images have no value of 'age' and are left out {named}" in data.notes
    assert data.split_source == "patient"


def test_an_unknown_label_does_not_leave_the_image_out(tmp_path: Path) -> None:
    rows = [{"cyst": str(i % 2), "fluid": "" if i % 5 == 0 else str(int(i % 3 == 0))} for i in range(40)]
    rows[7] = {"cyst": "", "fluid": "-"}
    data = load(target_list(tmp_path, rows), FLAGS)
    assert data.targets is not None
    assert sum(len(part) for part in data.parts.values()) == 39
    train_NT = data.parts["train"].targets_NT
    assert train_NT is not None
    assert np.isfinite(train_NT[:, 0]).all()
    assert np.isnan(train_NT[:, 1]).any()
    assert data.targets.unknown == {"cyst": 1, "fluid": 9}
    assert data.notes[-3:] == (
        "1 of 40 images have no value of 'cyst' and do not count for this label",
        "9 of 40 images have no value of 'fluid' and do not count for this label",
        "1 of 40 images have no value of 'cyst' or 'fluid' and are left out (007.png)",
    )


def test_images_without_the_only_label_are_counted_as_left_out_and_the_first_are_named(
    tmp_path: Path,
) -> None:
    rows = [{"cyst": "" if i % 4 == 3 else str(i % 2)} for i in range(32)]
    data = load(target_list(tmp_path, rows), Task(kind="multilabel", targets=("cyst",)))
    (note,) = [note for note in data.notes if "no value" in note]
    named = "003.png, 007.png, 011.png, 015.png, 019.png and 3 more"
    assert note == f"8 of 32 images have no value of 'cyst' and are left out ({named})"


def test_labels_may_be_words_for_yes_and_no(tmp_path: Path) -> None:
    words = ["yes", "No", "TRUE", "false", "1", "0", "1.0", "0.0"] * 3
    data = load(
        target_list(tmp_path, [{"cyst": w} for w in words]), Task(kind="multilabel", targets=("cyst",))
    )
    for part in data.parts.values():
        assert part.targets_NT is not None
        wanted = [float(words[int(key[:3])].lower() in ("yes", "true", "1", "1.0")) for key in part.keys]
        assert part.targets_NT[:, 0].tolist() == wanted


def test_grades_are_whole_numbers_in_order_or_named_by_the_settings(tmp_path: Path) -> None:
    stages = [str(i % 3 * 5) for i in range(30)]
    data = load(target_list(tmp_path / "a", [{"stage": stage} for stage in stages]), STAGE)
    assert data.targets is not None
    assert data.targets.grades == ("0", "5", "10")
    test = data.parts["test"]
    assert test.targets_NT is not None
    assert test.targets_NT[:, 0].tolist() == [int(key[:3]) % 3 for key in test.keys]
    named = [{"stage": ("absent", "mild", "severe")[i % 3]} for i in range(30)]
    task = Task(kind="ordinal", targets=("stage",), grades=("absent", "mild", "severe"))
    data = load(target_list(tmp_path / "b", named), task)
    assert data.targets is not None
    assert data.targets.grades == ("absent", "mild", "severe")
    assert Counter(data.targets.strata.values()) == {"absent": 10, "mild": 10, "severe": 10}


def test_fields_of_shards_are_targets_without_a_label(tmp_path: Path) -> None:
    samples: list[dict[str, str | None]] = [
        {"key": f"s{i:02d}", "patient": f"p{i}", "age": str(30 + i)} for i in range(20)
    ]
    data = load(shard_set(tmp_path / "shards", samples), AGE)
    assert sum(len(part) for part in data.parts.values()) == 20


def test_columns_of_a_list_beside_folders_are_targets(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    write_listing(root, [{"file": file, "age": str(50 + i)} for i, file in enumerate(files)])
    data = load(root, AGE)
    assert sum(len(part) for part in data.parts.values()) == 30
    assert "age" in data.columns


def test_the_split_divides_patients_and_every_fifth_of_the_numbers(tmp_path: Path) -> None:
    rows = [{"age": str(20 + i // 2)} for i in range(100)]
    path = target_list(tmp_path, rows)
    data = load(path, AGE)
    assert data.targets is not None
    assert Counter(data.targets.strata.values()) == {f"fifth {i}": 20 for i in range(1, 6)}
    for name, share in (("train", 12), ("val", 4), ("test", 4)):
        assert Counter(data.parts[name].labels.tolist()) == dict.fromkeys(range(5), share)
    parts = defaultdict(set)
    data = load(target_list(tmp_path / "patients", rows, patients=25), AGE)
    for name, part in data.parts.items():
        for patient in part.patients:
            parts[patient].add(name)
    assert all(len(own) == 1 for own in parts.values())


def test_rare_labels_come_into_every_part(tmp_path: Path) -> None:
    rows = [{"cyst": "1", "fluid": str(int(i < 10))} for i in range(60)]
    rows += [{"cyst": "0", "fluid": "0"} for _ in range(20)]
    data = load(target_list(tmp_path, rows), FLAGS)
    assert data.targets is not None
    assert Counter(data.targets.strata.values()) == {"fluid": 10, "cyst": 50, "none": 20}
    for name, count in (("train", 6), ("val", 2), ("test", 2)):
        targets_NT = data.parts[name].targets_NT
        assert targets_NT is not None
        assert targets_NT[:, 1].sum() == count


def test_a_share_of_the_labels_keeps_their_answers(tmp_path: Path) -> None:
    data = load(target_list(tmp_path, [{"age": str(40 + i)} for i in range(50)]), AGE)
    half = with_label_share(data, 0.5, 0)
    train = half.parts["train"]
    assert len(train) == 15
    assert train.targets_NT is not None
    assert train.targets_NT[:, 0].tolist() == [40.0 + int(key[:3]) for key in train.keys]


def test_another_answer_is_another_set_and_the_task_belongs_to_it(tmp_path: Path) -> None:
    rows = [{"age": str(40 + i % 2)} for i in range(20)]
    first = load(target_list(tmp_path, rows), AGE)
    graded = load(tmp_path / "list.csv", Task(kind="ordinal", targets=("age",)))
    rows[4] = {"age": "45"}
    changed = load(target_list(tmp_path, rows), AGE)
    assert len({first.fingerprint, graded.fingerprint, changed.fingerprint}) == 3


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("old", "'age' of 004.png is 'old', which is not a number: correct it, or leave it empty"),
        ("63,5", "which is not a number (a decimal point is needed)"),
        ("inf", "which is not a number"),
    ],
)
def test_a_number_that_is_text_is_one_clear_line(tmp_path: Path, cell: str, wanted: str) -> None:
    rows = [{"age": cell if i == 4 else str(40 + i)} for i in range(20)]
    message = refusal(target_list(tmp_path, rows), AGE)
    assert wanted in message
    assert "list.csv" in message


def test_labels_and_grades_that_are_something_else_are_refused(tmp_path: Path) -> None:
    rows = [{"cyst": "2" if i == 4 else "1", "fluid": "0"} for i in range(20)]
    assert "'cyst' of 004.png is '2', which is not 0 or 1" in refusal(
        target_list(tmp_path / "a", rows), FLAGS
    )
    rows = [{"stage": "1.5" if i == 4 else str(i % 3)} for i in range(20)]
    message = refusal(target_list(tmp_path / "b", rows), STAGE)
    assert "'stage' of 004.png is '1.5', which is not a whole number" in message
    rows = [{"stage": ("mild", "severe")[i % 2]} for i in range(20)]
    message = refusal(target_list(tmp_path / "c", rows), STAGE)
    assert "are not whole numbers ('mild', 'severe'): give their order" in message
    task = Task(kind="ordinal", targets=("stage",), grades=("mild", "worse"))
    message = refusal(tmp_path / "c" / "list.csv", task)
    assert "'severe', which is not one of task.grades (mild, worse)" in message


def test_a_grade_that_lists_read_as_not_known_is_refused(tmp_path: Path) -> None:
    """Its images would be left out otherwise."""
    rows = [{"stage": ("none", "mild")[i % 2]} for i in range(20)]
    task = Task(kind="ordinal", targets=("stage",), grades=("none", "mild"))
    assert "task.grades names 'none', but a cell with this word" in refusal(target_list(tmp_path, rows), task)


def test_columns_without_answers_or_with_one_are_refused(tmp_path: Path) -> None:
    rows = [{"age": "", "iop": "12"} for _ in range(20)]
    path = target_list(tmp_path, rows)
    assert "no image has a value of age" in refusal(path, AGE)
    message = refusal(path, Task(kind="regression", targets=("iop",)))
    assert "all known values of 'iop' in the train part are equal" in message
    message = refusal(path, Task(kind="regression", targets=("aeg",)))
    assert "has no column 'aeg'" in message
    assert "did you mean 'age'?" in message
    message = refusal(class_folders(tmp_path / "folders"), AGE)
    assert "has no list, so it has no column 'age'" in message


def test_nothing_is_known_of_an_image_that_has_no_answer(tmp_path: Path) -> None:
    data = load(target_list(tmp_path, [{"age": str(i)} for i in range(20)]), AGE)
    assert data.targets is not None
    rows = data.targets.of_images(["000.png", "019.png"])
    assert rows.tolist() == [[0.0], [19.0]]
    assert not any(map(math.isnan, data.targets.of_images([]).flatten()))
