"""`retfound plan`: arithmetic, memory, speed, store, and what it prints."""

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.estimate.save_time import Grace
from retfound_dist.plan.cluster import DEVICES, Cluster
from retfound_dist.plan.data_facts import assumed_data
from retfound_dist.plan.run_plan import plan_run
from tests import ROOT

OCT = str(ROOT / "configs/pretrain_vitl_oct.toml")


def test_a_save_that_takes_longer_than_those_who_stop_a_run_wait_is_warned_of() -> None:
    data, one = assumed_data(182_980, 5e4, ""), Cluster(1, 8, DEVICES[0])
    slurm = Grace(20, "scancel", "scancel --signal=TERM JOB")

    def warned(*overrides: str) -> list[str]:
        config, _ = load(PretrainConfig, OCT, overrides)
        found = plan_run(config, data, one, None, 168, [slurm])
        assert 25 < found.save_time.seconds < 35
        return [f.problem.split(", but ")[-1] for f in found.findings if f.key == "train.grace_s"]

    assert warned() == ["scancel allows 20 s"]
    assert warned("train.grace_s=10") == ["train.grace_s allows 10 s", "scancel allows 20 s"]


def test_one_gpu_keeps_fp32_sums_of_the_gradients_of_several_passes() -> None:
    data, one = assumed_data(182_980, 5e4, ""), Cluster(1, 1, DEVICES[0])

    def gradient_bytes(micro_batch: int) -> tuple[int, float, float]:
        config, _ = load(PretrainConfig, OCT, [f"train.micro_batch={micro_batch}"])
        plan = plan_run(config, data, one, None, 168)
        memory = plan.stages[plan.stage - 1].memory
        return plan.batch.accumulation, memory.gradients, 4.0 * plan.parameters

    passes, several, sums = gradient_bytes(64)
    assert (passes, several) == (28, sums)
    passes, single, _ = gradient_bytes(1792)
    assert (passes, single) == (1, 0.0)
