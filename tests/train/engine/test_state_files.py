"""A forged training state is refused by name and never run: at every stage, converted or not."""

from __future__ import annotations

import json
import os
import pickle
import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from retfound_dist.config.schema import Optim, Train
from retfound_dist.errors import CheckpointError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage
from retfound_dist.runtime.world import World
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.checkpoint import restore, universal
from retfound_dist.train.engine import state_files
from retfound_dist.train.engine.deepspeed_config import prepare_import
from retfound_dist.train.engine.engine_choice import make_engine
from retfound_dist.train.engine.training_engine import STATE_FOLDER
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks
from tests.stream.stream_inputs import make_set
from tests.train.forged import forgeries
from tests.train.launching import pretrain

NAMES = sorted(forgeries(Path("mark")))


@pytest.mark.parametrize("trick", NAMES)
def test_each_forgery_would_run_and_is_refused_unrun(trick: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "forged.pt"
    path.write_bytes(forgeries(mark)[trick])
    with pytest.raises(CheckpointError, match=r"s3://b/forged.pt is no training state") as refused:
        state_files.check_file(path, "s3://b/forged.pt")
    assert "\n" not in str(refused.value)
    with state_files.restricted_unpickling(), suppress(Exception):
        torch.load(path, weights_only=False)
    assert not mark.exists()
    if trick not in (
        "program",
        "two records",
        "dotted",
    ):  # so that the test can fail: PyTorch's reading runs it
        with suppress(Exception):
            torch.load(path, weights_only=False)
        assert mark.exists()


def test_reading_lasts_as_long_as_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    good = {"step": 3, "shape": torch.Size([2]), "value": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(good, tmp_path / "good.pt")
    names = state_files.read(tmp_path / "good.pt")
    assert names["shape"] == (2,)
    assert torch.equal(names["value"], good["value"])
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_unchanged_deepspeed_runs_the_code_in_a_state(tmp_path: Path) -> None:
    """`restricted_unpickling` is needed as long as this passes."""
    prepare_import()
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    mark, path = tmp_path / "mark", tmp_path / "state.pt"
    path.write_bytes(forgeries(mark)["call"])
    with state_files.restricted_unpickling(), suppress(pickle.UnpicklingError):
        TorchCheckpointEngine().load(str(path))
    assert not mark.exists()
    with suppress(Exception):
        TorchCheckpointEngine().load(str(path))
    assert mark.exists(), "DeepSpeed reads states safely: delete restricted_unpickling"


def committed(engine: Any, url: str, stage: int) -> checkpoint_folder.Commit:
    """The engine's state as a save leaves it; every rank calls it."""
    for path, value in engine.snapshot(
        url, {"universal_checkpoint_info": {}, "run_state": {"kept": 7}}
    ).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, path)
    torch.distributed.barrier()
    return checkpoint_folder.Commit(
        url=url, step=1, samples=1, world_size=2, zero_stage=stage, precision="bf16", batch_digest="0", time="",
        config={}, files=infos(url),
    )  # fmt: skip


def infos(url: str) -> dict[str, storage.FileInfo]:
    names = sorted(Path(url, STATE_FOLDER).glob("*.pt"))
    return {f"{STATE_FOLDER}/{path.name}": storage.file_info(str(path)) for path in names}


def refused(group: Any, engine: Any, commit: checkpoint_folder.Commit, stage: int, scratch: str) -> str:
    try:
        restore.restore(group, engine, commit, stage, 1, scratch)
    except Exception as error:  # whatever it is: the other rank may have tidied up before this one reads
        return str(error)
    return "it was loaded"


class _TwoLayers(torch.nn.Sequential):
    """Takes noise beside its images, as the autoencoder does."""

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        del noise
        return super().forward(images)


def _one_rank(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)
    )
    group, said, mark = join_ranks(World(rank, 2, rank), threads=1), {}, Path(folder, "mark")
    forged = forgeries(mark)["deep"]
    for stage in (1, 2, 3):
        train, cut = (
            Train(global_batch=4, micro_batch=2, steps=1, zero_stage=stage, precision="bf16"),
            make_batch_layout(4, 2, 2),
        )  # type: ignore[arg-type]
        model = _TwoLayers(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
        engine = make_engine(model, parameter_groups(model, Optim()), train, Optim(), cut)
        images = torch.ones(2, 6, dtype=torch.bfloat16)
        engine.backward(engine(images, torch.zeros(2)).float().sum())
        engine.end_pass()
        url, scratch = f"{folder}/{stage}", f"{folder}/scratch"
        commit = committed(engine, url, stage)
        said[f"{stage} good"] = str(restore.restore(group, engine, commit, stage, 1, scratch))
        for name in commit.files:
            if rank == 0:
                good = Path(url, name).read_bytes()
                Path(url, name).write_bytes(forged)
            torch.distributed.barrier()
            bad = checkpoint_folder.Commit(**{**commit.__dict__, "files": infos(url)})
            said[f"{stage} {name}"] = refused(group, engine, bad, stage, scratch)
            said[f"{stage} {name} elsewhere"] = refused(
                group, engine, bad, 4 - stage if stage != 2 else 3, scratch
            )
            torch.distributed.barrier()
            if rank == 0:
                Path(url, name).write_bytes(good)
            torch.distributed.barrier()
        if rank == 0:
            for name in commit.files:
                Path(url, name).write_bytes(forged)
        torch.distributed.barrier()
        bad = checkpoint_folder.Commit(**{**commit.__dict__, "files": infos(url)})
        state_files.check_file, kept = (lambda *_: None), state_files.check_file  # the second guard alone
        said[f"{stage} unchecked"] = refused(group, engine, bad, stage, scratch)
        state_files.check_file = kept
        del engine
    Path(folder, f"said-{rank}.json").write_text(json.dumps(said))
    leave_ranks()


@pytest.mark.slow
def test_every_stage_refuses_a_forged_file_on_as_many_ranks_and_on_others(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_one_rank, (port, str(tmp_path)), nprocs=2)
    said = json.loads((tmp_path / "said-0.json").read_text())
    assert len(said) == 2 * (3 + 3 + 4) + 2 * 3
    for what, line in said.items():
        if what.endswith("good"):
            assert line == "{'kept': 7}"
        elif what.endswith("unchecked"):
            assert line != "it was loaded"
        else:
            name = what.split()[1]
            assert f"{name} is no training state that can be read safely: it refers to " in line, what
            assert "\n" not in line
    assert not (tmp_path / "mark").exists()


def test_the_conversion_reads_no_forged_file_even_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / STATE_FOLDER).mkdir()
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        (tmp_path / STATE_FOLDER / name).write_bytes(forgeries(tmp_path / "mark")["call"])
    with pytest.raises(CheckpointError, match=r"state/mp_rank_00_model_states.pt is no training state"):
        universal.convert(str(tmp_path))
    monkeypatch.setattr(state_files, "check_file", lambda *_: None)
    with pytest.raises(CheckpointError, match="could not be converted"):
        universal.convert(str(tmp_path))
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_a_resume_from_a_forged_state_leaves_with_2_and_one_line(tmp_path: Path) -> None:
    manifest, run = make_set(tmp_path / "set"), tmp_path / "run"
    begun = pretrain(1, run, manifest.url, "train.steps=2", "train.stop_at_step=1")
    assert begun.returncode == 0, begun.stderr
    place = checkpoint_folder.checkpoint_url(str(run), 1)
    state = next(Path(place).rglob("*optim_states.pt"))
    state.write_bytes(forgeries(tmp_path / "mark")["call"])
    tree = json.loads(Path(place, checkpoint_folder.COMMIT).read_text())
    tree["files"][state.relative_to(place).as_posix()] = asdict(storage.file_info(str(state)))
    Path(place, checkpoint_folder.COMMIT).write_text(json.dumps(tree))
    again = pretrain(1, run, manifest.url, "train.steps=2")
    assert again.returncode == 2, again.stderr
    lines = [line for line in again.stderr.splitlines() if "no training state" in line]
    assert len(lines) == 1
    assert f"{state.name} is no training state that can be read safely: it refers to posix.system" in lines[0]
    assert not (tmp_path / "mark").exists()
