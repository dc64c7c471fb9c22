"""`retfound plan`: what it reads, prints and refuses, and the lines that `pretrain` prints first."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.cli import main
from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.plan_command import finding_lines, recipe_lines
from retfound_dist.plan.recipe_check.findings import Finding
from tests import ROOT
from tests.stream.stream_inputs import make_set

OCT, SEED = (str(ROOT / f"configs/pretrain_{name}.toml") for name in ("vitl_oct", "seed"))


FIFTEEN = ["--nodes", "3", "--gpus-per-node", "5", "--gpu-memory-gb", "40"]


def plan(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["plan", OCT, *args, "--json"]) == 0
    tree: dict[str, Any] = json.loads(capsys.readouterr().out)
    return tree


def test_the_papers_batch_on_fifteen_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, *FIFTEEN)
    assert found["batch"] == {
        "global_batch": 1792, "micro_batch": 60, "accumulation": 2, "padding": 8, "padded": 1800,
    }  # fmt: skip
    assert found["length"]["steps"] == 81_688
    assert found["model"]["flops_total"] == found["model"]["flops_per_image"] * 81_688 * 1792
    assert found["checkpoints"]["count"] == 164


def test_gpu_hours_are_steps_times_step_time_times_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, *FIFTEEN)
    hours = found["length"]["steps"] * found["speed"]["step_s"] / 3600
    assert found["speed"]["hours"] == pytest.approx(hours)
    assert found["speed"]["gpu_hours"] == pytest.approx(15 * hours)
    assert found["speed"]["images_per_s"] == pytest.approx(1792 / found["speed"]["step_s"])


def test_a_model_that_no_stage_holds_is_refused_by_strict(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["plan", OCT, "model.name=vit_huge_patch14", "--nodes", "1", "--gpus-per-node", "1"]
    assert main([*args, "--gpu-memory-gb", "12", "--strict"]) == 1
    said = capsys.readouterr().out
    assert "too much" in said
    assert "serious: train.micro_batch" in said
    assert main([*args, "--gpu-memory-gb", "141", "--strict"]) == 0


def test_strict_refuses_the_small_groups_recipe_and_accepts_the_papers() -> None:
    assert main(["plan", SEED, "--strict", "--nodes", "1", "--gpus-per-node", "1"]) == 1
    assert main(["plan", SEED, "--nodes", "1", "--gpus-per-node", "1"]) == 0
    assert main(["plan", OCT, "--strict", "--nodes", "1", "--gpus-per-node", "8"]) == 0


def test_lines_fit_80_columns_but_for_sources_and_risks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    main(["plan", str(Path(OCT).relative_to(ROOT)), *FIFTEEN])
    for line in capsys.readouterr().out.splitlines():
        assert len(line) <= 80 or "(" in line or "assumed" in line, line


def test_plan_needs_neither_torch_nor_a_gpu() -> None:
    code = (
        "import sys; from retfound_dist.cli import main; "
        f"main(['plan', {OCT!r}, '--nodes', '4', '--gpus-per-node', '8', '--json']); "
        "assert not {'torch', 'deepspeed', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_bucket_without_shards_is_told_what_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", OCT, "data.shards=memory://none/here"]) == 2
    assert "--samples" in capsys.readouterr().err
    assert main(["plan", OCT, "data.shards=memory://none/here", "--samples", "1600000"]) == 0
    assert "1,600,000 images" in capsys.readouterr().out


def test_numbers_below_one_are_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--nodes", "-1"], ["--samples", "-5"], ["--within-hours", "0"], ["--device", "abacus"]):
        assert main(["plan", OCT, *flags]) == 2
        assert capsys.readouterr().err.startswith("retfound: ")


def test_pretrain_prints_the_plans_lines_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_set(tmp_path)
    config, _ = load(PretrainConfig, SEED, [f"data.shards={manifest.url}", "optim.warmup_epochs=0"])
    lines = recipe_lines(config, manifest, ranks=3)
    assert lines[0].startswith("recipe check: 4 serious, 2 warnings, ")
    for key in ("optim.base_lr", "train.epochs", "optim.warmup_epochs"):
        assert any(line.startswith(f"- serious: {key}: ") for line in lines)
    assert any(
        line.startswith("- warning: train.global_batch: 11.1% of the work of 3 ranks") for line in lines
    )
    assert not any(line.startswith("- note") for line in lines)
    overrides = [f"data.shards={manifest.url}", "optim.warmup_epochs=0", "--nodes=1", "--gpus-per-node=3"]
    assert main(["plan", SEED, *overrides]) == 0
    assert set(lines[1:]) <= set(capsys.readouterr().out.splitlines())


def test_sizes_that_are_given_replace_what_the_shard_set_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_set(tmp_path)
    found = plan(capsys, f"data.shards={manifest.url}", "--image-kb", "10")["data"]
    assert (found["samples"], found["bytes"]) == (manifest.samples, manifest.samples * 10_000)
    found = plan(capsys, f"data.shards={manifest.url}", "--samples", "1000")["data"]
    assert found["samples"] == 1000
    assert found["bytes"] / 1000 == pytest.approx(
        sum(s.bytes for s in manifest.shards) / manifest.samples, rel=1e-3
    )


def test_notes_are_counted_and_told_only_when_they_are_asked_for() -> None:
    risks = [
        Finding("serious", "a", "x", "y", "z", "w"),
        *[Finding("note", "b", "x", "y", "z", "w")] * 2,
    ]
    assert list(finding_lines(risks, show_notes=False)) == [
        "recipe check: 1 serious, 2 notes (`retfound plan` shows notes)",
        f"- {risks[0].line()}",
    ]
    assert len(list(finding_lines(risks))) == 4
    assert list(finding_lines([])) == ["recipe check: no risks found"]
