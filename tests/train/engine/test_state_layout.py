"""One rank's files are DeepSpeed's: the two engines write the same, and each loads what the other wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from retfound_dist.config.schema import Optim, Train
from retfound_dist.errors import CheckpointError
from retfound_dist.formats.checkpoint_folder import UNIVERSAL
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.checkpoint import universal
from retfound_dist.train.engine import state_files
from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.engine.single_rank_engine import SingleRankEngine
from retfound_dist.train.engine.training_engine import RUN_STATE, STATE_FOLDER, TrainingEngine
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from tests.train.engine_state import clipping_of, fp32_weights_of

Precision = Literal["bf16", "fp32"]
OPTIM = Optim(clip_grad=0.02)


class Net(nn.Module):
    """Sizes that are odd, a tensor that is not trained, and a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(7, 5), nn.Linear(5, 3)
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(self.first(x)) * self.frozen) * self.scale
        return y


def make(stage: int | None, precision: Precision, seed: int = 0, converted: bool = False) -> TrainingEngine:
    """DeepSpeed's engine of one rank at a stage, or the single rank's."""
    net, layout = Net(seed), make_batch_layout(6, 1, 3)
    net.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    train = Train(global_batch=6, micro_batch=3, steps=9, precision=precision)
    groups = parameter_groups(net, OPTIM)
    engine: TrainingEngine
    if stage is None:
        engine = SingleRankEngine(net, groups, train, OPTIM, layout)
    else:
        engine = DeepSpeedEngine(net, groups, train, OPTIM, layout, stage, converted)
    engine.set_lr(0.01)
    return engine


def step(engine: TrainingEngine, number: int) -> Tensor | None:
    images = torch.randn(6, 7, generator=torch.Generator().manual_seed(number))
    norm, forward = None, getattr(engine, "deepspeed", engine.module)
    for part in images.chunk(2):
        engine.backward(forward(part.to(next(engine.module.parameters()).dtype)).float().square().mean())
        norm = engine.end_pass()
    return norm


def save(engine: TrainingEngine, folder: Path) -> dict[str, Any]:
    """Write the state as a save does; gives it by name of the file."""
    state = engine.snapshot(str(folder), {RUN_STATE: {"kept": 7}, "universal_checkpoint_info": {}})
    for path, value in state.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, path)
    return {Path(path).name: state_files.read(path) for path in state}


