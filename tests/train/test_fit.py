"""The largest micro-batch that memory holds."""

from collections.abc import Callable

import psutil
import pytest
import torch

from retfound_dist.errors import TrainingError
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.schema import Model, Train
from retfound_dist.train import fit
from retfound_dist.train.group import Group
from retfound_dist.world import World

CONFIG = Model(name="vit_demo_patch14", image_size=112, decoder_width=64, decoder_depth=2, decoder_heads=2)


def find(free: float, monkeypatch: pytest.MonkeyPatch, recompute: bool = False, **train: object) -> int:
    monkeypatch.setattr(fit, "free_bytes", lambda group: free)
    settings = Train(global_batch=100, steps=1, activation_checkpointing=recompute, **train)  # type: ignore[arg-type]
    model = MaskedAutoencoder(CONFIG, recompute)
    group = Group(World(), torch.device("cpu"))
    return fit.find_micro_batch(model, settings, 1, 1, (112, 112), model.patches, group)


def test_more_memory_holds_more_up_to_the_whole_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [find(gb * 1e9, monkeypatch, precision="fp32") for gb in (0.3, 0.6, 1.2, 50)]
    assert found == sorted(found)
    assert found[0] < found[2]
    assert found[-1] == 100


def test_passes_of_a_step_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    for gb in (0.3, 0.4, 0.5, 0.6, 0.7):
        micro = find(gb * 1e9, monkeypatch, precision="fp32")
        passes = -(-100 // micro)
        assert micro == -(-100 // passes)


def test_recomputing_holds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, again = (find(3e8, monkeypatch, recompute=each, precision="fp32") for each in (False, True))
    assert again > plain


def test_where_not_one_image_fits_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="activation_checkpointing"):
        find(1e6, monkeypatch)


@pytest.mark.parametrize("images", [8, 32])
def test_what_is_measured_is_what_a_pass_takes(images: int) -> None:
    """Memory that a forward pass really holds, by the process's own."""
    model, process = MaskedAutoencoder(CONFIG), psutil.Process()
    batch = fit._images(images, 1, (112, 112), model.patches)
    model(*batch).sum().backward()
    for parameter in model.parameters():
        parameter.grad = None
    one, two = (fit._kept_bytes(model, *fit._images(n, 1, (112, 112), model.patches)) for n in (1, 2))
    expected = (two - one) * images
    held: list[Callable[[], object] | torch.Tensor] = []
    before = process.memory_info().rss
    held += [model(*batch) for _ in range(4)]
    grown = (process.memory_info().rss - before) / 4
    assert grown == pytest.approx(expected, rel=0.25)
    assert held
