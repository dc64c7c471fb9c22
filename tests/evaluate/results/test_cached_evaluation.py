"""When an evaluation that stands somewhere is the one that is asked for, and what else makes it another."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.config.loading import load as load_config
from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.clinical.subgroup_scores import fingerprint, group_part
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.results.cached_evaluation import find_differences, is_same
from retfound_dist.evaluate.units.unit_parts import part_of_units
from tests.evaluate.inputs import TINY, checkpoint, class_folders
from tests.evaluate.volumes import eye_volumes


@dataclasses.dataclass
class Asked:
    """An evaluation that is asked for, and the metrics.json that the same request left."""

    start: StartingWeights
    data: LabelledSet
    config: EvaluateConfig
    metrics: dict[str, Any]

    def find_differences(self) -> list[str]:
        return find_differences(self.metrics, self.start, self.data, self.config)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    url = checkpoint(tmp_path / "run", 7)
    (tmp_path / "e.toml").write_text(
        f'checkpoint = "{url}"\n[data]\npath = "{class_folders(tmp_path / "set", each=4)}"\n[out]\nurl = "o"\n'
    )
    config, _ = load_config(EvaluateConfig, str(tmp_path / "e.toml"), TINY)
    start = open_starting_weights(url, config.model)
    data = load_labelled_set(config.data, start.image_size)
    metrics = {
        "checkpoint": start.describe(),
        "data": {"path": data.path, "fingerprint": data.fingerprint},
        "config": to_dict(config),
    }
    return Asked(start, data, config, metrics)


def test_where_and_how_it_runs_makes_no_other_evaluation(asked: Asked) -> None:
    assert asked.find_differences() == []
    moved = dataclasses.replace(
        asked.config,
        checkpoint="s3://elsewhere/run",
        threads=3,
        jobs=2,
        out=dataclasses.replace(asked.config.out, url="elsewhere"),
        data=dataclasses.replace(asked.config.data, path="elsewhere", workers=3),
    )
    assert is_same(asked.metrics, asked.start, asked.data, moved)


def test_a_setting_that_changes_what_comes_out_is_named_with_both_values(asked: Asked) -> None:
    asked.config = dataclasses.replace(asked.config, seeds=(0, 1))
    (line,) = asked.find_differences()
    assert line.startswith("seeds is ")
    assert line.endswith(" there and [0, 1] here")


def test_a_setting_that_an_older_version_did_not_have_counts_as_its_default(asked: Asked) -> None:
    del asked.metrics["config"]["finetune"]["label_smoothing"]
    assert asked.find_differences() == []
    changed = dataclasses.replace(asked.config.finetune, label_smoothing=0.3)
    asked.config = dataclasses.replace(asked.config, finetune=changed)
    assert [line.split(" ")[0] for line in asked.find_differences()] == ["finetune.label_smoothing"]


def test_the_shape_of_a_network_from_nothing_is_a_setting_and_that_of_a_checkpoint_is_its_own(
    asked: Asked,
) -> None:
    asked.config = dataclasses.replace(
        asked.config, model=dataclasses.replace(asked.config.model, image_size=56)
    )
    assert asked.find_differences() == []
    sizes = (28, 56)
    models = [dataclasses.replace(asked.config.model, image_size=size) for size in sizes]
    before, asked.start = (open_starting_weights("none", model) for model in models)
    asked.metrics["checkpoint"] = before.describe()
    assert asked.find_differences() == ["image_size is 28 there and 56 here"]


def test_other_weights_and_other_images_are_told_by_content(asked: Asked) -> None:
    asked.metrics["checkpoint"]["sha256"] = "0" * 64
    asked.metrics["data"]["fingerprint"] = "0" * 64
    weights, images = asked.find_differences()
    assert weights.startswith(f"checkpoint is {asked.start.url} (step 7) there and ")
    assert weights.endswith(" (its content has changed)")
    assert images.endswith(" (its images, labels or split have changed)")
    asked.metrics["external"] = {"data": {"fingerprint": "0"}}
    assert asked.find_differences()[2:] == ["the external set is different"]


def test_an_evaluation_from_before_there_was_an_attentive_probe_is_the_same_one(asked: Asked) -> None:
    del asked.metrics["config"]["probe"]["kinds"], asked.metrics["config"]["probe"]["attentive_images"]
    for kinds in (("linear", "knn"), ("linear", "knn", "attentive")):
        probe = dataclasses.replace(asked.config.probe, kinds=kinds)
        asked.config = dataclasses.replace(asked.config, probe=probe)
        assert asked.find_differences() == []
    asked.config = dataclasses.replace(asked.config, probe=dataclasses.replace(probe, seed=1))
    assert [line.split(" ")[0] for line in asked.find_differences()] == ["probe.seed"]


def test_later_evaluations_with_other_probes_are_told_apart(asked: Asked) -> None:
    probe = dataclasses.replace(asked.config.probe, kinds=("linear", "knn", "attentive"))
    asked.config = dataclasses.replace(asked.config, probe=probe)
    assert [line.split(" ")[0] for line in asked.find_differences()] == ["probe.kinds"]


def test_eyes_that_a_list_moves_to_other_subgroups_make_another_evaluation(
    asked: Asked, tmp_path: Path
) -> None:
    """Scores of eyes cannot be computed again from the files of the evaluation."""
    told = {"path": str(eye_volumes(tmp_path / "eyes")), "unit": "eye", "subgroups": ("slice",)}
    asked.config = dataclasses.replace(asked.config, data=dataclasses.replace(asked.config.data, **told))
    asked.data = data = load_labelled_set(asked.config.data, 28)
    test = data.parts["test"]
    groupings = group_part(part_of_units(test, "eye"), ("slice",))
    asked.metrics |= {
        "data": {"path": data.path, "fingerprint": data.fingerprint},
        "config": to_dict(asked.config),
        "subgroups": {"fingerprint": fingerprint(groupings)},
    }
    assert asked.find_differences() == []
    descriptions = tuple(
        dataclasses.replace(d, slice=9 if d.eye == "L" else d.slice) for d in test.descriptions
    )
    moved = dataclasses.replace(test, descriptions=descriptions)
    asked.data = dataclasses.replace(data, parts={**data.parts, "test": moved})
    assert asked.find_differences() == [
        f"the images of {data.path} are in other subgroups now (data.subgroups: slice)"
    ]
