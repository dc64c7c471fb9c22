"""`retfound suite` end to end: cells made once, shares, missing sets, faulty rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import SuiteConfig
from retfound_dist.errors import ConfigError, DataError, WeightsError
from retfound_dist.evaluate.commands.compare import configs_by_size
from retfound_dist.evaluate.commands.suite import suite_command
from tests import ROOT
from tests.evaluate.inputs import TINY, checkpoint, class_folders, list_patients

SMALL = [text for text in TINY if not text.startswith("data.")] + ["finetune.epochs=1", "probe.enabled=false"]
CELLS = {("one", "none"), ("one", "ours"), ("two", "none"), ("two", "ours")}


def write_config(root: Path) -> Path:
    """Two sets and two rows."""
    config = root / "suite.toml"
    config.write_text(
        f'[weights]\nnone = "none"\nours = "{root}/run/checkpoints/step_00000003"\n'
        f'[sets.one]\npath = "{root}/one"\nworkers = 0\n[sets.two]\npath = "{root}/two"\nworkers = 0\n'
        f'[out]\nurl = "{root}/out"\n'
    )
    return config


def make_inputs(root: Path) -> Path:
    """The images and weights of that config."""
    list_patients(class_folders(root / "one"))
    class_folders(root / "two", classes=("A", "B"), seed=500)
    checkpoint(root / "run", 3)
    return write_config(root)


def suite(config: Path, *overrides: str, force: bool = False) -> Path:
    """Run the command; gives the folder of its results."""
    assert suite_command(str(config), [*SMALL, *overrides], quiet=True, force=force) == 0
    return config.parent / "out"


def stamps(out: Path) -> dict[tuple[str, str], int]:
    """(set, row) of each complete cell -> when it was written."""
    files = out.glob("*/*/metrics.json")
    return {(path.parts[-3], path.parts[-2]): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_inputs(tmp_path_factory.mktemp("suite"))
    suite(path)
    return path


def test_each_set_is_a_comparison_and_each_cell_an_evaluation(config: Path) -> None:
    out = config.parent / "out"
    assert set(stamps(out)) == CELLS
    tree = json.loads((out / "suite.json").read_text())
    assert list(tree["sets"]) == ["one", "two"]
    for name in tree["sets"]:
        compared = json.loads((out / name / "compare.json").read_text())
        assert compared["rows"] == tree["sets"][name]["rows"]
        assert (out / name / "report.html").is_file()
        assert (out / name / "table.md").is_file()
    assert [summary["metric"] for summary in tree["ranks"]] == ["aupr", "balanced_accuracy"]
    assert any("Wilcoxon signed-rank test cannot" in sentence for sentence in tree["sentences"])


def test_the_page_and_the_markdown_show_both_sets(config: Path) -> None:
    out = config.parent / "out"
    page = (out / "report.html").read_text()
    for text in ('href="one/report.html"', 'href="two/report.html"', "mean rank", "What is compared", "<svg"):
        assert text in page, text
    assert "| set | none | ours |" in (out / "suite.md").read_text()


def test_complete_cells_are_not_made_again_and_compare_reads_a_set_too(config: Path) -> None:
    out = config.parent / "out"
    before, page = stamps(out), (out / "report.html").read_text()
    suite(config, "threads=1")
    assert stamps(out) == before
    assert (out / "report.html").read_text() == page
    with pytest.raises(ConfigError, match=r"finetune\.batch is 8 there and 4 here"):
        suite(config, "finetune.batch=4")
    assert stamps(out) == before


def test_a_row_or_a_set_that_would_be_lost_is_refused(config: Path, tmp_path: Path) -> None:
    text = config.read_text()
    fewer = tmp_path / "fewer.toml"
    fewer.write_text(text.replace(f'[sets.two]\npath = "{config.parent}/two"\nworkers = 0\n', ""))
    with pytest.raises(ConfigError, match=r"sets\.two is missing in the new suite"):
        suite_command(str(fewer), SMALL, quiet=True)


def test_the_last_of_several_shares_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_inputs(tmp_path)
    out = suite(path, "cells=1/3")
    assert set(stamps(out)) == {("one", "none"), ("two", "ours")}
    assert not (out / "suite.json").exists()
    first = stamps(out)
    assert suite_command(str(path), [*SMALL, "cells=1/3"]) == 0
    assert "2 cells of other calls are not complete, such as one, ours" in capsys.readouterr().out
    suite(path, "cells=2/3")
    assert not (out / "suite.json").exists()
    suite(path, "cells=3/3")
    assert set(stamps(out)) == CELLS
    assert {cell: stamp for cell, stamp in stamps(out).items() if cell in first} == first
    tree = json.loads((out / "suite.json").read_text())
    # Two calls that end together both write: it must not matter which one is last.
    assert (tree["config"]["cells"], list(tree["sets"])) == ("1/1", ["one", "two"])
    files = [
        out / name
        for name in ("suite.json", "suite.md", "report.html", "one/compare.json", "two/report.html")
    ]
    by_third = [file.read_bytes() for file in files]
    suite(path, "cells=1/3")
    assert [file.read_bytes() for file in files] == by_third


def test_a_set_that_is_not_there_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_inputs(tmp_path)
    arguments = [*SMALL, f"sets.goals.path={tmp_path}/goals", "weights={none='none'}"]
    assert suite_command(str(path), arguments) == 0
    said = capsys.readouterr().out
    line = f"the set goals is left out: sets.goals.path={tmp_path}/goals does not exist"
    assert f"warning: {line}" in said
    assert json.loads((tmp_path / "out/suite.json").read_text())["left_out"] == {"goals": line.split(": ")[1]}
    assert line[1:] in (tmp_path / "out/report.html").read_text()


def test_no_set_at_all_is_an_error(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    with pytest.raises(DataError, match=r"no labelled set is there: sets\.one\.path=.*; sets\.two\.path="):
        suite(path)


def test_all_rows_that_cannot_be_used_are_listed_before_anything_is_made(tmp_path: Path) -> None:
    path = make_inputs(tmp_path)
    with pytest.raises(WeightsError) as refused:
        suite(path, "weights.unknown=timm:vit_small_patch16_dinov5", f"weights.gone={tmp_path}/w.pth")
    first, *rows = str(refused.value).splitlines()
    assert first == "2 of 4 rows cannot be used:"
    assert [row.split(":")[0].strip() for row in rows] == ["weights.unknown", "weights.gone"]
    assert stamps(tmp_path / "out") == {}


def test_names_are_names_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text('[weights]\nnone = "none"\n[sets."a/b"]\npath = "x"\n[out]\nurl = "y"\n')
    with pytest.raises(ConfigError, match=r"sets\.a/b: the name is used as a folder name"):
        suite_command(str(path), [], quiet=True)


@pytest.mark.slow
def test_a_killed_suite_goes_on_without_repeating_complete_cells(tmp_path: Path) -> None:
    path = make_inputs(tmp_path)
    command = [sys.executable, "-m", "retfound_dist", "suite", str(path), *SMALL]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while not stamps(tmp_path / "out"):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    before = stamps(tmp_path / "out")
    assert len(before) < len(CELLS)
    assert not (tmp_path / "out/suite.json").exists()
    out = suite(path)
    assert set(stamps(out)) == CELLS
    assert {cell: stamp for cell, stamp in stamps(out).items() if cell in before} == before
    assert (out / "suite.json").is_file()


def test_each_size_of_a_list_is_a_suite_of_its_own(tmp_path: Path) -> None:
    def sizes(*overrides: str) -> list[tuple[object, str]]:
        config, _ = load(SuiteConfig, str(write_config(tmp_path)), ["out.url=o", *overrides])
        return [(one.model.image_size, one.out.url) for one in configs_by_size(config)]

    assert sizes() == [("own", "o")]
    assert sizes("sizes=same") == [(224, "o")]
    assert sizes("sizes=same", "model.image_size=56") == [(56, "o")]
    assert sizes("sizes=[224, 448]") == [(224, "o/size_224"), (448, "o/size_448")]
