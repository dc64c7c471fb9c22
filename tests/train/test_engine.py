"""One step of DeepSpeed against a plain fp32 loop, and its configuration."""

import pytest
import torch
import torch.multiprocessing as mp

from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.schema import Model, Optim, Train
from retfound_dist.stream.plan import layout, rank_slots
from retfound_dist.train import engine as ds
from retfound_dist.train.optim import parameter_groups
from retfound_dist.world import World

CONFIG = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)
BATCH, STEPS, LR = 7, 3, 1e-3


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (STEPS, BATCH, 1, 28, 28), dtype=torch.uint8, generator=draw)
    return images, torch.rand(STEPS, BATCH, 4, generator=draw)


def model() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(CONFIG)


def plain_loop() -> dict[str, torch.Tensor]:
    """One process, the whole batch at once, no DeepSpeed."""
    net = model()
    optimizer = torch.optim.AdamW(parameter_groups(net, Optim()), lr=LR, betas=(0.9, 0.95))
    for images, noise in zip(*inputs(), strict=True):
        optimizer.zero_grad()
        net(images, noise).mean().backward()
        optimizer.step()
    return {k: v.detach() for k, v in net.state_dict().items()}


def one_rank(rank: int, world: int, port: int, stage: int, precision: str, micro: int, path: str) -> None:
    import os

    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
    )
    group, net, cut = ds.start(World(rank, world, rank), threads=1), model(), layout(BATCH, world, micro)
    fixed = {n: p.detach().clone() for n, p in net.named_parameters() if not p.requires_grad}
    train, optim = Train(global_batch=BATCH, steps=STEPS, zero_stage=stage, precision=precision), Optim()  # type: ignore[arg-type]
    engine = ds.build(net, parameter_groups(net, optim), train, optim, cut)
    for images, noise in zip(*inputs(), strict=True):
        ds.set_lr(engine, LR)
        for a in range(cut.accumulation):
            here = rank_slots(cut, rank, a)
            part = torch.zeros(cut.micro, 1, 28, 28, dtype=torch.uint8)
            mask, weight = torch.rand(cut.micro, 4), torch.zeros(cut.micro)
            held = len(images[here])
            part[:held], mask[:held], weight[:held] = images[here], noise[here], 1
            losses = engine(part, mask) * weight
            engine.backward(losses.sum() * (world * cut.accumulation / BATCH))
            norm = ds.step(engine)
    assert norm is not None
    assert norm > 0
    state = ds.full_state(engine, fixed)
    if rank == 0:
        torch.save(state, path)
    group.share(None)
    ds.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "stage", "precision", "micro"),
    [(1, 1, "fp32", 2), (2, 2, "fp32", 8), (3, 1, "fp32", 2), (2, 3, "fp32", 2), (2, 2, "bf16", 2)],
)
def test_a_step_is_the_plain_fp32_step_padding_and_accumulation_included(
    world: int, stage: int, precision: str, micro: int, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    path = str(tmp_path / "weights")
    port = 23000 + hash((world, stage, precision, micro)) % 9000
    mp.start_processes(
        one_rank, (world, port, stage, precision, micro, path), nprocs=world, start_method="spawn"
    )
    ours, plain = torch.load(path, weights_only=True), plain_loop()
    first = model().state_dict()
    moved = torch.cat([(plain[k] - first[k]).flatten() for k in plain])
    off = torch.cat([(ours[k] - plain[k]).flatten() for k in plain])
    # the distance from the plain loop's weights, held against how far the weights moved
    assert off.norm() / moved.norm() < (1e-3 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_configuration_accumulates_and_reduces_in_fp32(stage: int) -> None:
    train = Train(global_batch=1792, steps=1, zero_stage=stage)  # type: ignore[arg-type]
    settings = ds.ds_config(train, Optim(clip_grad=1.0), layout(1792, 8, 64))
    assert settings["data_types"]["grad_accum_dtype"] == "fp32"
    assert settings["communication_data_type"] == "fp32"
    assert settings["train_micro_batch_size_per_gpu"] * settings["gradient_accumulation_steps"] * 8 == 1792
    assert settings["zero_optimization"]["stage"] == max(1, stage)
    assert settings["gradient_clipping"] == 1.0
    assert "train_batch_size" not in settings
