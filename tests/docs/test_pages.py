"""Every command in docs/ is run: a page that does not run fails."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks, make_inputs, make_run_and_sets, run_page
from tests.evaluate.volumes import eye_volumes

RUN_HERE = ("first_run.md", "move_a_run.md", "reading_the_report.md", "from_retfound.md", "datasets.md",
            "contributing_design.md", "evaluate.md", "compare.md", "predict.md", "doctor.md")  # fmt: skip
RUN_ON_A_CLUSTER = ("s3.md", "slurm.md")
"""In tests/cluster/test_docs_on_a_cluster.py."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def shards(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("shards") / "set")
    command = [sys.executable, "-m", "retfound_dist", "pack", "configs/pack_folder.toml"]
    subprocess.run([*command, f"source.path={inputs['IMAGES']}", f"out.url={url}"], cwd=ROOT, check=True)
    return url


def test_every_page_with_commands_is_run_somewhere() -> None:
    with_commands = {page.name for page in DOCS.glob("*.md") if blocks(page)}
    assert with_commands == {*RUN_HERE, *RUN_ON_A_CLUSTER}


def test_every_link_leads_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_command_that_a_page_names_exists() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "retfound_dist", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    for page in [
        *DOCS.glob("*.md"),
        *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "README")),
    ]:
        for command in re.findall(r"`retfound ([a-z]+)[ `]", page.read_text()):
            assert re.search(rf"^    {command}\b", shown, re.M), f"{page.name} names retfound {command}"


@pytest.mark.slow
def test_first_run(inputs: dict[str, str], tmp_path: Path) -> None:
    said = run_page("first_run.md", tmp_path, inputs | {"OUT": str(tmp_path / "out")})
    assert "recipe check" in said
    for name in (
        "batch.png",
        "run/report.html",
        "octid/report.html",
        "compared/report.html",
        "encoder.pth.md",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 500, name


@pytest.mark.slow
def test_move_a_run_and_read_its_report(shards: str, tmp_path: Path) -> None:
    said = run_page("move_a_run.md", tmp_path, {"SHARDS": shards, "RUN": str(tmp_path / "runs" / "vitl")})
    assert said.index("recipe check: ") < said.index("resuming at step 2")
    assert "resuming at step 2 (written by 2 ranks at ZeRO 1, converted)" in said
    assert re.search(r"vitl-moved +finished +4/4", said)
    (tmp_path / "again").mkdir()
    said = run_page("reading_the_report.md", tmp_path / "again", {"RUNS": str(tmp_path / "runs")})
    assert "finished" in said
    assert "at 2.5 per GPU-hour" in (tmp_path / "runs" / "vitl" / "report.html").read_text()
    assert (tmp_path / "runs" / "vitl" / "reconstructions" / "step_00000004.png").exists()


@pytest.mark.slow
def test_evaluate(inputs: dict[str, str], tmp_path: Path) -> None:
    env = inputs | make_run_and_sets(tmp_path) | {"OUT": str(tmp_path / "out")}
    said = run_page("evaluate.md", tmp_path, env)
    assert "probabilities of RVO are dropped" in said
    for name in ("octid", "octdl_on_kermany"):
        assert (tmp_path / "out" / name / "report.html").stat().st_size > 500, name
    assert (tmp_path / "run" / "evaluations" / "watch.json").exists()


@pytest.mark.slow
def test_compare(inputs: dict[str, str], tmp_path: Path) -> None:
    env = inputs | make_run_and_sets(tmp_path) | {"OUT": str(tmp_path / "out")}
    run_page("compare.md", tmp_path, env)
    for name in ("compared", "suite", "suite/octdl"):
        assert (tmp_path / "out" / name / "report.html").stat().st_size > 500, name


@pytest.mark.slow
def test_predict(inputs: dict[str, str], tmp_path: Path) -> None:
    eyes = eye_volumes(tmp_path / "eyes", patients=2, slices=2)
    env = inputs | make_run_and_sets(tmp_path) | {"OUT": str(tmp_path / "out"), "EYES": str(eyes)}
    run_page("predict.md", tmp_path, env)
    assert (tmp_path / "out" / "new_patients.html").stat().st_size > 500
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 3 * 14
    assert len((tmp_path / "out" / "eyes.csv").read_text().splitlines()) == 1 + 4
    lines = (tmp_path / "out" / "new_patients.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 14


@pytest.mark.slow
def test_from_retfound(inputs: dict[str, str], shards: str, tmp_path: Path) -> None:
    env = inputs | {"SHARDS": shards, "OUT": str(tmp_path / "out")}
    run_page("from_retfound.md", tmp_path, env)
    assert (tmp_path / "out" / "ours.pth.md").exists()


@pytest.mark.slow
def test_doctor(shards: str, tmp_path: Path) -> None:
    said = run_page("doctor.md", tmp_path, {"SHARDS": shards, "OUT": str(tmp_path / "runs")})
    assert "recorded for `retfound plan`" in said
    assert (tmp_path / "runs" / "doctor.html").exists()
    assert not list((tmp_path / "runs").glob("*-doctor-*"))


@pytest.mark.slow
def test_datasets_and_checks_of_contributors(inputs: dict[str, str], tmp_path: Path) -> None:
    run_page("datasets.md", tmp_path, inputs | {"OUT": str(tmp_path / "set")})
    (tmp_path / "more").mkdir()
    run_page("contributing_design.md", tmp_path / "more", {}, where=ROOT)
