"""The pretended GPU computes what a CPU computes, and notices each kind of fault that it promises to notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.adamw import adamw

from tests.gpu.gpu_tensor import GpuTensor, PretendGpu
from tests.gpu.pretend_gpu import pretend_gpu

HERE = "tests/gpu/test_pretend_gpu.py"


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    with pretend_gpu() as gpu:
        yield gpu


class Step(nn.Module):
    """A small training step, in which a fault can be planted."""

    def __init__(self, fault: Callable[[torch.Tensor], Any] = lambda x: None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
        self.fault = fault
        self.optimizer: Any = None

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.optimizer = self.optimizer or torch.optim.AdamW(self.parameters(), lr=1e-3)
        loss = F.cross_entropy(self.layers(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.fault(x)
        return loss.detach()


def inputs(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(4, 6, generator=draw).to(device), torch.tensor([0, 1, 2, 1]).to(device)


def step_of(device: str) -> Step:
    torch.manual_seed(0)
    return Step().to(device)


@pytest.mark.parametrize("bf16", [False, True])
def test_steps_have_the_numbers_of_a_cpu_and_no_wait(bf16: bool, gpu: PretendGpu) -> None:
    losses, weights = [], []
    for device in ("cpu", "cuda"):
        step, batch = step_of(device), inputs(device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16), gpu.watched() as waits:
            losses.append(torch.stack([step(*batch) for _ in range(3)]))
        assert waits == []
        weights.append(step.layers[0].weight.detach())
    assert losses[1].device == torch.device("cuda:0")
    near = {"rtol": 2e-2, "atol": 2e-2} if bf16 else {}
    torch.testing.assert_close(losses[1].cpu(), losses[0], **near)
    torch.testing.assert_close(weights[1].cpu(), weights[0], **(near or {"rtol": 1e-4, "atol": 1e-5}))


WAITS: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool(x.sum() > 0),
    "if": lambda x: 1 if (x > 0).any() else 0,
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "where of a mask": lambda x: torch.where(x > 0),
    "mask as an index": lambda x: x[x > 0],
    "a tensor for a masked place": lambda x: x.masked_fill(x > 0, x.sum()),
    "unique": lambda x: x.unique(),
    "index of the host": lambda x: x[torch.tensor([0, 2])],
    "list as an index": lambda x: x[[0, 2]],
    "number to the GPU": lambda x: torch.tensor(1.0, device=x.device),
    "numbers to the GPU": lambda x: x.new_tensor([1.0, 2.0]),
    "blocking copy to the GPU": lambda x: torch.ones(3).pin_memory().to(x.device),
    "copy from pageable memory": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "copy into a tensor": lambda x: x.copy_(torch.ones(4, 6)),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "event": lambda x: torch.cuda.Event().synchronize(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_that_is_planted_in_a_step_is_counted_once_and_located(name: str, gpu: PretendGpu) -> None:
    step, batch = Step(WAITS[name]).to("cuda"), inputs("cuda")
    with gpu.watched() as waits:
        step(*batch)
    assert [wait.where for wait in waits] == [f"{HERE} <lambda>"], waits


@pytest.mark.parametrize("name", WAITS)
def test_on_a_cpu_nothing_waits(name: str, gpu: PretendGpu) -> None:
    if "synchronize" in name or name == "event":
        return
    with gpu.watched() as waits:
        WAITS[name](torch.ones(4, 6))
    assert waits == []


NO_WAITS: dict[str, Callable[[torch.Tensor], Any]] = {
    "copy from page-locked memory": lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
    "copy from page-locked rows": lambda x: torch.empty(4, 3, pin_memory=True)[1:].to(
        "cuda", non_blocking=True
    ),
    "index of the GPU": lambda x: x[torch.arange(2, device=x.device)],
    "slice": lambda x: x[1:, None],
    "number of the host": lambda x: x * 2.0 + torch.tensor(1.0),
    "filled": lambda x: torch.full((3,), 2.0, device=x.device),
    "choice": lambda x: torch.where(x > 0, torch.inf, x),
    "number for a masked place": lambda x: x.masked_fill(x > 0, -torch.inf),
    "already there": lambda x: x.to("cuda"),
}


@pytest.mark.parametrize("name", NO_WAITS)
def test_what_a_gpu_does_alone_is_no_wait(name: str, gpu: PretendGpu) -> None:
    x, _ = inputs("cuda")
    with gpu.watched() as waits:
        NO_WAITS[name](x)
    assert waits == []


MIXED: dict[str, Callable[[torch.Tensor], Any]] = {
    "sum": lambda x: x + torch.ones(6),
    "product": lambda x: x @ torch.ones(6, 2),
    "layer": lambda x: nn.Linear(6, 2)(x),
    "joined": lambda x: torch.cat([x, torch.ones(1, 6)]),
    "written to the host": lambda x: torch.zeros(()).add_(x.sum()),
    "number in a product": lambda x: torch.dot(x[0], torch.ones(6)),
    "index of the GPU": lambda x: torch.ones(5)[torch.arange(2, device=x.device)],
    "step of AdamW": lambda x: adamw(
        [x], [x], [x], [x], [], [torch.zeros(())], fused=True, amsgrad=False, beta1=0.9, beta2=0.9, lr=0.1,
        weight_decay=0.0, eps=1e-8, maximize=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_a_tensor_that_was_left_on_the_cpu_is_refused(name: str, gpu: PretendGpu) -> None:
    with pytest.raises(RuntimeError, match=r"same device|params.*device"), torch.no_grad():
        MIXED[name](inputs("cuda")[0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda own: torch.rand(3, device="cuda", generator=own),
        lambda own: torch.zeros(3, device="cuda").normal_(generator=own),
        lambda own: torch.randperm(3, device="cuda", generator=own),
    ],
)
def test_a_generator_of_the_cpu_is_refused(draw: Callable[[torch.Generator], Any], gpu: PretendGpu) -> None:
    with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
        draw(torch.Generator())


def test_numpy_is_refused(gpu: PretendGpu) -> None:
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        inputs("cuda")[0].numpy()


def test_random_numbers_are_the_gpus_own_and_follow_the_seed(gpu: PretendGpu) -> None:
    torch.manual_seed(3)
    first, of_cpu = torch.rand(3, device="cuda").tolist(), torch.rand(3).tolist()
    torch.manual_seed(3)
    assert torch.rand(3).tolist() == of_cpu
    assert torch.rand(3, device="cuda").tolist() == first
    torch.default_generator.manual_seed(3)
    assert torch.rand(3, device="cuda").tolist() != first, "only the CPU's generator was seeded"


def test_a_copy_to_the_host_is_wrong_until_the_host_waits(gpu: PretendGpu) -> None:
    x = torch.ones(3, device="cuda")
    early = x.to("cpu", non_blocking=True)
    into = torch.empty(3, pin_memory=True).copy_(x, non_blocking=True)
    assert early.isnan().all()
    assert into.isnan().all()
    torch.cuda.synchronize()
    assert early.tolist() == into.tolist() == [1.0] * 3


def test_a_module_keeps_its_parameters_and_their_order_to_the_gpu_and_back(gpu: PretendGpu) -> None:
    layer = nn.Linear(2, 2)
    before = list(layer.parameters())
    layer.to("cuda")
    assert all(isinstance(p, GpuTensor) and isinstance(p, nn.Parameter) for p in layer.parameters())
    layer(torch.ones(1, 2, device="cuda")).sum().backward()
    layer.cpu()
    assert [id(p) for p in layer.parameters()] == [id(p) for p in before]
    assert {p.device.type for p in layer.parameters()} == {"cpu"}
    assert layer.weight.grad is not None
    assert layer.weight.grad.device.type == "cpu"


def test_inference_mode_is_watched_too(gpu: PretendGpu) -> None:
    layer, x = nn.Linear(6, 2).to("cuda"), inputs("cuda")[0]
    with torch.inference_mode(), gpu.watched() as waits:
        layer(x)[:, 0].softmax(0).cpu()
    assert [wait.why for wait in waits] == ["copies to the host"]


def test_afterwards_torch_is_as_before() -> None:
    names = ("is_available", "synchronize", "Event", "device_count", "_lazy_init")
    before = [getattr(torch.cuda, name) for name in names]
    with pretend_gpu(index=1, count=2) as gpu:
        assert torch.cuda.device_count() == 2
        assert torch.zeros(1, device="cuda").device == gpu.device == torch.device("cuda:1")
    assert [getattr(torch.cuda, name) for name in names] == before
    assert type(torch.zeros(1)) is torch.Tensor