def differences(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Where two states differ, in keys, types or bits."""
    if isinstance(theirs, Tensor):
        equal = isinstance(ours, Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        return [] if equal else [at]
    if isinstance(theirs, dict):
        if type(ours) is not type(theirs) or list(ours) != list(theirs):
            return [f"{at} has other keys"]
        return [line for key in theirs for line in differences(ours[key], theirs[key], f"{at}/{key}")]
    if isinstance(theirs, (list, tuple)):
        if type(ours) is not type(theirs) or len(ours) != len(theirs):
            return [at]
        return [
            line
            for n, pair in enumerate(zip(ours, theirs, strict=True))
            for line in differences(*pair, f"{at}/{n}")
        ]
    if hasattr(theirs, "cur_scale"):  # the LossScaler, which has no equality
        return differences(vars(ours), vars(theirs), at)
    return [] if type(ours) is type(theirs) and ours == theirs else [at]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_state_passes_through_deepspeed_unchanged(
    precision: Precision, tmp_path: Path, alone: RankGroup
) -> None:
    single = make(None, precision)
    for number in range(3):
        step(single, number)
    written = save(single, tmp_path / "single")
    loaded = make(2, precision, seed=1)
    assert loaded.load(str(tmp_path / "single"), STATE_FOLDER) == {"kept": 7}
    assert differences(written, save(loaded, tmp_path / "deepspeed")) == []
    again = make(None, precision, seed=2)
    assert again.load(str(tmp_path / "deepspeed"), STATE_FOLDER) == {"kept": 7}
    assert differences(save(again, tmp_path / "again"), written) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_engines_take_the_same_steps(precision: Precision, alone: RankGroup) -> None:
    single, deepspeed = make(None, precision), make(2, precision)
    for number in range(4):
        norms = step(single, number), step(deepspeed, number)
        assert float(norms[0]) == pytest.approx(float(norms[1]), rel=1e-6 if precision == "fp32" else 1e-3)  # type: ignore[arg-type]
    ours, theirs = fp32_weights_of(single), fp32_weights_of(deepspeed)
    assert list(ours) == list(fp32_weights_of(single))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-5, atol=1e-6 if precision == "fp32" else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [None, 1, 3])
def test_a_converted_state_goes_on_in_both_engines(
    stage: int | None, precision: Precision, tmp_path: Path, alone: RankGroup
) -> None:
    before = make(stage, precision)
    for number in range(2):
        step(before, number)
    save(before, tmp_path)
    universal.convert(str(tmp_path))
    weights = fp32_weights_of(before)
    for other in (None, 1, 2, 3):
        engine = make(other, precision, seed=1, converted=True)
        assert engine.load(str(tmp_path), UNIVERSAL) == {"kept": 7}
        loaded = fp32_weights_of(engine)
        assert all(torch.equal(loaded[name], weight) for name, weight in weights.items()), other
    goes_on = make(None, precision, seed=1)
    goes_on.load(str(tmp_path), UNIVERSAL)
    step(goes_on, 2)
    step(before, 2)
    for name, weight in fp32_weights_of(before).items():
        close = {"rtol": 1e-5, "atol": 1e-6 if precision == "fp32" else 1e-4}
        torch.testing.assert_close(fp32_weights_of(goes_on)[name], weight, **close)


@pytest.mark.slow
def test_unchanged_deepspeed_loads_one_weight_decay_and_one_step_for_all_and_no_clipping(
    tmp_path: Path, alone: RankGroup
) -> None:
    """The repairs in `DeepSpeedEngine.load` are needed as long as this passes."""
    before = make(3, "bf16")
    step(before, 0)
    save(before, tmp_path)
    universal.convert(str(tmp_path))
    engine = make(3, "bf16", seed=1, converted=True)
    assert isinstance(engine, DeepSpeedEngine)
    engine.load_unrepaired(str(tmp_path), UNIVERSAL)
    decays = [group["weight_decay"] for group in engine.sharded.param_groups]
    steps = [state["step"] for state in engine.adamw.state.values()]
    assert decays != [OPTIM.weight_decay, 0.0], "DeepSpeed keeps each group's weight decay: delete the repair"
    assert len({id(each) for each in steps}) == 1 < len(steps), (
        "each has a step of its own: delete the repair"
    )
    engine = make(3, "bf16", seed=1, converted=True)
    assert isinstance(engine, DeepSpeedEngine)
    engine.load(str(tmp_path), UNIVERSAL)
    assert [group["weight_decay"] for group in engine.sharded.param_groups] == [OPTIM.weight_decay, 0.0]
    assert len({id(state["step"]) for state in engine.adamw.state.values()}) == len(steps)
    for load, clip in (("load_unrepaired", 0.0), ("load", OPTIM.clip_grad)):
        engine = make(2, "bf16", seed=1, converted=True)
        getattr(engine, load)(str(tmp_path), UNIVERSAL)
        assert clipping_of(engine) == clip, "DeepSpeed keeps the clipping: delete the repair"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "written", "loaded"),
    [("_complete_names", 2, 3), ("_complete_optimizer", 2, 3), ("_complete_parameters", 3, 2)],
)
def test_deepspeed_cannot_load_a_converted_state_that_is_not_completed(
    function: str,
    written: int,
    loaded: int,
    tmp_path: Path,
    alone: RankGroup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each completion in `checkpoint/universal.py` is needed as long as this passes."""
    before = make(written, "bf16")
    step(before, 0)
    save(before, tmp_path)
    shapes = {name: weight.shape for name, weight in fp32_weights_of(before).items()}
    monkeypatch.setattr(universal, function, lambda *_: shapes)
    universal.convert(str(tmp_path))
    engine = make(loaded, "bf16", seed=1, converted=True)
    try:
        engine.load(str(tmp_path), UNIVERSAL)
    except Exception:  # of many kinds
        return
    pytest.fail(f"DeepSpeed loads a state without it: delete {function}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    engine = make(None, "fp32")
    step(engine, 0)
    save(engine, tmp_path)
    (tmp_path / STATE_FOLDER / "zero_pp_rank_0_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointError, match=r"zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        engine.load(str(tmp_path), STATE_FOLDER)
