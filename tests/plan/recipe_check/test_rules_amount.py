"""How much there is to learn from, and how long: each measure judged by itself, and never milder for less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retfound_dist.cli import main
from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.io import storage
from retfound_dist.plan.recipe_check.findings import LEVELS, Facts
from retfound_dist.plan.recipe_check.rules_amount import check_data_amount, check_length
from tests import ROOT

OCT = str(ROOT / "configs/pretrain_vitl_oct.toml")
FACTS = Facts(samples=182_980, shards=143)


def levels(facts: Facts, *overrides: str) -> dict[str, str]:
    """Level by setting."""
    config, _ = load(PretrainConfig, OCT, overrides)
    return {f.key: f.level for rule in (check_length, check_data_amount) for f in rule(config, facts)}


def test_369_images_are_refused_however_often_they_are_seen() -> None:
    few = replace(FACTS, samples=369)
    assert levels(few, "train.steps=165") == {"train.steps": "serious", "data.shards": "serious"}
    assert levels(few, "train.epochs=801") == {"train.epochs": "serious", "data.shards": "serious"}
    assert levels(few, "train.steps=400000") == {"data.shards": "serious"}


@pytest.mark.parametrize(
    ("facts", "overrides", "expected"),
    [
        (FACTS, ["train.epochs=800"], {}),
        (replace(FACTS, samples=1_600_000), ["train.epochs=60"], {"train.epochs": "warning"}),
        (replace(FACTS, samples=1_600_000), ["train.epochs=200"], {}),
        (FACTS, ["train.steps=9999", "train.global_batch=8192"], {"train.steps": "serious"}),
        (FACTS, ["train.steps=20000", "train.global_batch=8192"], {"train.steps": "warning"}),
        (FACTS, ["train.steps=40000", "train.global_batch=256"], {"train.steps": "serious"}),
        (FACTS, ["train.epochs=99", "train.global_batch=256"], {"train.epochs": "serious"}),
        (replace(FACTS, samples=20_000), ["train.steps=81688"], {"data.shards": "warning"}),
        (replace(FACTS, patients=99), ["train.epochs=800"], {"data.shards": "serious"}),
        (replace(FACTS, patients=100), ["train.epochs=800"], {"data.shards": "warning"}),
        (replace(FACTS, patients=5_000, volumes=3), ["train.epochs=800"], {}),
        (replace(FACTS, volumes=150), ["train.epochs=800"], {"data.shards": "serious"}),
        (replace(FACTS, volumes=150, patients=20_000), ["train.epochs=800"], {}),
    ],
)
def test_each_measure_is_judged_by_itself(
    facts: Facts, overrides: list[str], expected: dict[str, str]
) -> None:
    assert levels(facts, *overrides) == expected


def gravest(facts: Facts, setting: str, value: int, batch: int) -> int:
    """0: serious, 1: warning, 2: note, 3: nothing is said."""
    found = levels(facts, f"{setting}={value}", f"train.global_batch={batch}", "train.micro_batch='auto'")
    return min([LEVELS.index(level) for level in found.values()], default=len(LEVELS))  # type: ignore[arg-type]


@given(
    samples=st.integers(1, 3_000_000),
    people=st.none() | st.integers(1, 50_000),
    setting=st.sampled_from(["train.steps", "train.epochs"]),
    value=st.integers(1, 500_000),
    batch=st.sampled_from([16, 256, 1792, 8192]),
    share=st.floats(0.01, 1.0),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_less_is_never_judged_milder(
    samples: int, people: int | None, setting: str, value: int, batch: int, share: float
) -> None:
    value = value if setting == "train.steps" else 1 + value % 2000
    facts = replace(FACTS, samples=samples, patients=people, volumes=people)
    judged = gravest(facts, setting, value, batch)
    less = max(1, int(samples * share))
    assert gravest(replace(facts, samples=less), setting, value, batch) <= judged, "fewer images"
    assert gravest(facts, setting, max(1, int(value * share)), batch) <= judged, "shorter"
    if people:
        fewer = max(1, int(people * share))
        assert gravest(replace(facts, patients=fewer, volumes=fewer), setting, value, batch) <= judged


def test_what_is_advised_is_not_found_again() -> None:
    for overrides in (
        ["train.epochs=50"],
        ["train.steps=100"],
        ["train.steps=100", "train.global_batch=256"],
    ):
        config, _ = load(PretrainConfig, OCT, overrides)
        advised = next(iter(check_length(config, FACTS))).remedy.split(" ")[0]
        assert levels(FACTS, *overrides, advised) == {}, advised


def write_set(folder: Path, samples: int, **counts: int) -> str:
    """A manifest, as far as a plan reads it."""
    index = {"name": "a.idx", "bytes": 1, "sha256": ""}
    shard = {
        "name": "a.tar",
        "samples": samples,
        "bytes": 50_000 * samples,
        "sha256": "",
        "split": None,
        "index": index,
    }
    tree = {
        "format": 1, "samples": samples, "shards": [shard], "image": {}, "skipped": [],
        "sources": {"own": {"kind": "folder", "samples": samples, "splits": {}, **counts}},
    }  # fmt: skip
    storage.write_json(str(folder / "manifest.json"), tree)
    return str(folder)


def test_strict_refuses_369_images_and_says_how_many_people_they_are_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = write_set(tmp_path / "few", 369, patients=12, volumes=30, patient_known=369)
    argv = ["plan", OCT, f"data.shards={url}", "data.split=all", "train.steps=165", "--strict"]
    assert main(argv) == 1
    said = capsys.readouterr().out
    assert "of 12 patients, 30 volumes" in said
    assert (
        "serious: train.steps: 165 optimizer steps (too few), 295,680 images seen (too few), 801.3 epochs"
        in said
    )
    assert "serious: data.shards: 369 images (too few), of 12 patients (too few)" in said


def test_strict_lets_the_papers_recipe_on_a_large_archive_pass(tmp_path: Path) -> None:
    url = write_set(tmp_path / "many", 182_980, patients=14_000, volumes=30_000, patient_known=182_980)
    assert main(["plan", OCT, f"data.shards={url}", "data.split=all", "--strict"]) == 0
