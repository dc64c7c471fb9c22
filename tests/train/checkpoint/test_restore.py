"""A resumed run is the run that was not interrupted: its weights, what is not trained, its counts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from retfound_dist.errors import CheckpointError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.shard_set import read_index
from retfound_dist.io import storage
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import load_into, read_weights
from retfound_dist.train.checkpoint import restore
from tests.stream.stream_inputs import make_set
from tests.train.launching import metrics
from tests.train.restarts import MODEL, Begin, config, on_ranks

WRITTEN = [(1, "fp32"), (2, "bf16"), (3, "bf16")]
"""ZeRO stage and precision of the runs that are resumed, all on two ranks."""
ELSEWHERE = [(1, "fp32", 1, 3), (2, "bf16", 1, 1), (3, "bf16", 2, 1)]
"""Written at this stage in this precision, resumed on so many ranks at that stage."""
FROZEN = ("pos_embed", "decoder_pos_embed")
TIMED = {
    "images_per_s", "data_wait_s", "step_s", "mfu", "memory_gb", "rank_s", "slowest_rank", "time", "goodput",
    "world_size", "fetched_bytes", "storage_retries",
}  # fmt: skip
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each run of WRITTEN: `whole-*` without a break, `cut-*` stopped at step 2 and resumed on the same ranks.
    They begin from learned positions of another image size; three images of their set cannot be read."""
    root = tmp_path_factory.mktemp("runs")
    manifest = make_set(root / "shards")
    for shard in manifest.shards[:3]:
        path = Path(manifest.url) / shard.name
        data = bytearray(path.read_bytes())
        data[read_index(manifest.url, shard)[1].image_offset + 60] ^= 1
        path.write_bytes(data)
    torch.manual_seed(5)
    with torch.no_grad():
        large = MaskedAutoencoder(replace(MODEL, image_size=56))
        for name in FROZEN:
            table = getattr(large, name)
            table.copy_(torch.randn_like(table))
    torch.save({"model": large.state_dict()}, root / "init.pth")
    starts = []
    for stage, precision in WRITTEN:
        for kind, stops in (("whole", (0,)), ("cut", (2, 0))):
            run = str(root / f"{kind}-{stage}-{precision}")
            starts += [Begin(a_config(root, run, stage, precision, stop)) for stop in stops]
    on_ranks(2, starts)
    return root


def a_config(root: Path, run: str, stage: int, precision: str, stop: int = 0) -> Any:
    return config(str(root / "shards/set"), run, str(root / "init.pth"), stage, precision, stop)


@pytest.fixture(scope="module")
def resumed(runs: Path) -> Path:
    """Those of ELSEWHERE: what each has in memory when it is ready (`*.pt`), and its run to the end."""
    for ranks in (1, 2):
        starts = []
        for case in ELSEWHERE:
            stage, precision, on, there = case
            if on == ranks:
                run = str(runs / "-".join(map(str, case)))
                at_step_2(runs / f"cut-{stage}-{precision}", Path(run))
                starts.append(Begin(a_config(runs, run, there, precision), dump=f"{run}.pt"))
        on_ranks(ranks, starts)
    return runs


