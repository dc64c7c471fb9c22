"""What the loop says and saves, held against a plain torch loop over the same batches."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.model.flops import matrix_rate, training_flops
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import load_into, read_weights
from retfound_dist.runtime.world import World
from retfound_dist.stream.loader import open_stream
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.schedule import make_schedule
from retfound_dist.train.trainer import _sum_digest
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL, expected_digests, metrics, pretrain

BATCH, STEPS = 10, 10
RUN = [
    "train.precision=fp32", f"train.steps={STEPS}", "train.log_every=3", "checkpoint.every_steps=4",
    "optim.base_lr=0.02", "optim.warmup_epochs=1.4",
]  # fmt: skip
LOGGED = [1, 3, 4, 6, 8, 9, 10]
"""The first step, every third, and every one that is saved: each fourth and the last."""


@dataclass
class Plain:
    losses: list[float]
    norms: list[float]
    rates: list[float]
    weights: dict[str, torch.Tensor]


@dataclass
class Ran:
    folder: Path
    rows: list[dict[str, Any]]
    config: PretrainConfig
    manifest: Manifest


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A real run of ten steps on 40 images: four steps an epoch."""
    folder = tmp_path_factory.mktemp("loop")
    manifest = make_set(folder, count=40)
    done = pretrain(1, folder / "run", manifest.url, *RUN)
    assert done.returncode == 0, done.stderr
    settings = [f"data.shards={manifest.url}", f"run.url={folder / 'run'}", *SMALL, *RUN]
    config = load(PretrainConfig, "configs/demo/pretrain.toml", settings)[0]
    return Ran(folder / "run", metrics(folder / "run"), config, manifest)


@pytest.fixture(scope="module")
def plain(ran: Ran) -> Plain:
    config, schedule = ran.config, make_schedule(ran.config, ran.manifest, 1, BATCH)
    torch.manual_seed(config.train.seed)
    net = MaskedAutoencoder(config.model)
    optimizer = torch.optim.AdamW(parameter_groups(net, config.optim), lr=0.0, betas=config.optim.betas)
    found = Plain([], [], [], {})
    with open_stream(
        ran.manifest, BATCH, image_size=config.model.image_size, patches=net.patches, seed=config.train.seed,
        world=World(), stop_step=STEPS, data=config.data,
    ) as stream:  # fmt: skip
        for number, batch in enumerate(stream):
            found.rates.append(schedule.lr(number))
            for group in optimizer.param_groups:
                group["lr"] = found.rates[-1]
            optimizer.zero_grad()
            loss = net(batch.images, batch.noise).mean()
            loss.backward()
            gradient = torch.cat([p.grad.flatten().double() for p in net.parameters() if p.grad is not None])
            found.losses.append(float(loss.detach()))
            found.norms.append(float(gradient.norm()))
            optimizer.step()
    found.weights = {n: p.detach() for n, p in net.named_parameters()}
    return found


@pytest.mark.slow
def test_the_first_step_each_log_every_and_every_save_have_a_row_and_only_saves_a_checkpoint(
    ran: Ran,
) -> None:
    assert [row["step"] for row in ran.rows] == LOGGED
    assert checkpoint_folder.list_steps(str(ran.folder)) == [4, 8, 10]


@pytest.mark.slow
def test_a_row_has_the_loss_gradient_and_rate_of_its_own_step(ran: Ran, plain: Plain) -> None:
    assert [row["loss"] for row in ran.rows] == pytest.approx([plain.losses[s - 1] for s in LOGGED], rel=1e-4)
    assert [row["grad_norm"] for row in ran.rows] == pytest.approx(
        [plain.norms[s - 1] for s in LOGGED], rel=1e-3
    )
    assert [row["lr"] for row in ran.rows] == [plain.rates[s - 1] for s in LOGGED]
    assert len(set(plain.rates)) == STEPS


@pytest.mark.slow
def test_a_row_has_the_mean_loss_of_all_steps_since_the_row_before(ran: Ran, plain: Plain) -> None:
    before = [0, *LOGGED[:-1]]
    means = [statistics.fmean(plain.losses[a:b]) for a, b in zip(before, LOGGED, strict=True)]
    assert [row["loss_mean"] for row in ran.rows] == pytest.approx(means, rel=1e-4)


@pytest.mark.slow
def test_a_row_says_how_far_the_run_is_and_which_samples_its_batch_held(ran: Ran) -> None:
    digests = expected_digests(ran.config, ran.manifest.url, STEPS)
    for row in ran.rows:
        assert row["samples"] == row["step"] * BATCH
        assert row["epoch"] == row["step"] * BATCH / 40
        assert row["batch_digest"] == digests[row["step"] - 1]
        assert (row["world_size"], row["skipped_steps"], row["spikes"], row["bad_samples"]) == (1, 0, 0, 0)


@pytest.mark.slow
def test_a_row_s_speeds_follow_from_each_other(ran: Ran) -> None:
    flops = training_flops(MaskedAutoencoder(ran.config.model))
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    times, shares = [row["time"] for row in ran.rows], []
    for row in ran.rows:
        assert 0 <= row["data_wait_s"] < row["step_s"] < 60
        assert row["images_per_s"] == pytest.approx(BATCH / row["step_s"])
        shares.append(row["mfu"] / row["images_per_s"])
        assert row["slowest_rank"] == 0
        assert row["rank_s"] == [row["rank_s"][0]] * 3
        assert row["data_wait_s"] <= row["rank_s"][0] <= row["step_s"]
        assert 0 < row["goodput"] <= 1
    assert shares == pytest.approx([shares[0]] * len(shares))
    assert (
        0.02 < shares[0] / (flops / rate) < 50
    )  # a processor's rate is measured, beside whatever else it does
    assert times == sorted(times)
    first, last = ran.rows[0], ran.rows[-1]
    assert last["goodput"] * (last["time"] - first["time"]) <= sum(
        (row["step"] - before) * row["step_s"] for row, before in zip(ran.rows, [0, *LOGGED], strict=False)
    )


@pytest.mark.slow
def test_a_checkpoint_holds_the_weights_after_its_step_and_the_digest_of_its_batch(
    ran: Ran, plain: Plain
) -> None:
    commit = checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(str(ran.folder), STEPS))
    assert (commit.step, commit.samples, commit.world_size) == (STEPS, STEPS * BATCH, 1)
    assert commit.batch_digest == ran.rows[-1]["batch_digest"]
    net = MaskedAutoencoder(ran.config.model)
    load_into(net, read_weights(commit.url), net.grid)
    ours = torch.cat([p.detach().flatten() for p in net.parameters()])
    theirs = torch.cat([plain.weights[n].flatten() for n, _ in net.named_parameters()])
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize(
    ("mine", "others", "said"),
    [
        (5, 0, "0000000000000005"),
        (2**64 + 5, 0, "0000000000000005"),
        (2**63, 0, "8000000000000000"),
        (2**64 - 1, 0, "ffffffffffffffff"),
        (2**63, 2**63 + 7, "0000000000000007"),
        (2**64 - 1, 2**64 - 1, "fffffffffffffffe"),
        (2**63 - 1, 1, "8000000000000000"),
    ],
)
def test_the_digests_of_all_ranks_add_up_modulo_2_to_the_64(mine: int, others: int, said: str) -> None:
    class Two(RankGroup):
        def sum(self, values: torch.Tensor) -> torch.Tensor:
            other = others - 2**64 if others >= 2**63 else others
            return values + torch.tensor(other, dtype=torch.int64)

    assert _sum_digest(Two(World(), torch.device("cpu")), mine) == said
