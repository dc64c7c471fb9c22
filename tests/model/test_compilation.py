"""The compiled step: a graph for each part, also for a padded micro-batch, and the plain step's numbers."""

import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import exc
from torch._dynamo.utils import counters

from retfound_dist.config.schema import Model
from retfound_dist.errors import ConfigError
from retfound_dist.model import compilation
from retfound_dist.model.compilation import GRAPHS, compile_model, should_compile, uncompiled
from retfound_dist.model.mae import ENCODERS, MaskedAutoencoder
from retfound_dist.stream.loader import open_stream
from tests.stream.stream_inputs import make_set

CONFIG = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def build(compiled: bool, dtype: torch.dtype, recompute: bool = False) -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = MaskedAutoencoder(CONFIG, recompute).to(dtype).train()
    model.blocks = model.blocks[:3]
    if compiled:
        torch._dynamo.reset()
        counters.clear()
        compile_model(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "recompute", "bound"),
    [(torch.bfloat16, False, 2e-2), (torch.float32, True, 1e-5)],
    ids=["bf16", "fp32-recomputed"],
)
def test_a_graph_for_each_part_serves_full_and_padded_passes_with_the_plain_steps_numbers(
    dtype: torch.dtype, recompute: bool, bound: float, tmp_path: Path
) -> None:
    plain, fast = build(False, dtype, recompute), build(True, dtype, recompute)
    weights = []
    with open_stream(
        make_set(tmp_path), 10, micro_batch=4, image_size=28, patches=4, workers=0, stop_step=2
    ) as stream:
        for part in stream:
            weights.append(part.weight.sum().item())
            losses = [model(part.images, part.noise) * part.weight for model in (plain, fast)]
            for loss in losses:
                loss.sum().backward()
            torch.testing.assert_close(losses[1], losses[0], rtol=bound, atol=bound)
    assert weights == [4, 4, 2] * 2
    assert counters["stats"]["unique_graphs"] == GRAPHS  # the three blocks of the encoder share one
    assert not counters["graph_break"]
    for (name, a), (other, b) in zip(plain.named_parameters(), fast.named_parameters(), strict=True):
        assert name == other
        if a.grad is not None and b.grad is not None:
            gap = (a.grad - b.grad).float().norm() / a.grad.float().norm()
            assert gap < 5 * bound, name
    assert list(plain.state_dict()) == list(fast.state_dict())
    fast(part.images[:3], part.noise[:3])
    assert counters["stats"]["unique_graphs"] > GRAPHS, "another shape is another graph: the count can fail"


@pytest.mark.slow
def test_gradients_are_complete_block_by_block_so_that_they_can_be_sent_meanwhile() -> None:
    model = build(True, torch.float32)
    complete: list[str] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: complete.append(name))
    at_first_block: list[set[str]] = []

    def when_the_first_block_is_next(module: nn.Module, inputs: object, output: Tensor) -> None:
        output.register_hook(lambda _: at_first_block.append(set(complete)))

    model.blocks[0].register_forward_hook(when_the_first_block_is_next)
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    model(images, torch.rand(2, 4)).sum().backward()
    last = {"patch_embed", "cls_token", "blocks.0"}
    expected = {name for name in complete if not name.startswith(tuple(last))}
    assert at_first_block == [expected]
    assert (
        len(expected) == 2 * 12 + 12 + 2 + 2 + 1 + 2 + 2
    )  # blocks, norms, decoder_embed, mask token, prediction


@pytest.mark.slow
def test_a_pass_without_compilation_compiles_nothing_and_leaves_the_model_compiled() -> None:
    model = build(True, torch.float32)
    images, noise = torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.rand(2, 4)
    with uncompiled(model), torch.no_grad():
        loss = model.eval()(images, noise)
    assert not counters["stats"]
    compiled_loss = model.train()(images, noise)
    assert counters["stats"]["unique_graphs"] == GRAPHS
    torch.testing.assert_close(loss, compiled_loss.detach())


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_at_full_depth_is_a_graph_for_each_part(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's meta device, and without generating code: a ViT-L would take minutes and gigabytes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    with torch.device("meta"):
        model = MaskedAutoencoder(Model(name=name))
        images, noise = torch.zeros(2, 1, 224, 224, dtype=torch.uint8), torch.zeros(2, model.patches)
    compile_model(model)
    for _ in range(2):
        model(images, noise).sum().backward()
    assert counters["stats"]["unique_graphs"] == GRAPHS
    assert not counters["graph_break"]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)


@pytest.mark.slow
def test_code_is_generated_for_the_papers_encoder() -> None:
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = MaskedAutoencoder(Model(name="vit_large_patch16", image_size=64, decoder_depth=1))
    model.blocks = model.blocks[:2]
    images, noise = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8), torch.rand(2, model.patches)
    plain = model(images, noise)
    compile_model(model)
    losses = model(images, noise)
    losses.sum().backward()
    torch.testing.assert_close(losses, plain, rtol=1e-5, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == GRAPHS


def test_a_break_of_the_graph_is_an_error() -> None:
    class Watched(MaskedAutoencoder):
        def embed(self, patches_BVK: Tensor, ids_keep_BV: Tensor) -> Tensor:
            return super().embed(patches_BVK, ids_keep_BV) + time.time()

    model = Watched(CONFIG)
    compile_model(model)
    with pytest.raises(exc.Unsupported, match=r"time\.time"):
        model(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.rand(1, 4))


def test_auto_compiles_on_gpus_below_zero_3(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [should_compile("auto", GPU, stage) for stage in (0, 1, 2, 3)] == [True, True, True, False]
    assert not should_compile("auto", CPU, 1)
    assert should_compile(True, CPU, 1)
    assert not should_compile(False, GPU, 1)
    with monkeypatch.context() as patch:
        patch.setattr(compilation, "PYTHON_HEADER", "/nowhere/Python.h")
        assert not should_compile("auto", GPU, 1)
        with pytest.raises(ConfigError, match=r"/nowhere/Python\.h does not exist.*python3-dev"):
            should_compile(True, GPU, 1)
    monkeypatch.setenv("PATH", "")
    assert not should_compile("auto", GPU, 1)


def test_a_wish_that_cannot_be_met_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"train\.zero_stage=2"):
        should_compile(True, GPU, 3)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="C compiler"):
        should_compile(True, CPU, 1)