def at_step_2(run: Path, copy: Path) -> None:
    """A run as it was when it was stopped."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints/step_00000004")
    rows = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(rows[:2]))


def weights(run: Path, step: int) -> Tensors:
    return safetensors.torch.load_file(run / f"checkpoints/step_{step:08d}/{checkpoint_folder.WEIGHTS}")


def positions(runs: Path) -> Tensors:
    """What `model.init` gives this grid."""
    model = MaskedAutoencoder(MODEL)
    load_into(model, read_weights(str(runs / "init.pth")), model.grid)
    return {name: getattr(model, name).detach() for name in FROZEN}


def what_happened(run: Path) -> list[dict[str, Any]]:
    """The log, less what depends on machine and time."""
    return [{key: value for key, value in row.items() if key not in TIMED} for row in metrics(run)]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), WRITTEN)
def test_resumed_on_the_same_ranks_it_is_the_uninterrupted_run_bit_for_bit(
    stage: int, precision: str, runs: Path
) -> None:
    whole, cut = runs / f"whole-{stage}-{precision}", runs / f"cut-{stage}-{precision}"
    assert what_happened(cut) == what_happened(whole)
    assert what_happened(whole)[1]["bad_samples"] > 0
    a, b = weights(whole, 4), weights(cut, 4)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    for name, table in positions(runs).items():
        assert torch.equal(b[name], table), name


@pytest.mark.slow
@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda c: f"zero{c[0]}-{c[1]}-to-{c[2]}-ranks-zero{c[3]}")
def test_on_other_ranks_or_stages_every_tensor_is_the_checkpoint_s_when_the_first_step_begins(
    case: tuple[int, str, int, int], resumed: Path
) -> None:
    stage, precision, _, _ = case
    committed = weights(resumed / f"cut-{stage}-{precision}", 2)
    resumed_state = torch.load(resumed / f"{'-'.join(map(str, case))}.pt", weights_only=True)
    assert (resumed_state["step"], resumed_state["clip"]) == (2, 0.5)
    assert resumed_state["masters"].keys() | resumed_state["fixed"].keys() == committed.keys()
    for name, tensor in {**resumed_state["masters"], **resumed_state["fixed"]}.items():
        assert torch.equal(tensor, committed[name]), name
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    for name, tensor in {**resumed_state["working"], **resumed_state["buffers"]}.items():
        assert torch.equal(tensor, committed[name].to(kind)), name
    rows = metrics(resumed / f"whole-{stage}-{precision}")[:2]
    assert resumed_state["state"]["recent_losses"] == [row["loss"] for row in rows]
    assert len(resumed_state["state"]["bad_samples"]) == rows[-1]["bad_samples"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda c: f"zero{c[0]}-{c[1]}-to-{c[2]}-ranks-zero{c[3]}")
def test_on_other_ranks_or_stages_the_losses_go_on_and_what_is_not_trained_stays(
    case: tuple[int, str, int, int], resumed: Path
) -> None:
    stage, precision, _, _ = case
    whole, run = resumed / f"whole-{stage}-{precision}", resumed / "-".join(map(str, case))
    a, b = what_happened(whole), what_happened(run)
    assert [row["step"] for row in b] == [1, 2, 3, 4]
    close = 1e-5 if precision == "fp32" else 2e-3
    assert [row["loss"] for row in b] == pytest.approx([row["loss"] for row in a], rel=close)
    assert [row["bad_samples"] for row in b] == [row["bad_samples"] for row in a]
    for name, table in positions(resumed).items():
        assert torch.equal(weights(run, 4)[name], table), name


@pytest.mark.slow
def test_positions_that_an_earlier_version_committed_wrongly_are_those_that_were_trained_with(
    runs: Path, tmp_path: Path
) -> None:
    """After a resume earlier versions wrote fresh positions into the weights, and the right ones into the state."""
    for precision, stage in (("fp32", 1), ("bf16", 2)):
        shutil.copytree(runs / f"cut-{stage}-{precision}", tmp_path / precision)
        commit = checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(str(tmp_path / precision), 2))
        model, right = MaskedAutoencoder(MODEL), positions(runs)
        assert restore.read_untrained(model, commit, str(tmp_path)) == ""
        assert torch.equal(model.pos_embed, right["pos_embed"])
        file = f"{commit.url}/{checkpoint_folder.WEIGHTS}"
        fresh = {name: getattr(MaskedAutoencoder(MODEL), name).detach() for name in FROZEN}
        safetensors.torch.save_file(safetensors.torch.load_file(file) | fresh, file)
        remark = restore.read_untrained(model, commit, str(tmp_path))
        assert remark.startswith("pos_embed, decoder_pos_embed: read from the training state")
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        for name in FROZEN:
            assert torch.equal(getattr(model, name), right[name].to(kind).float())


def test_buffers_are_read_too_and_a_checkpoint_that_lacks_one_is_refused(tmp_path: Path) -> None:
    model = torch.nn.BatchNorm1d(3, affine=False)
    url = str(tmp_path)
    commit = checkpoint_folder.Commit(
        url=url, step=1, samples=1, world_size=1, zero_stage=1, precision="fp32", batch_digest="0", time="",
        config={}, files={checkpoint_folder.WEIGHTS: storage.bytes_info(b"")},
    )  # fmt: skip
    state = {"running_mean": torch.tensor([1.0, 2.0, 3.0]), "running_var": torch.ones(3) * 7}
    safetensors.torch.save_file(state, tmp_path / checkpoint_folder.WEIGHTS)
    with pytest.raises(CheckpointError, match="holds no num_batches_tracked; use another checkpoint"):
        restore.read_untrained(model, commit, url)
    safetensors.torch.save_file(
        state | {"num_batches_tracked": torch.tensor(4)}, tmp_path / checkpoint_folder.WEIGHTS
    )
    restore.read_untrained(model, commit, url)
    assert model.running_mean.tolist() == [1, 2, 3]  # type: ignore[union-attr]
    assert int(model.num_batches_tracked) == 4  # type: ignore[arg-type]


def a_checkpoint(url: str, state: bytes) -> checkpoint_folder.Commit:
    """A commit whose state is one file; times are alike."""
    storage.write_bytes(storage.join(url, "state/part"), state)
    commit = checkpoint_folder.Commit(
        url=url, step=3, samples=24, world_size=2, zero_stage=1, precision="fp32", batch_digest="0",
        time="2026-01-01T00:00:00+00:00", config={}, files={"state/part": storage.bytes_info(state)},
    )  # fmt: skip
    checkpoint_folder.write_commit(commit)
    return commit


def convert_once(commit: checkpoint_folder.Commit) -> None:
    """Put a converted state beside a checkpoint, as `_fetch_universal` does."""
    beside = storage.join(commit.url, "universal")
    files = {
        "zero/part": b"converted",
        restore.SOURCE_FILES: json.dumps(restore._source_files(commit)).encode(),
    }
    for name, data in files.items():
        storage.write_bytes(storage.join(beside, name), data)
    infos = {name: storage.bytes_info(data) for name, data in files.items()}
    checkpoint_folder.write_commit(replace(commit, url=beside, files=infos))


@pytest.mark.parametrize("base", ["disk", "memory://converted"])
def test_a_converted_state_is_taken_where_it_was_made_of_this_state_and_of_no_other(
    base: str, tmp_path: Path
) -> None:
    url, target = (str(tmp_path / "run") if base == "disk" else base), tmp_path / "target"
    commit = a_checkpoint(url, b"first")
    convert_once(commit)
    done = checkpoint_folder.read_commit(storage.join(url, "universal"))
    restore._fetch_matching(done, commit, str(target), 0)
    assert (target / "zero/part").read_bytes() == b"converted"
    again = a_checkpoint(url, b"other")  # the same step, second, ranks and size; another state
    with pytest.raises(CheckpointError, match="was made of another checkpoint's state"):
        restore._fetch_matching(done, again, str(target), 0)
    older = replace(done, files={k: v for k, v in done.files.items() if k != restore.SOURCE_FILES})
    with pytest.raises(CheckpointError, match="another checkpoint's state"):
        restore._fetch_matching(older, commit, str(target), 0)
