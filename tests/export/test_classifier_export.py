"""A classifier is exported in each format by the command, with its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from retfound_dist.cli import main
from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.evaluate.classifier.classifier import load_classifier
from retfound_dist.export.classifier_export import export_classifier
from tests.evaluate.made import evaluated
from tests.evaluate.volumes import eye_volumes
from tests.export.inputs import make_classifier


def test_each_format_is_written_twice_with_a_card_and_loads_as_the_card_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the folder of an evaluation, whose URL is enough.
    url = str(Path(make_classifier(tmp_path / "out" / "classifier")).parent)
    (tmp_path / "out" / "metrics.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    names = {"onnx": "x.onnx", "torchscript": "x.pt", "timm": "x.pth", "hf": "folder"}
    for kind, name in names.items():
        for _ in range(2):
            assert main(["export", url, "--format", kind, "--out", name]) == 0
    shown = capsys.readouterr().out
    assert "checked: probabilities differ from the classifier's by at most" in shown
    assert "the network of seed 0, one of 2 (--seed chooses another)" in shown
    classifier = load_classifier(url)
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    expected = classifier(images).numpy()
    session = onnxruntime.InferenceSession("x.onnx")
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4)
    np.testing.assert_allclose(torch.jit.load("x.pt")(images), expected, atol=1e-4)  # type: ignore[no-untyped-call]
    lines = Path("x.pth.md").read_text().split("```python\n")[1].split("```")[0]
    variables: dict[str, object] = {}
    exec(lines, variables)
    with torch.no_grad():
        logits = classifier.seed_logits(images)[0]
        for model in (variables["model"], timm.create_model("local-dir:folder", pretrained=True).eval()):
            torch.testing.assert_close(model(classifier.input_layer(images)), logits, atol=1e-5, rtol=0)  # type: ignore[operator]
    assert "not a medical device" in Path("folder/README.md").read_text()


def test_a_seed_can_be_chosen_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    url = make_classifier(tmp_path / "kept", seeds=(4, 9))
    _, card, (line,) = export_classifier(url, "timm", str(tmp_path / "x.pth"), 9)
    assert line.startswith("the network of seed 9, one of 2")
    assert "logits of one network, seed 9 of 2" in card
    classifier = load_classifier(url)
    state = torch.load(tmp_path / "x.pth", weights_only=True)
    assert torch.equal(state["head.weight"], classifier.models[1].get_parameter("head.weight"))
    _, card, _ = export_classifier(url, "torchscript", str(tmp_path / "x.pt"), 9)
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    assert "1 of the 2 networks (seed 9). The scores below, the temperature and the thresholds" in card
    graph = torch.jit.load(tmp_path / "x.pt")  # type: ignore[no-untyped-call]
    assert not torch.allclose(graph(images), classifier(images), atol=1e-4)
    with pytest.raises(ConfigError, match=r"--seed 5: .* has the seeds 4, 9"):
        export_classifier(url, "timm", str(tmp_path / "y.pth"), 5)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_a_classifier_of_eyes_says_what_the_export_predicts_or_is_refused(tmp_path: Path, pool: str) -> None:
    eye_volumes(tmp_path / "set", patients=10, slices=2)
    settings = ("data.unit=eye", f"finetune.pool={pool}", "probe.enabled=false", "finetune.epochs=1")
    url = str(evaluated(tmp_path, "none", *settings) / "classifier")
    if pool == "attention":
        with pytest.raises(WeightsError, match="scores each eye by attention"):
            export_classifier(url, "timm", str(tmp_path / "x.pth"), None)
        assert not (tmp_path / "x.pth").exists()
    else:
        _, _, lines = export_classifier(url, "timm", str(tmp_path / "x.pth"), None)
        assert "predicts single images: take the mean of the logits" in lines[-1]
        _, _, lines = export_classifier(url, "torchscript", str(tmp_path / "x.pt"), None)
        assert "use `retfound predict --unit eye`" in lines[-1]
