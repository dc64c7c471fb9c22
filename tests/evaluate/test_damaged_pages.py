"""Damaged files behind pages and exports: parts of metrics.json, pictures, probes and configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.cli import main
from retfound_dist.errors import RecordError
from retfound_dist.evaluate.results.page_image_files import PicturesFile
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from tests.evaluate.inputs import checkpoint, image_bytes
from tests.runs.made_runs import make_run

HEAT = [[0.1, 0.2], [0.3, 0.4]]
MISTAKE = {"key": "k", "label": "A", "predicted": "B", "probabilities": {"A": 0.1}, "image": "AAAA",
           "rollout": HEAT, "gradient": HEAT}  # fmt: skip
SEEN = {"labels": ["A"], "original": ["x"], "masked": ["x"],
        "checkpoints": [{"step": 3, "reconstruction": ["x"], "difference": []}]}  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"mistakes": "none"}, "mistakes is 'none'"),
        ({"mistakes": {"seed": 0, "wrong": 1}}, "mistakes.images is missing"),
        (
            {"mistakes": {"seed": 0, "wrong": 1, "images": [MISTAKE]}},
            r"images\[0\].image is 'AAAA'.*no picture",
        ),
        ({"features": {"points": [[1.0]], "explained": [0.5, 0.5]}}, r"features.points\[0\] is a list"),
        ({"reconstructions": {**SEEN, "checkpoints": []}}, "reconstructions.checkpoints is a list"),
        ({"reconstructions": SEEN}, "reconstructions is an object: .*many lengths"),
    ],
)
def test_pictures_that_no_page_can_show_are_one_line(tree: dict[str, Any], why: str) -> None:
    with pytest.raises(RecordError, match=rf"^p.json is damaged: line 1: .*{why}") as caught:
        json_reader.parse(json.dumps(tree).encode(), PicturesFile, "p.json", "evaluate again")
    assert "\n" not in str(caught.value)


def test_pictures_that_could_not_be_had_are_none() -> None:
    held = {"mistakes": None, "features": None, "reconstructions": None, "of_the_future": 1}
    assert json_reader.parse(json.dumps(held).encode(), PicturesFile, "p.json", "") == held


@pytest.mark.parametrize(
    "model", [{"decoder_heads": True}, {"decoder_width": 64}, {"decoder_heads": 5}, [], None]
)
def test_a_checkpoint_whose_config_is_no_model_is_one_line(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = checkpoint(tmp_path / "run", 10)
    tree = storage.read_json(storage.join(url, checkpoint_folder.COMMIT))
    tree["config"]["model"] = {**tree["config"]["model"], **model} if isinstance(model, dict) else model
    done = checkpoint_folder.read_commit(url)
    done.config.update(tree["config"])
    checkpoint_folder.write_commit(done)
    (tmp_path / "a.jpg").write_bytes(image_bytes(0, 0))
    assert main(["reconstruct", url, str(tmp_path / "a.jpg"), "--out", str(tmp_path / "o.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert url in line
    assert "config" in line


def test_an_alarm_without_words_is_a_bad_line_of_a_report(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    (tmp_path / "run" / "alarms.jsonl").write_text('{"message":""}\n')
    assert main(["report", url, "--no-pictures", "--quiet"]) == 0
    assert "1 of 1 lines of" in (tmp_path / "run" / "report.html").read_text()
