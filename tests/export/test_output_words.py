"""Words on what an exported network gives, for each kind of task."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.export.output_words import output_words
from tests.evaluate.tasks_made import FACTS
from tests.export.inputs import make_classifier


@pytest.mark.parametrize("kind", FACTS)
def test_one_network_has_a_name_for_each_of_its_outputs(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = make_classifier(tmp_path / "kept", task=FACTS[kind])
    words = output_words(classifier_file.read(url))
    assert len(words.network_names) == FACTS[kind].outputs
    assert words.graph_names == FACTS[kind].predicted_names
    # The command writes weights with these names, and says what is missing in them.
    assert main(["export", url, "--format", "hf", "--out", str(tmp_path / "folder")]) == 0
    config = (tmp_path / "folder" / "config.json").read_text()
    assert all(f'"{name}"' in config for name in words.network_names)
    shown = capsys.readouterr().out
    assert f"{words.network_kind}, without the mean over seeds; --format onnx has it" in shown
