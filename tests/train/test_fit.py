"""The largest micro-batch that memory holds, and what a step takes beside what was predicted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retfound_dist.errors import TrainingError
from retfound_dist.memory import peak
from retfound_dist.model.cpu import has_bf16_instructions
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.schema import Model, Train
from retfound_dist.train import fit
from retfound_dist.train.group import Group
from retfound_dist.world import World

CONFIG = Model(name="vit_demo_patch14", image_size=112, decoder_width=64, decoder_depth=2, decoder_heads=2)
ROOT = Path(__file__).resolve().parents[2]


def find(free: float, monkeypatch: pytest.MonkeyPatch) -> fit.Fit:
    monkeypatch.setattr(fit, "free_bytes", lambda group: free)
    train = Train(global_batch=100, steps=1, precision="fp32")
    group = Group(World(), torch.device("cpu"))
    return fit.find_micro_batch(MaskedAutoencoder(CONFIG), train, 1, 1, group)


def test_more_memory_holds_more_up_to_the_whole_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [find(gb * 1e9, monkeypatch).micro for gb in (0.36, 0.45, 50)]
    assert found == sorted(found)
    assert found[0] < found[-1] == 100


def test_what_is_chosen_was_tried_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(0.45e9, monkeypatch)
    assert found.tried > 0
    assert found.total <= 0.45e9
    assert f"micro-batch {found.micro}: {found.total / 1e9:.1f} GB as tried" in found.describe()


def test_a_prediction_that_the_trial_refutes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory ends above 20 images, whatever the formula says."""
    tried = []

    def attempt(model: object, micro: int, channels: int, group: Group) -> float:
        tried.append(micro)
        return float("inf") if micro > 20 else 1e6 * micro

    monkeypatch.setattr(fit, "_try", attempt)
    monkeypatch.setattr(fit, "largest_micro_batch", lambda *_, **__: 25)
    assert find(1e9, monkeypatch).micro == 20
    assert tried[:2] == [25, 20]


def test_a_prediction_that_was_too_careful_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "largest_micro_batch", lambda *_, **__: 5)
    assert find(50e9, monkeypatch).micro == 100


def test_passes_of_a_step_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    for gb in (0.37, 0.4, 0.45):
        micro = find(gb * 1e9, monkeypatch).micro
        passes = -(-100 // micro)
        assert micro == -(-100 // passes)


def test_where_not_one_image_fits_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="activation_checkpointing"):
        find(1e6, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "stage", "recompute"),
    [("fp32", 1, False), ("fp32", 1, True), ("bf16", 1, False), ("bf16", 2, False), ("bf16", 3, False)],
)
def test_a_step_takes_what_was_predicted(precision: str, stage: int, recompute: bool, tmp_path: Path) -> None:
    """Growth of a process's resident memory over a model, DeepSpeed's engine and its steps: within 10 %.

    Computing blocks again breaks the C library's heap into pieces, each time others: 20 %.
    """
    if precision == "bf16" and not has_bf16_instructions():
        pytest.skip("this processor multiplies bf16 by way of fp32, which keeps fp32 copies")
    model = Model(name="vit_small_patch16")
    spec = {"stage": stage, "precision": precision, "recompute": recompute, "micro": 16}
    out = tmp_path / "taken"
    script = [sys.executable, "-m", "tests.train.one_step", json.dumps(spec), str(out)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    predicted = peak(
        model,
        ranks=1,
        zero_stage=stage,
        micro_batch=16,
        precision=precision,  # type: ignore[arg-type]
        activation_checkpointing=recompute,
        gpu=False,
    )
    assert int(out.read_text()) == pytest.approx(predicted.total, rel=0.2 if recompute else 0.1)
